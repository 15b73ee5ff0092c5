#include "engine/model/layers/gated_delta_net.h"

namespace thermocline {

MixerMemory GatedDeltaNet::memory() const {
  const int64_t conv = (config_.kernel_size - 1) * (2 * keys() + values());
  return {.state_elems = conv + config_.num_value_heads * config_.key_dim * config_.value_dim};
}

void GatedDeltaNet::DeclareTensors(const LayerPrefix& prefix, TensorTable* table) {
  const int64_t hidden = config_.hidden_size, dk = config_.key_dim, dv = config_.value_dim;
  const int64_t key_heads = config_.num_key_heads, ratio = config_.num_value_heads / key_heads;
  // Hugging Face folders store, for each key head, its rows of q, k, v and z together; likewise of
  // beta and a.
  const int64_t qkvz = 2 * dk + 2 * ratio * dv;
  const auto grouped = [&](const char* name, int64_t stored_rows, int64_t stride,
                           const std::vector<RowRange>& parts) {
    TensorSource source(prefix.hf + name);
    source.shape = {stored_rows, hidden};
    for (const RowRange& part : parts) {
      source.rows.push_back({part.first, part.count, 1, key_heads, stride});
    }
    return source;
  };
  const char* in_proj = "linear_attn.in_proj_qkvz.weight";
  const int64_t z_first = 2 * dk + ratio * dv;
  const auto qkvz_rows = [&](const char* gguf, const std::vector<RowRange>& parts) {
    TensorName name = {grouped(in_proj, key_heads * qkvz, qkvz, parts), prefix.gguf + gguf};
    if (config_.gguf_ssm_in) {
      name.gguf = name.hf;
      name.gguf.name = prefix.gguf + "ssm_in.weight";
    }
    return name;
  };
  table->Matrix(qkvz_rows("attn_qkv.weight", {{0, dk}, {dk, dk}, {2 * dk, ratio * dv}}),
                2 * keys() + values(), hidden, &qkv_proj_);
  table->Matrix(qkvz_rows("attn_gate.weight", {{z_first, ratio * dv}}), values(), hidden, &z_proj_);
  const auto beta_or_a = [&](int64_t first, TensorView* target) {
    const int64_t rows = 2 * config_.num_value_heads;
    TensorName name = {grouped("linear_attn.in_proj_ba.weight", rows, 2 * ratio, {{first, ratio}}),
                       prefix.gguf + "ssm_ba.weight"};
    name.gguf.shape = name.hf.shape;
    name.gguf.rows = name.hf.rows;
    table->Matrix(name, config_.num_value_heads, hidden, target);
  };
  beta_or_a(0, &beta_proj_);
  beta_or_a(ratio, &a_proj_);
  table->dense.push_back(
      {{prefix.hf + "linear_attn.conv1d.weight", prefix.gguf + "ssm_conv1d.weight"},
       {2 * keys() + values(), config_.kernel_size},
       /*as_f32=*/true,
       /*optional=*/false,
       &conv_,
       /*in_rows=*/true});
  TensorName a_log = {prefix.hf + "linear_attn.A_log", prefix.gguf + "ssm_a"};
  a_log.hf.transform = Transform::kNegExp;
  table->Vector(a_log, config_.num_value_heads, &a_scale_);
  table->Vector({prefix.hf + "linear_attn.dt_bias", prefix.gguf + "ssm_dt.bias"},
                config_.num_value_heads, &dt_bias_);
  table->Vector({prefix.hf + "linear_attn.norm.weight", prefix.gguf + "ssm_norm.weight"}, dv,
                &norm_);
  table->Matrix({prefix.hf + "linear_attn.out_proj.weight", prefix.gguf + "ssm_out.weight"}, hidden,
                values(), &out_proj_);
}

TensorView GatedDeltaNet::Forward(ForwardPass* pass, int mixer, const TensorView& x) const {
  DenseOps& ops = pass->ops();
  const int64_t n = pass->num_tokens(), heads = config_.num_value_heads;
  const TensorView q = pass->NewTensor({n, keys()}), k = pass->NewTensor({n, keys()}),
                   v = pass->NewTensor({n, values()}), z = pass->NewTensor({n, values()}),
                   beta = pass->NewTensor({n, heads}), a = pass->NewTensor({n, heads});
  const Projection in[] = {{RowsOf(qkv_proj_, 0, keys()), {}, q},
                           {RowsOf(qkv_proj_, keys(), keys()), {}, k},
                           {RowsOf(qkv_proj_, 2 * keys(), values()), {}, v},
                           {z_proj_, {}, z},
                           {beta_proj_, {}, beta},
                           {a_proj_, {}, a}};
  ops.MatMul(x, pass->roles(), in);

  // q, k and v have their own part of the state, and of the convolution's weight.
  int64_t state = 0, channel = 0;
  for (const TensorView& part : {q, k, v}) {
    const int64_t elems = (config_.kernel_size - 1) * part.cols();
    ops.CausalConv(part, RowsOf(conv_, channel, part.cols()), /*silu=*/true,
                   pass->State(mixer, state, elems));
    state += elems;
    channel += part.cols();
  }
  const TensorView mixed = pass->NewTensor({n, heads, config_.value_dim});
  ops.GatedDeltaRule(
      {.q = Reshape(q, {n, config_.num_key_heads, config_.key_dim}),
       .k = Reshape(k, {n, config_.num_key_heads, config_.key_dim}),
       .v = Reshape(v, {n, heads, config_.value_dim}),
       .beta = beta,
       .a = a,
       .a_scale = a_scale_,
       .dt_bias = dt_bias_,
       .state = pass->State(mixer, state, heads * config_.key_dim * config_.value_dim),
       .out = mixed});
  const TensorView per_head = Reshape(mixed, {n * heads, config_.value_dim});
  ops.RmsNorm(per_head, norm_, static_cast<float>(config_.norm_eps), per_head);
  const TensorView gated = Reshape(mixed, {n, values()});
  ops.SiluMul(z, gated, gated);
  const TensorView out = pass->NewTensor({n, x.cols()});
  const Projection o = {out_proj_, {}, out};
  ops.MatMul(gated, pass->roles(), {&o, 1});
  return out;
}

}  // namespace thermocline
