// The gated feed-forward network: down * (silu(gate * x) . (up * x)).
#ifndef THERMOCLINE_ENGINE_MODEL_LAYERS_MLP_H_
#define THERMOCLINE_ENGINE_MODEL_LAYERS_MLP_H_

#include <string>

#include "engine/pass/forward_pass.h"
#include "engine/weights/tensor_table.h"

namespace thermocline {

// Names of the three matrices without ".weight", under a layer's prefix. One Hugging Face matrix
// may hold gate and up, gate first: then gate and up name it both.
struct MlpNames {
  TensorName gate = {"mlp.gate_proj", "ffn_gate"};
  TensorName up = {"mlp.up_proj", "ffn_up"};
  TensorName down = {"mlp.down_proj", "ffn_down"};
};

// Shazeer 2020 (SwiGLU), eq. 6.
class Mlp {
 public:
  void DeclareTensors(const LayerPrefix& prefix, const MlpNames& names, int64_t hidden_size,
                      int64_t width, TensorTable* table);
  // x [N, hidden] -> [N, hidden], in the pass's scratch.
  TensorView Forward(ForwardPass* pass, const TensorView& x) const;

 private:
  TensorView gate_, up_;                        // [width, hidden]
  TensorView down_;                             // [hidden, width]
  TensorView gate_bias_, up_bias_, down_bias_;  // may be empty
};

}  // namespace thermocline

#endif  // THERMOCLINE_ENGINE_MODEL_LAYERS_MLP_H_
