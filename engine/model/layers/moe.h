// The mixture-of-experts layer: route, run the chosen experts where they lie, combine in router
// order; and beside them, in some models, an expert that every token shares.
#ifndef THERMOCLINE_ENGINE_MODEL_LAYERS_MOE_H_
#define THERMOCLINE_ENGINE_MODEL_LAYERS_MOE_H_

#include <string>

#include "engine/model/layers/mlp.h"

namespace thermocline {

// Under a layer's prefix. The experts' Hugging Face tensors as ExpertMatrix wants them; GGUF's are
// the same for all architectures.
struct MoeNames {
  std::string router = "mlp.gate";  // without ".weight"
  // Added to the scores for the choice; empty: none. GGUF: exp_probs_b.bias.
  std::string choice_bias;
  ExpertPlace gate = {"mlp.experts.{e}.gate_proj.weight"};
  ExpertPlace up = {"mlp.experts.{e}.up_proj.weight"};
  ExpertPlace down = {"mlp.experts.{e}.down_proj.weight"};
  ExpertPlace gate_bias, up_bias, down_bias;  // empty: the experts have no biases
  MlpNames shared = {{"mlp.shared_experts.gate_proj", "ffn_gate_shexp"},
                     {"mlp.shared_experts.up_proj", "ffn_up_shexp"},
                     {"mlp.shared_experts.down_proj", "ffn_down_shexp"}};
  // The shared expert's own gate, without ".weight"; empty: it counts in full.
  std::string shared_gate;
};

// As Mixtral named them: block_sparse_moe, with w1, w3 and w2 for gate, up and down.
inline MoeNames MixtralMoeNames() {
  MoeNames names;
  names.router = "block_sparse_moe.gate";
  names.gate = {"block_sparse_moe.experts.{e}.w1.weight"};
  names.up = {"block_sparse_moe.experts.{e}.w3.weight"};
  names.down = {"block_sparse_moe.experts.{e}.w2.weight"};
  return names;
}

struct MoeConfig {
  int64_t hidden_size = 0;
  int64_t num_experts = 0;
  int64_t num_identity_experts = 0;  // chosen like others, they return their input
  int64_t intermediate_size = 0;
  int64_t shared_intermediate_size = 0;  // 0: no shared expert
  RouteArgs route;                       // without the bias, which is a tensor
  Activation activation = Activation::kSilu;
  // How a GGUF file holds the matrices: all experts' together, as now; gate and up in one; or, in
  // the first Mixtral files, every expert's apart.
  enum class GgufLayout : uint8_t { kTogether, kGateUpFused, kApart };
  GgufLayout gguf_layout = GgufLayout::kTogether;
  MoeNames names;
};

// Shazeer et al. 2017, eq. 1; Dai et al. 2024 (DeepSeekMoE) for the shared expert.
class Moe {
 public:
  void DeclareTensors(const MoeConfig& config, int layer, const LayerPrefix& prefix,
                      TensorTable* table);
  // acc [N, hidden] += scale * (sum over the chosen experts of weight * expert(x) + shared(x)).
  // x [N, hidden]. Errors come from the disk or a device.
  absl::Status Add(ForwardPass* pass, const MoeConfig& config, int layer, const TensorView& x,
                   float scale, const TensorView& acc) const;

 private:
  // What the shared expert gives, [N, hidden].
  TensorView Shared(ForwardPass* pass, const TensorView& x) const;

  TensorView router_;       // [num_experts + num_identity_experts, hidden]
  TensorView router_bias_;  // of its logits; may be empty
  TensorView choice_bias_;  // may be empty
  Mlp shared_;
  TensorView shared_gate_;  // [1, hidden], may be empty
};

}  // namespace thermocline

#endif  // THERMOCLINE_ENGINE_MODEL_LAYERS_MOE_H_
