#include "engine/layers/moe.h"

namespace thermocline {

absl::Status AddExperts(ForwardPass* pass, int layer, const MoeConfig& config,
                        const TensorView& router, const TensorView& x, float scale,
                        const TensorView& acc) {
  const int64_t n = pass->num_tokens(), top_k = config.route.top_k;
  Backend& backend = pass->backend();
  const TensorView logits = pass->NewTensor({n, config.num_experts});
  const TensorView ids = pass->NewTensor({n, top_k}, DType::kI32);
  const TensorView weights = pass->NewTensor({n, top_k});
  const TensorView expert_out = pass->NewTensor({n * top_k, x.cols()});
  const Projection gate = {router, {}, logits};
  backend.MatMul(x, pass->roles(), {&gate, 1});
  backend.RouteTopK(logits, config.route, ids, weights);
  if (absl::Status s = pass->experts().Run(layer, x, ids, expert_out); !s.ok()) return s;
  backend.CombineExperts(expert_out, weights, scale, acc);
  return absl::OkStatus();
}

}  // namespace thermocline
