#include "engine/model/layers/mla.h"

#include <cmath>

namespace thermocline {
namespace {

// Columns [first, first + count) of every head of [N, heads, dim].
TensorView Columns(const TensorView& x, int64_t first, int64_t count) {
  TensorView part = x;
  part.data = static_cast<char*>(x.data) + BytesOf(DType::kF32, first);
  part.shape[part.rank - 1] = count;
  return part;
}

// The rank-2 rows of a strided view as [N, 1, cols].
TensorView AsOneHead(const TensorView& x) {
  TensorView heads = x;
  heads.rank = 3;
  heads.shape = {x.shape[0], 1, x.cols()};
  return heads;
}

}  // namespace

MlaConfig ReadMla(ConfigReader* reader, const ModelDims& dims, const ModelOptions& options) {
  constexpr int64_t kMaxRank = 1 << 16, kMaxHeadDim = 1 << 12;
  MlaConfig config;
  config.form = options.mla_form;
  config.hidden_size = dims.hidden_size;
  config.num_heads = reader->Int({"num_attention_heads", "attention.head_count"}, 1, 1 << 14);
  config.q_lora_rank = reader->IntOr({"q_lora_rank", "attention.q_lora_rank"}, 0, kMaxRank, 0);
  config.kv_lora_rank = reader->Int({"kv_lora_rank", "attention.kv_lora_rank"}, 1, kMaxRank);
  config.rope_dim = reader->Int({"qk_rope_head_dim", "rope.dimension_count"}, 2, kMaxHeadDim);
  config.legacy_kv_b = reader->checkpoint().Find("blk.0.attn_kv_b.weight") != nullptr &&
                       reader->checkpoint().Find("blk.0.attn_k_b.weight") == nullptr;
  if (reader->is_gguf()) {
    const char *keys = config.legacy_kv_b ? "attention.key_length" : "attention.key_length_mla",
               *values =
                   config.legacy_kv_b ? "attention.value_length" : "attention.value_length_mla";
    config.nope_dim =
        reader->Int({"", keys}, config.rope_dim + 1, 2 * kMaxHeadDim) - config.rope_dim;
    config.value_dim = reader->Int({"", values}, 1, kMaxHeadDim);
  } else {
    config.nope_dim = reader->Int({"qk_nope_head_dim", ""}, 1, kMaxHeadDim);
    config.value_dim = reader->Int({"v_head_dim", ""}, 1, kMaxHeadDim);
  }
  config.rope = ReadRope(reader, config.rope_dim, config.rope_dim, dims.max_position_embeddings,
                         options.max_context);
  config.rope.interleaved = reader->BoolOr({"rope_interleave", ""}, true);
  if (!config.rope.interleaved) {
    reader->Fail("rope_interleave = false is not supported; no published model has it");
  }
  const int64_t head_dim = config.nope_dim + config.rope_dim;
  config.scale = config.rope.softmax_mscale * config.rope.softmax_mscale /
                 std::sqrt(static_cast<double>(head_dim));
  // GGUF describes the absorbed form: one key/value head of the latent row.
  reader->Record("attention.head_count_kv", int64_t{1});
  reader->Record("attention.key_length", config.kv_lora_rank + config.rope_dim);
  reader->Record("attention.value_length", config.kv_lora_rank);
  reader->Record("attention.key_length_mla", head_dim);
  reader->Record("attention.value_length_mla", config.value_dim);
  return config;
}

MixerMemory MlaAttention::memory() const {
  if (config_.form == MlaForm::kAbsorbed) {
    return {.num_kv_heads = 1,
            .key_dim = config_.kv_lora_rank + config_.rope_dim,
            .value_dim = config_.kv_lora_rank,
            .latent = true};
  }
  return {.num_kv_heads = config_.num_heads,
          .key_dim = config_.nope_dim + config_.rope_dim,
          .value_dim = config_.value_dim};
}

void MlaAttention::DeclareKvB(const LayerPrefix& prefix, TensorTable* table) {
  const int64_t heads = config_.num_heads, lora = config_.kv_lora_rank, nope = config_.nope_dim,
                value = config_.value_dim;
  const bool absorbed = config_.form == MlaForm::kAbsorbed;
  // Hugging Face and old GGUF files hold [heads * (nope + value), lora], the keys' rows first in
  // each head.
  const auto fused = [&](std::string name, bool keys) {
    TensorSource source(std::move(name));
    source.shape = {heads * (nope + value), lora};
    source.rows = {keys ? RowRange{0, nope, 1, heads, nope + value}
                        : RowRange{nope, value, 1, heads, nope + value}};
    if (keys && absorbed) {
      source.transform = Transform::kTransposeHeads;
      source.heads = heads;
    }
    return source;
  };
  const std::string hf = prefix.hf + config_.hf_name + "kv_b_proj.weight";
  TensorName k_name = {fused(hf, true), prefix.gguf + "attn_k_b.weight"};
  TensorName v_name = {fused(hf, false), prefix.gguf + "attn_v_b.weight"};
  if (config_.legacy_kv_b) {
    k_name.gguf = fused(prefix.gguf + "attn_kv_b.weight", true);
    v_name.gguf = fused(prefix.gguf + "attn_kv_b.weight", false);
  } else if (!absorbed) {
    k_name.gguf.shape = {heads, lora, nope};
    k_name.gguf.transform = Transform::kTransposeHeads;
    k_name.gguf.heads = heads;
  }
  const std::vector<int64_t> k_shape =
      absorbed ? std::vector<int64_t>{heads, lora, nope} : std::vector<int64_t>{heads, nope, lora};
  table->dense.push_back({k_name, k_shape, false, false, &k_b_});
  table->dense.push_back({v_name, {heads, value, lora}, false, false, &v_b_});
}

void MlaAttention::DeclareTensors(const LayerPrefix& prefix, TensorTable* table) {
  const int64_t hidden = config_.hidden_size, lora = config_.kv_lora_rank;
  const int64_t q_rows = config_.num_heads * (config_.nope_dim + config_.rope_dim);
  const std::string hf = prefix.hf + config_.hf_name, gguf = prefix.gguf + "attn_";
  if (config_.q_lora_rank > 0) {
    table->Matrix({hf + "q_a_proj.weight", gguf + "q_a.weight"}, config_.q_lora_rank, hidden,
                  &q_a_proj_);
    table->Vector({hf + "q_a_proj.bias", gguf + "q_a.bias"}, config_.q_lora_rank, &q_a_bias_, true);
    table->Vector({hf + "q_a_layernorm.weight", gguf + "q_a_norm.weight"}, config_.q_lora_rank,
                  &q_a_norm_);
    table->Matrix({hf + "q_b_proj.weight", gguf + "q_b.weight"}, q_rows, config_.q_lora_rank,
                  &q_proj_);
  } else {
    table->Matrix({hf + "q_proj.weight", gguf + "q.weight"}, q_rows, hidden, &q_proj_);
  }
  table->Matrix({hf + "kv_a_proj_with_mqa.weight", gguf + "kv_a_mqa.weight"},
                lora + config_.rope_dim, hidden, &kv_a_proj_);
  table->Vector({hf + "kv_a_proj_with_mqa.bias", gguf + "kv_a_mqa.bias"}, lora + config_.rope_dim,
                &kv_a_bias_, true);
  table->Vector({hf + "kv_a_layernorm.weight", gguf + "kv_a_norm.weight"}, lora, &kv_a_norm_);
  DeclareKvB(prefix, table);
  table->Matrix({hf + "o_proj.weight", gguf + "output.weight"}, hidden,
                config_.num_heads * config_.value_dim, &o_proj_);
  table->Vector({hf + "o_proj.bias", gguf + "output.bias"}, hidden, &o_bias_, true);
  table->constants.push_back({InvFreq(config_.rope), &inv_freq_});
}

RopeArgs MlaAttention::Rope() const {
  return {.inv_freq = inv_freq_,
          .scale = static_cast<float>(config_.rope.attention_factor),
          .interleaved = config_.rope.interleaved};
}

TensorView MlaAttention::Queries(ForwardPass* pass, const TensorView& x) const {
  DenseOps& ops = pass->ops();
  const int64_t n = pass->num_tokens(), head_dim = config_.nope_dim + config_.rope_dim;
  TensorView input = x;
  if (config_.q_lora_rank > 0) {
    input = pass->NewTensor({n, config_.q_lora_rank});
    const Projection down = {q_a_proj_, q_a_bias_, input};
    ops.MatMul(x, pass->roles(), {&down, 1});
    ops.RmsNorm(input, q_a_norm_, static_cast<float>(config_.norm_eps), input);
  }
  const TensorView q = pass->NewTensor({n, config_.num_heads * head_dim});
  const Projection up = {q_proj_, {}, q};
  ops.MatMul(input, pass->roles(), {&up, 1});
  if (config_.q_scale != 1.0) ops.Scale(q, static_cast<float>(config_.q_scale));
  const TensorView heads = Reshape(q, {n, config_.num_heads, head_dim});
  ops.Rope(Columns(heads, config_.nope_dim, config_.rope_dim), pass->positions(), Rope());
  return heads;
}

TensorView MlaAttention::Latent(ForwardPass* pass, const TensorView& x) const {
  DenseOps& ops = pass->ops();
  const int64_t lora = config_.kv_lora_rank;
  const TensorView latent = pass->NewTensor({pass->num_tokens(), lora + config_.rope_dim});
  const Projection down = {kv_a_proj_, kv_a_bias_, latent};
  ops.MatMul(x, pass->roles(), {&down, 1});
  const TensorView c = Columns(latent, 0, lora);
  ops.RmsNorm(c, kv_a_norm_, static_cast<float>(config_.norm_eps), c);
  if (config_.kv_scale != 1.0) ops.Scale(c, static_cast<float>(config_.kv_scale));
  ops.Rope(AsOneHead(Columns(latent, lora, config_.rope_dim)), pass->positions(), Rope());
  return latent;
}

void MlaAttention::Attend(ForwardPass* pass, int mixer, const TensorView& q,
                          const TensorView& out) const {
  pass->ops().Attention({.q = q,
                         .roles = pass->roles(),
                         .k_cache = pass->kv_cache().keys(mixer),
                         .v_cache = pass->kv_cache().values(mixer),
                         .block_tables = pass->block_tables(),
                         .seq_idx = pass->seq_idx(),
                         .positions = pass->positions(),
                         .sinks = {},
                         .scale = static_cast<float>(config_.scale),
                         .window = 0,
                         .out = out});
}

TensorView MlaAttention::AbsorbedContext(ForwardPass* pass, int mixer, const TensorView& q,
                                         const TensorView& latent) const {
  DenseOps& ops = pass->ops();
  const int64_t n = pass->num_tokens(), heads = config_.num_heads, lora = config_.kv_lora_rank;
  const TensorView absorbed = pass->NewTensor({n, heads, lora + config_.rope_dim});
  ops.HeadMatMul(Columns(q, 0, config_.nope_dim), pass->roles(), k_b_, Columns(absorbed, 0, lora));
  ops.CopyHeads(Columns(q, config_.nope_dim, config_.rope_dim),
                Columns(absorbed, lora, config_.rope_dim));
  pass->StoreKv(mixer, AsOneHead(latent), {});
  const TensorView mixed = pass->NewTensor({n, heads, lora});
  Attend(pass, mixer, absorbed, mixed);
  const TensorView context = pass->NewTensor({n, heads, config_.value_dim});
  ops.HeadMatMul(mixed, pass->roles(), v_b_, context);
  return Reshape(context, {n, heads * config_.value_dim});
}

TensorView MlaAttention::PlainContext(ForwardPass* pass, int mixer, const TensorView& q,
                                      const TensorView& latent) const {
  DenseOps& ops = pass->ops();
  const int64_t n = pass->num_tokens(), heads = config_.num_heads, lora = config_.kv_lora_rank;
  const TensorView k_nope = pass->NewTensor({n, heads * config_.nope_dim}),
                   v = pass->NewTensor({n, heads * config_.value_dim});
  const Projection expand[] = {{k_b_, {}, k_nope}, {v_b_, {}, v}};
  ops.MatMul(Columns(latent, 0, lora), pass->roles(), expand);
  const TensorView k = pass->NewTensor({n, heads, config_.nope_dim + config_.rope_dim});
  ops.CopyHeads(Reshape(k_nope, {n, heads, config_.nope_dim}), Columns(k, 0, config_.nope_dim));
  ops.CopyHeads(AsOneHead(Columns(latent, lora, config_.rope_dim)),
                Columns(k, config_.nope_dim, config_.rope_dim));
  pass->StoreKv(mixer, k, Reshape(v, {n, heads, config_.value_dim}));
  const TensorView context = pass->NewTensor({n, heads * config_.value_dim});
  Attend(pass, mixer, q, Reshape(context, {n, heads, config_.value_dim}));
  return context;
}

TensorView MlaAttention::Forward(ForwardPass* pass, int mixer, const TensorView& x) const {
  const TensorView q = Queries(pass, x), latent = Latent(pass, x);
  const TensorView context = config_.form == MlaForm::kAbsorbed
                                 ? AbsorbedContext(pass, mixer, q, latent)
                                 : PlainContext(pass, mixer, q, latent);
  const TensorView out = pass->NewTensor({pass->num_tokens(), x.cols()});
  const Projection o = {o_proj_, o_bias_, out};
  pass->ops().MatMul(context, pass->roles(), {&o, 1});
  return out;
}

}  // namespace thermocline
