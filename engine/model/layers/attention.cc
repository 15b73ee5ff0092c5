#include "engine/model/layers/attention.h"

namespace thermocline {
namespace {

// Chosen rows of a tensor of the given shape.
TensorSource Source(std::string name, std::vector<int64_t> shape, RowRange rows) {
  TensorSource source(std::move(name));
  source.shape = std::move(shape);
  source.rows = {rows};
  return source;
}

// Turns the halves of each head into pairs: i, i + half, i + 1, i + 1 + half, ...
void HalvesToPairs(int64_t heads, int64_t head_dim, int64_t first, TensorSource* source) {
  const int64_t half = head_dim / 2;
  source->rows = {{first, 2, half, half, 1}};
  source->row_heads = heads;
  source->row_stride = head_dim;
}

}  // namespace

MixerMemory GqaAttention::memory() const {
  return {.num_kv_heads = config_.num_kv_heads,
          .key_dim = config_.head_dim,
          .value_dim = config_.head_dim};
}

void GqaAttention::DeclareProjections(const LayerPrefix& prefix, TensorTable* table) {
  const int64_t hidden = config_.hidden_size, head_dim = config_.head_dim;
  const int64_t q = config_.num_heads * head_dim, kv = config_.num_kv_heads * head_dim;
  struct Part {
    std::string hf, gguf;
    int64_t size;   // rows in use
    int64_t first;  // in the fused matrix
    int64_t heads;
    TensorView *weight, *bias;
  };
  const AttentionNames& names = config_.names;
  for (const Part& part :
       {Part{names.q_proj, "attn_q", q, 0, config_.num_heads, &q_proj_, &q_bias_},
        Part{names.k_proj, "attn_k", kv, q, config_.num_kv_heads, &k_proj_, &k_bias_},
        Part{names.v_proj, "attn_v", kv, q + kv, 0, &v_proj_, &v_bias_}}) {
    const bool fused = !names.qkv_proj.empty();
    const std::string hf = prefix.hf + (fused ? names.qkv_proj : part.hf);
    const std::string gguf = prefix.gguf + (names.gguf_qkv ? "attn_qkv" : part.gguf);
    for (const bool bias : {false, true}) {
      const char* suffix = bias ? ".bias" : ".weight";
      const auto shape = [&](int64_t rows) {
        return bias ? std::vector<int64_t>{rows} : std::vector<int64_t>{rows, hidden};
      };
      const RowRange in_fused = {part.first, part.size};
      TensorName name = {hf + suffix, gguf + suffix};
      if (fused) name.hf = Source(hf + suffix, shape(q + 2 * kv), in_fused);
      if (names.gguf_qkv) name.gguf = Source(gguf + suffix, shape(q + 2 * kv), in_fused);
      if (config_.hf_half_to_pairs && part.heads > 0) {
        HalvesToPairs(part.heads, head_dim, fused ? part.first : 0, &name.hf);
      }
      if (config_.gated && part.weight == &q_proj_) {
        const RowRange rows = {0, head_dim, 1, config_.num_heads, 2 * head_dim};
        name.hf = Source(hf + suffix, shape(2 * q), rows);
        name.gguf = Source(gguf + suffix, shape(2 * q), rows);
      }
      table->dense.push_back(
          {name, shape(part.size), bias, /*optional=*/bias, bias ? part.bias : part.weight});
    }
  }
  if (config_.gated) {
    const RowRange rows = {head_dim, head_dim, 1, config_.num_heads, 2 * head_dim};
    table->Matrix({Source(prefix.hf + names.q_proj + ".weight", {2 * q, hidden}, rows),
                   Source(prefix.gguf + "attn_q.weight", {2 * q, hidden}, rows)},
                  q, hidden, &gate_proj_);
  }
}

void GqaAttention::DeclareTensors(const LayerPrefix& prefix, TensorTable* table) {
  const int64_t hidden = config_.hidden_size, head_dim = config_.head_dim;
  const int64_t q = config_.num_heads * head_dim, kv = config_.num_kv_heads * head_dim;
  const AttentionNames& names = config_.names;
  DeclareProjections(prefix, table);
  table->Matrix({prefix.hf + names.o_proj + ".weight", prefix.gguf + "attn_output.weight"}, hidden,
                q, &o_proj_);
  table->Vector({prefix.hf + names.o_proj + ".bias", prefix.gguf + "attn_output.bias"}, hidden,
                &o_bias_, /*optional=*/true);
  if (config_.qk_norm != QkNorm::kNone) {
    const bool all_heads = config_.qk_norm == QkNorm::kAllHeads;
    TensorName q_name = {prefix.hf + names.q_norm, prefix.gguf + "attn_q_norm.weight"};
    TensorName k_name = {prefix.hf + names.k_norm, prefix.gguf + "attn_k_norm.weight"};
    if (config_.zero_centered_norm) {
      q_name.hf.transform = k_name.hf.transform = Transform::kAddOne;
    }
    table->Vector(q_name, all_heads ? q : head_dim, &q_norm_);
    table->Vector(k_name, all_heads ? kv : head_dim, &k_norm_);
  }
  if (config_.sinks) {
    table->Vector({prefix.hf + "self_attn.sinks", prefix.gguf + "attn_sinks.weight"},
                  config_.num_heads, &sinks_);
  }
  table->constants.push_back({InvFreq(config_.rope), &inv_freq_});
}

// Normalises [N, heads, head_dim] in place, per head or as one row a token.
void GqaAttention::Normalize(ForwardPass* pass, int64_t heads, const TensorView& weight,
                             const TensorView& x) const {
  const int64_t n = pass->num_tokens(), head_dim = config_.head_dim;
  const TensorView rows = config_.qk_norm == QkNorm::kAllHeads ? Reshape(x, {n, heads * head_dim})
                                                               : Reshape(x, {n * heads, head_dim});
  pass->ops().RmsNorm(rows, weight, static_cast<float>(config_.norm_eps), rows);
}

TensorView GqaAttention::Forward(ForwardPass* pass, int mixer, const TensorView& x) const {
  const int64_t n = pass->num_tokens(), head_dim = config_.head_dim;
  const int64_t num_heads = config_.num_heads, num_kv_heads = config_.num_kv_heads;
  DenseOps& ops = pass->ops();
  const TensorView q = pass->NewTensor({n, num_heads * head_dim}),
                   k = pass->NewTensor({n, num_kv_heads * head_dim}),
                   v = pass->NewTensor({n, num_kv_heads * head_dim});
  std::vector<Projection> projections = {
      {q_proj_, q_bias_, q}, {k_proj_, k_bias_, k}, {v_proj_, v_bias_, v}};
  TensorView gate;
  if (config_.gated) {
    gate = pass->NewTensor({n, num_heads * head_dim});
    projections.push_back({gate_proj_, {}, gate});
  }
  ops.MatMul(x, pass->roles(), projections);
  const bool norm_after = config_.qk_norm == QkNorm::kPerHeadAfterRope;
  const auto normalize = [&] {
    Normalize(pass, num_heads, q_norm_, q);
    Normalize(pass, num_kv_heads, k_norm_, k);
  };
  if (config_.qk_norm != QkNorm::kNone && !norm_after) normalize();
  if (config_.clip > 0.0) {
    for (const TensorView& t : {q, k, v}) ops.Clamp(t, static_cast<float>(config_.clip));
  }
  const TensorView q_heads = Reshape(q, {n, num_heads, head_dim});
  const TensorView k_heads = Reshape(k, {n, num_kv_heads, head_dim});
  const TensorView v_heads = Reshape(v, {n, num_kv_heads, head_dim});
  const RopeArgs rope = {.inv_freq = inv_freq_,
                         .scale = static_cast<float>(config_.rope.attention_factor),
                         .interleaved = config_.rope.interleaved};
  ops.Rope(q_heads, pass->positions(), rope);
  ops.Rope(k_heads, pass->positions(), rope);
  if (norm_after) normalize();
  pass->StoreKv(mixer, k_heads, v_heads);
  const TensorView context = pass->NewTensor({n, num_heads * head_dim});
  ops.Attention({.q = q_heads,
                 .roles = pass->roles(),
                 .k_cache = pass->kv_cache().keys(mixer),
                 .v_cache = pass->kv_cache().values(mixer),
                 .block_tables = pass->block_tables(),
                 .seq_idx = pass->seq_idx(),
                 .positions = pass->positions(),
                 .sinks = sinks_,
                 .scale = static_cast<float>(config_.scale),
                 .window = static_cast<int>(config_.window),
                 .out = Reshape(context, {n, num_heads, head_dim})});
  if (config_.gated) ops.SigmoidMul(gate, context);
  const TensorView out = pass->NewTensor({n, x.cols()});
  const Projection o = {o_proj_, o_bias_, out};
  ops.MatMul(context, pass->roles(), {&o, 1});
  return out;
}

}  // namespace thermocline
