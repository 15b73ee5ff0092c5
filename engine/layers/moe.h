// The mixture-of-experts layer: route, run the chosen experts where they lie, combine in router
// order.
#ifndef THERMOCLINE_ENGINE_LAYERS_MOE_H_
#define THERMOCLINE_ENGINE_LAYERS_MOE_H_

#include "engine/forward_pass.h"

namespace thermocline {

struct MoeConfig {
  int64_t num_experts = 0;
  RouteArgs route;
};

// acc [N, hidden] += scale * sum over the chosen experts of weight * expert(x).  x [N, hidden].
// Shazeer et al. 2017, eq. 1.
absl::Status AddExperts(ForwardPass* pass, int layer, const MoeConfig& config,
                        const TensorView& router, const TensorView& x, float scale,
                        const TensorView& acc);

}  // namespace thermocline

#endif  // THERMOCLINE_ENGINE_LAYERS_MOE_H_
