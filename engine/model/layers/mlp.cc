#include "engine/model/layers/mlp.h"

namespace thermocline {

void Mlp::DeclareTensors(const LayerPrefix& prefix, const MlpNames& names, int64_t hidden_size,
                         int64_t width, TensorTable* table) {
  const bool fused = names.gate.hf.name == names.up.hf.name;
  const auto declare = [&](const TensorName& name, int64_t rows, int64_t cols, int64_t first,
                           int64_t stored_rows, TensorView* weight, TensorView* bias) {
    for (const bool is_bias : {false, true}) {
      const char* suffix = is_bias ? ".bias" : ".weight";
      const auto shape = [&](int64_t count) {
        return is_bias ? std::vector<int64_t>{count} : std::vector<int64_t>{count, cols};
      };
      TensorName full = {prefix.hf + name.hf.name + suffix, prefix.gguf + name.gguf.name + suffix};
      if (stored_rows != rows) {
        full.hf.shape = shape(stored_rows);
        full.hf.rows = {{first, rows}};
      }
      table->dense.push_back(
          {full, shape(rows), is_bias, /*optional=*/is_bias, is_bias ? bias : weight});
    }
  };
  const int64_t stored = fused ? 2 * width : width;
  declare(names.gate, width, hidden_size, 0, stored, &gate_, &gate_bias_);
  declare(names.up, width, hidden_size, width, stored, &up_, &up_bias_);
  declare(names.down, hidden_size, width, 0, hidden_size, &down_, &down_bias_);
}

TensorView Mlp::Forward(ForwardPass* pass, const TensorView& x) const {
  const int64_t n = pass->num_tokens(), width = down_.cols();
  const TensorView gate = pass->NewTensor({n, width}), up = pass->NewTensor({n, width});
  const TensorView out = pass->NewTensor({n, x.cols()});
  const Projection gate_up[] = {{gate_, gate_bias_, gate}, {up_, up_bias_, up}};
  const Projection down = {down_, down_bias_, out};
  DenseOps& ops = pass->ops();
  ops.MatMul(x, pass->roles(), gate_up);
  ops.SiluMul(gate, up, gate);
  ops.MatMul(gate, pass->roles(), {&down, 1});
  return out;
}

}  // namespace thermocline
