// RoutedExperts: what a MoE layer asks of whoever computes its experts.
#ifndef THERMOCLINE_ENGINE_PASS_ROUTED_EXPERTS_H_
#define THERMOCLINE_ENGINE_PASS_ROUTED_EXPERTS_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/expert_ops.h"

namespace thermocline {

class RoutedExperts {
 public:
  // A token whose result lacks an expert that could not be read.
  struct LostRow {
    int32_t token = 0;  // row of x
    absl::Status status;
  };

  virtual ~RoutedExperts() = default;

  // Learns the routing, which is the layer's only wait for the dense side, and decides. x [N,
  // hidden] f32 and ids [N, top_k] i32 in the dense device's memory. Ids from num_experts on belong
  // to nobody here. roles [N], in host memory, outlive the step.
  virtual absl::Status Plan(int layer, const TensorView& x, absl::Span<const TokenRole> roles,
                            const TensorView& ids) = 0;
  // Reads of missing experts and work on a device begin. out [N * top_k, hidden] f32: row n * top_k
  // + j is to become expert ids[n, j] applied to x[n]; rows of ids that belong to nobody are left
  // alone.
  virtual void Start(Activation activation, const TensorView& out) = 0;
  // Everything is computed, or, if its device has queues, enqueued. Rows of lost experts are zeros.
  virtual absl::StatusOr<std::vector<LostRow>> Finish() = 0;
};

}  // namespace thermocline

#endif  // THERMOCLINE_ENGINE_PASS_ROUTED_EXPERTS_H_
