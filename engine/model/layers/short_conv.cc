#include "engine/model/layers/short_conv.h"

namespace thermocline {

MixerMemory ShortConv::memory() const {
  return {.state_elems = (config_.kernel_size - 1) * config_.hidden_size};
}

void ShortConv::DeclareTensors(const LayerPrefix& prefix, TensorTable* table) {
  const int64_t hidden = config_.hidden_size;
  table->Matrix({prefix.hf + "conv.in_proj.weight", prefix.gguf + "shortconv.in_proj.weight"},
                3 * hidden, hidden, &in_proj_);
  table->dense.push_back({{prefix.hf + "conv.conv.weight", prefix.gguf + "shortconv.conv.weight"},
                          {hidden, config_.kernel_size},
                          /*as_f32=*/true,
                          /*optional=*/false,
                          &conv_,
                          /*in_rows=*/true});
  table->Matrix({prefix.hf + "conv.out_proj.weight", prefix.gguf + "shortconv.out_proj.weight"},
                hidden, hidden, &out_proj_);
}

TensorView ShortConv::Forward(ForwardPass* pass, int mixer, const TensorView& x) const {
  DenseOps& ops = pass->ops();
  const int64_t n = pass->num_tokens(), hidden = config_.hidden_size;
  const TensorView b = pass->NewTensor({n, hidden}), c = pass->NewTensor({n, hidden}),
                   value = pass->NewTensor({n, hidden}), out = pass->NewTensor({n, hidden});
  const Projection in[] = {{RowsOf(in_proj_, 0, hidden), {}, b},
                           {RowsOf(in_proj_, hidden, hidden), {}, c},
                           {RowsOf(in_proj_, 2 * hidden, hidden), {}, value}};
  ops.MatMul(x, pass->roles(), in);
  ops.Multiply(b, value, value);
  ops.CausalConv(value, conv_, /*silu=*/false,
                 pass->State(mixer, 0, (config_.kernel_size - 1) * hidden));
  ops.Multiply(c, value, value);
  const Projection o = {out_proj_, {}, out};
  ops.MatMul(value, pass->roles(), {&o, 1});
  return out;
}

}  // namespace thermocline
