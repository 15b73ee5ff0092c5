#include "engine/layers/mlp.h"

namespace thermocline {
namespace {

// Rows [first, first + count) of a matrix.
TensorView RowRange(const TensorView& matrix, int64_t first, int64_t count) {
  TensorView part = matrix;
  part.data = matrix.Row<void>(first);
  part.shape[0] = count;
  return part;
}

}  // namespace

TensorView Mlp(ForwardPass* pass, const MlpWeights& weights, const TensorView& x) {
  const int64_t n = pass->num_tokens(), width = weights.down.cols();
  const bool fused = !weights.gate_up.empty();
  const TensorView gate_weight = fused ? RowRange(weights.gate_up, 0, width) : weights.gate;
  const TensorView up_weight = fused ? RowRange(weights.gate_up, width, width) : weights.up;
  const TensorView gate = pass->NewTensor({n, width}), up = pass->NewTensor({n, width});
  const TensorView out = pass->NewTensor({n, x.cols()});
  const Projection gate_up[] = {{gate_weight, {}, gate}, {up_weight, {}, up}};
  const Projection down = {weights.down, {}, out};
  Backend& backend = pass->backend();
  backend.MatMul(x, pass->roles(), gate_up);
  backend.SiluMul(gate, up, gate);
  backend.MatMul(gate, pass->roles(), {&down, 1});
  return out;
}

}  // namespace thermocline
