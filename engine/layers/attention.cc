#include "engine/layers/attention.h"

namespace thermocline {
namespace {

// Normalises [N, heads * head_dim] in place, per head or as one row.
void Normalize(ForwardPass* pass, const AttentionConfig& config, int64_t heads,
               const TensorView& weight, const TensorView& x) {
  if (config.qk_norm == QkNorm::kNone) return;
  const TensorView rows = config.qk_norm == QkNorm::kPerHead
                              ? Reshape(x, {pass->num_tokens() * heads, config.head_dim})
                              : x;
  pass->backend().RmsNorm(rows, weight, config.norm_eps, rows);
}

}  // namespace

TensorView Attention(ForwardPass* pass, int layer, const AttentionConfig& config,
                     const AttentionWeights& weights, const TensorView& x) {
  const int64_t n = pass->num_tokens();
  const int64_t q_size = config.num_heads * config.head_dim,
                kv_size = config.num_kv_heads * config.head_dim;
  Backend& backend = pass->backend();
  const TensorView q = pass->NewTensor({n, q_size}), k = pass->NewTensor({n, kv_size}),
                   v = pass->NewTensor({n, kv_size});
  const Projection qkv[] = {{weights.q_proj, weights.q_bias, q},
                            {weights.k_proj, weights.k_bias, k},
                            {weights.v_proj, weights.v_bias, v}};
  backend.MatMul(x, pass->roles(), qkv);
  Normalize(pass, config, config.num_heads, weights.q_norm, q);
  Normalize(pass, config, config.num_kv_heads, weights.k_norm, k);
  if (config.clip > 0.0f) {
    for (const TensorView& t : {q, k, v}) backend.Clamp(t, config.clip);
  }
  const TensorView q_heads = Reshape(q, {n, config.num_heads, config.head_dim});
  const TensorView k_heads = Reshape(k, {n, config.num_kv_heads, config.head_dim});
  const TensorView v_heads = Reshape(v, {n, config.num_kv_heads, config.head_dim});
  backend.Rope(q_heads, pass->positions(), config.rope);
  backend.Rope(k_heads, pass->positions(), config.rope);
  backend.StoreKv(k_heads, v_heads, pass->slot_mapping(), pass->kv_cache().keys(layer),
                  pass->kv_cache().values(layer));
  const TensorView context = pass->NewTensor({n, q_size});
  backend.Attention({.q = q_heads,
                     .k_cache = pass->kv_cache().keys(layer),
                     .v_cache = pass->kv_cache().values(layer),
                     .block_tables = pass->block_tables(),
                     .seq_idx = pass->seq_idx(),
                     .positions = pass->positions(),
                     .scale = config.scale,
                     .window = 0,
                     .out = Reshape(context, {n, config.num_heads, config.head_dim})});
  const TensorView out = pass->NewTensor({n, x.cols()});
  const Projection o = {weights.o_proj, weights.o_bias, out};
  backend.MatMul(context, pass->roles(), {&o, 1});
  return out;
}

}  // namespace thermocline
