// The gated feed-forward network: down * (silu(gate * x) . (up * x)).
#ifndef THERMOCLINE_ENGINE_LAYERS_MLP_H_
#define THERMOCLINE_ENGINE_LAYERS_MLP_H_

#include "engine/forward_pass.h"

namespace thermocline {

// Either gate and up, or both in one matrix, gate first.
struct MlpWeights {
  TensorView gate;     // [width, hidden]
  TensorView up;       // [width, hidden]
  TensorView gate_up;  // [2 * width, hidden]
  TensorView down;     // [hidden, width]
};

// x [N, hidden] -> [N, hidden], in the pass's scratch. Shazeer 2020 (SwiGLU), eq. 6.
TensorView Mlp(ForwardPass* pass, const MlpWeights& weights, const TensorView& x);

}  // namespace thermocline

#endif  // THERMOCLINE_ENGINE_LAYERS_MLP_H_
