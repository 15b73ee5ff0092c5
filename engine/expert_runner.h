// ExpertRunner: computes a MoE layer's experts in the tiers where they lie.
#ifndef THERMOCLINE_ENGINE_EXPERT_RUNNER_H_
#define THERMOCLINE_ENGINE_EXPERT_RUNNER_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "cache/expert_cache.h"
#include "engine/plan_experts.h"
#include "engine/scratch.h"
#include "kernels/backend.h"

namespace thermocline {

// How an expert's bytes are laid out in a slot: its matrices as MakeWeightView sees them, each at a
// 64-byte boundary.
struct ExpertLayout {
  struct Matrix {
    DType dtype = DType::kF32;
    int64_t rows = 0;
    int64_t cols = 0;
    int64_t offset = 0;
  };
  Matrix gate, up, down;
  Matrix gate_bias, up_bias, down_bias;  // one f32 column each; rows == 0: none
  int64_t bytes = 0;
};

class ExpertRunner {
 public:
  struct Tier {
    Backend* backend = nullptr;  // null: the tier is absent
    ExpertCache* cache = nullptr;
  };

  // `layouts` has an entry for every layer (empty for dense ones). All outlive the runner. The
  // dense backend holds x and out.
  ExpertRunner(Backend* dense, Tier host, Tier device, std::vector<ExpertLayout> layouts);

  // out[n * top_k + j] = expert ids[n, j] applied to x[n].  x [N, hidden] f32 and ids [N, top_k]
  // i32 in the dense backend's memory, out [N * top_k, hidden] likewise. Every expert in use is
  // pinned while it runs; a layer that needs more experts than a tier has slots runs in waves.
  // Errors come from the disk or a device.
  // Ids from num_experts on belong to nobody here: their rows of out are left alone.
  absl::Status Run(int layer, const TensorView& x, const TensorView& ids, Activation activation,
                   const TensorView& out);

  const Tier& host() const { return host_; }
  const Tier& device() const { return device_; }
  // Tokens routed to each expert since the start, [layer][expert].
  const std::vector<std::vector<int64_t>>& heat() const { return heat_; }
  // Bytes of the experts computed since the start: an expert counts once a step, however many of
  // its tokens there are.
  int64_t bytes_computed() const { return bytes_computed_; }

 private:
  // The (row, slot) pairs of one active expert.
  struct Active {
    int32_t expert = 0;
    std::vector<int32_t> rows, out_rows;
  };

  // What the tiers compute with.
  struct Job {
    int layer = 0;
    Activation activation = Activation::kSilu;
    TensorView x, out;
  };

  absl::Status RunTier(const Tier& tier, absl::Span<const Active* const> active, const Job& job);
  // Computes in waves of pinned experts; x and out are in the memory of the tier's backend.
  absl::Status RunWaves(const Tier& tier, absl::Span<const Active* const> active, const Job& job);
  // Computes on a tier whose memory is not the dense backend's: x goes over, the listed slots come
  // back.
  absl::Status RunRemote(const Tier& tier, Scratch* scratch, absl::Span<const Active* const> active,
                         const Job& job);

  Backend* dense_;
  Tier host_, device_;
  std::vector<ExpertLayout> layouts_;
  Scratch host_scratch_, device_scratch_;
  std::unique_ptr<ExpertWork[]> works_;  // of one wave
  std::vector<std::vector<int64_t>> heat_;
  int64_t bytes_computed_ = 0;
};

}  // namespace thermocline

#endif  // THERMOCLINE_ENGINE_EXPERT_RUNNER_H_
