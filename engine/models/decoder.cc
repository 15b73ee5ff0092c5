#include "engine/models/decoder.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "engine/forward_pass.h"
#include "kernels/check.h"

namespace thermocline {
namespace {

constexpr int64_t kMaxLayers = 4096;
constexpr int64_t kMaxWidth = 1 << 24;  // hidden sizes, vocabularies
constexpr int64_t kMaxHeads = 1 << 14;
constexpr int64_t kMaxHeadDim = 1 << 12;
constexpr int64_t kMaxExperts = 1 << 14;
constexpr int64_t kMaxPositions = int64_t{1} << 30;

// rope_parameters (newer) or rope_theta with rope_scaling (older) of config.json; rope.* of GGUF.
void ReadRope(ConfigReader* reader, DecoderConfig* config) {
  const bool newer = reader->Has({"rope_parameters.rope_theta", ""});
  const std::string where = newer ? "rope_parameters." : "rope_scaling.";
  config->rope_theta = reader->FloatOr(
      {newer ? "rope_parameters.rope_theta" : "rope_theta", "rope.freq_base"}, 10000.0);
  const std::string type_key = where + "rope_type", old_type_key = where + "type";
  const std::string type = reader->StringOr({type_key, "rope.scaling.type"},
                                            reader->StringOr({old_type_key, ""}, "default"));
  RopeScaling& scaling = config->rope_scaling;
  const auto read = [&](absl::string_view name, absl::string_view gguf, double fallback) {
    const std::string key = where + std::string(name);
    return reader->FloatOr({key, gguf}, fallback);
  };
  if (type == "default" || type == "none") return;
  if (type == "linear") {
    scaling.kind = RopeScaling::Kind::kLinear;
    scaling.factor = read("factor", "rope.scaling.factor", 1.0);
  } else if (type == "llama3") {
    scaling.kind = RopeScaling::Kind::kLlama3;
    scaling.factor = read("factor", "", 8.0);
    scaling.low_freq_factor = read("low_freq_factor", "", 1.0);
    scaling.high_freq_factor = read("high_freq_factor", "", 4.0);
    scaling.original_max_position_embeddings = read("original_max_position_embeddings", "", 8192.0);
  } else {
    reader->Fail(absl::StrCat("rope scaling of type \"", type,
                              "\" is not supported; supported are default, linear, llama3"));
  }
}

}  // namespace

DecoderConfig ReadDecoderConfig(absl::string_view architecture, ConfigReader* reader) {
  DecoderConfig config;
  ModelDims& dims = config.dims;
  dims.architecture = std::string(architecture);
  dims.hidden_size = reader->Int({"hidden_size", "embedding_length"}, 1, kMaxWidth);
  dims.num_hidden_layers = reader->Int({"num_hidden_layers", "block_count"}, 1, kMaxLayers);
  dims.max_position_embeddings =
      reader->Int({"max_position_embeddings", "context_length"}, 1, kMaxPositions);
  if (reader->is_gguf()) {
    const TensorInfo* embedding = reader->checkpoint().Find("token_embd.weight");
    if (embedding == nullptr || embedding->shape.size() != 2 || embedding->shape[0] > kMaxWidth) {
      reader->Fail("the model lacks the matrix token_embd.weight, or it is too large");
    } else {
      dims.vocab_size = embedding->shape[0];
    }
  } else {
    dims.vocab_size = reader->Int({"vocab_size", ""}, 1, kMaxWidth);
  }
  config.num_attention_heads =
      reader->Int({"num_attention_heads", "attention.head_count"}, 1, kMaxHeads);
  dims.num_key_value_heads = reader->IntOr({"num_key_value_heads", "attention.head_count_kv"}, 1,
                                           kMaxHeads, config.num_attention_heads);
  if (config.num_attention_heads % dims.num_key_value_heads != 0) {
    reader->Fail(
        absl::StrCat("num_attention_heads = ", config.num_attention_heads,
                     " is not a multiple of num_key_value_heads = ", dims.num_key_value_heads));
  }
  dims.head_dim =
      reader->IntOr({"head_dim", "attention.key_length"}, 1, kMaxHeadDim,
                    std::max<int64_t>(1, dims.hidden_size / config.num_attention_heads));
  config.rotary_dim = reader->IntOr({"", "rope.dimension_count"}, 2, kMaxHeadDim, dims.head_dim);
  if (config.rotary_dim % 2 != 0 || config.rotary_dim > dims.head_dim) {
    reader->Fail(absl::StrCat("rotary dimension ", config.rotary_dim,
                              " does not fit head_dim = ", dims.head_dim));
  }
  config.intermediate_size =
      reader->IntOr({"intermediate_size", "feed_forward_length"}, 1, kMaxWidth, 1);
  config.rms_norm_eps = reader->Float({"rms_norm_eps", "attention.layer_norm_rms_epsilon"});
  config.attention_scale = 1.0 / std::sqrt(static_cast<double>(dims.head_dim));
  // A head that GGUF and some folders leave out is the embedding's transpose.
  const bool has_head =
      reader->checkpoint().Find(reader->is_gguf() ? "output.weight" : "lm_head.weight") != nullptr;
  config.tie_word_embeddings = reader->BoolOr({"tie_word_embeddings", ""}, !has_head) || !has_head;
  config.layer_has_experts.assign(static_cast<size_t>(dims.num_hidden_layers), false);
  ReadRope(reader, &config);
  return config;
}

void ReadExpertCounts(ConfigKey num_experts, ConfigKey num_experts_per_tok, ConfigReader* reader,
                      DecoderConfig* config) {
  ModelDims& dims = config->dims;
  dims.num_experts = reader->Int(num_experts, 1, kMaxExperts);
  dims.num_experts_per_tok = reader->Int(num_experts_per_tok, 1, kMaxExperts);
  if (dims.num_experts_per_tok > dims.num_experts) {
    reader->Fail(absl::StrCat("num_experts_per_tok = ", dims.num_experts_per_tok,
                              ", but the model has num_experts = ", dims.num_experts));
  }
  config->layer_has_experts.assign(static_cast<size_t>(dims.num_hidden_layers), true);
}

Decoder::Decoder(DecoderConfig config, DecoderNames names)
    : config_(std::move(config)),
      names_(std::move(names)),
      layers_(static_cast<size_t>(config_.dims.num_hidden_layers)) {}

void Decoder::DeclareTensors(TensorTable* table) {
  const ModelDims& dims = config_.dims;
  table->num_experts = static_cast<int>(dims.num_experts);
  table->Matrix({"model.embed_tokens.weight", "token_embd.weight"}, dims.vocab_size,
                dims.hidden_size, &embed_tokens_);
  table->Vector({"model.norm.weight", "output_norm.weight"}, dims.hidden_size, &norm_);
  if (!config_.tie_word_embeddings) {
    table->Matrix({"lm_head.weight", "output.weight"}, dims.vocab_size, dims.hidden_size,
                  &lm_head_);
  }
  for (int l = 0; l < dims.num_hidden_layers; ++l) {
    Layer* layer = &layers_[static_cast<size_t>(l)];
    const std::string hf = absl::StrCat("model.layers.", l, "."),
                      gguf = absl::StrCat("blk.", l, ".");
    table->Vector({hf + "input_layernorm.weight", gguf + "attn_norm.weight"}, dims.hidden_size,
                  &layer->input_layernorm);
    table->Vector({hf + "post_attention_layernorm.weight", gguf + "ffn_norm.weight"},
                  dims.hidden_size, &layer->post_attention_layernorm);
    DeclareAttention(hf, gguf, layer, table);
    DeclareFeedForward(l, hf, gguf, layer, table);
  }
}

void Decoder::DeclareAttention(const std::string& hf, const std::string& gguf, Layer* layer,
                               TensorTable* table) {
  const ModelDims& dims = config_.dims;
  const int64_t q = config_.num_attention_heads * dims.head_dim;
  const int64_t kv = dims.num_key_value_heads * dims.head_dim;
  AttentionWeights* a = &layer->attention;
  table->Matrix({hf + "self_attn.q_proj.weight", gguf + "attn_q.weight"}, q, dims.hidden_size,
                &a->q_proj);
  table->Matrix({hf + "self_attn.k_proj.weight", gguf + "attn_k.weight"}, kv, dims.hidden_size,
                &a->k_proj);
  table->Matrix({hf + "self_attn.v_proj.weight", gguf + "attn_v.weight"}, kv, dims.hidden_size,
                &a->v_proj);
  table->Matrix({hf + "self_attn.o_proj.weight", gguf + "attn_output.weight"}, dims.hidden_size, q,
                &a->o_proj);
  table->Vector({hf + "self_attn.q_proj.bias", gguf + "attn_q.bias"}, q, &a->q_bias,
                /*optional=*/true);
  table->Vector({hf + "self_attn.k_proj.bias", gguf + "attn_k.bias"}, kv, &a->k_bias,
                /*optional=*/true);
  table->Vector({hf + "self_attn.v_proj.bias", gguf + "attn_v.bias"}, kv, &a->v_bias,
                /*optional=*/true);
  table->Vector({hf + "self_attn.o_proj.bias", gguf + "attn_output.bias"}, dims.hidden_size,
                &a->o_bias,
                /*optional=*/true);
  if (config_.qk_norm == QkNorm::kNone) return;
  const bool per_head = config_.qk_norm == QkNorm::kPerHead;
  table->Vector({hf + "self_attn.q_norm.weight", gguf + "attn_q_norm.weight"},
                per_head ? dims.head_dim : q, &a->q_norm);
  table->Vector({hf + "self_attn.k_norm.weight", gguf + "attn_k_norm.weight"},
                per_head ? dims.head_dim : kv, &a->k_norm);
}

void Decoder::DeclareFeedForward(int l, const std::string& hf, const std::string& gguf,
                                 Layer* layer, TensorTable* table) {
  const int64_t hidden = config_.dims.hidden_size;
  if (!config_.layer_has_experts[static_cast<size_t>(l)]) {
    const int64_t width = config_.intermediate_size;
    table->Matrix({hf + "mlp.gate_proj.weight", gguf + "ffn_gate.weight"}, width, hidden,
                  &layer->mlp.gate);
    table->Matrix({hf + "mlp.up_proj.weight", gguf + "ffn_up.weight"}, width, hidden,
                  &layer->mlp.up);
    table->Matrix({hf + "mlp.down_proj.weight", gguf + "ffn_down.weight"}, hidden, width,
                  &layer->mlp.down);
    return;
  }
  table->Matrix({hf + names_.router, gguf + "ffn_gate_inp.weight"}, config_.dims.num_experts,
                hidden, &layer->router);
  const auto matrix = [&](const ExpertMatrix& named, const char* gguf_name, int64_t rows,
                          int64_t cols) {
    ExpertMatrix m = named;
    m.name = {hf + named.name.hf, gguf + gguf_name};
    m.rows = rows;
    m.cols = cols;
    return m;
  };
  const int64_t width = config_.moe_intermediate_size;
  table->experts.push_back({l, matrix(names_.gate, "ffn_gate_exps.weight", width, hidden),
                            matrix(names_.up, "ffn_up_exps.weight", width, hidden),
                            matrix(names_.down, "ffn_down_exps.weight", hidden, width)});
  const int64_t shared = config_.shared_intermediate_size;
  if (shared == 0) return;
  // In Hugging Face folders one matrix [2 * shared, hidden] holds gate, then up.
  MlpWeights* mlp = &layer->shared_mlp;
  table->Matrix({hf + names_.shared_input, ""}, 2 * shared, hidden, &mlp->gate_up);
  table->Matrix({"", gguf + "ffn_gate_shexp.weight"}, shared, hidden, &mlp->gate);
  table->Matrix({"", gguf + "ffn_up_shexp.weight"}, shared, hidden, &mlp->up);
  table->Matrix({hf + names_.shared_output, gguf + "ffn_down_shexp.weight"}, hidden, shared,
                &mlp->down);
}

std::vector<float> Decoder::RopeInvFreq(const std::vector<float>& file_factors) const {
  const RopeScaling& scaling = config_.rope_scaling;
  std::vector<float> inv_freq;
  for (int64_t i = 0; i < config_.rotary_dim / 2; ++i) {
    double freq = std::pow(config_.rope_theta,
                           -2.0 * static_cast<double>(i) / static_cast<double>(config_.rotary_dim));
    if (!file_factors.empty()) freq /= file_factors[static_cast<size_t>(i)];
    if (scaling.kind == RopeScaling::Kind::kLinear) freq /= scaling.factor;
    if (scaling.kind == RopeScaling::Kind::kLlama3) {
      // Grattafiori et al. 2024; modeling_rope_utils.py of transformers,
      // _compute_llama3_parameters: long waves are slowed by `factor`, short ones kept, those
      // between interpolated.
      const double wavelength = 2.0 * M_PI / freq,
                   original = scaling.original_max_position_embeddings;
      if (wavelength > original / scaling.low_freq_factor) {
        freq /= scaling.factor;
      } else if (wavelength >= original / scaling.high_freq_factor) {
        const double smooth = (original / wavelength - scaling.low_freq_factor) /
                              (scaling.high_freq_factor - scaling.low_freq_factor);
        freq = (1.0 - smooth) * freq / scaling.factor + smooth * freq;
      }
    }
    inv_freq.push_back(static_cast<float>(freq));
  }
  return inv_freq;
}

absl::StatusOr<TensorView> Decoder::Forward(ForwardPass* pass) const {
  const ModelDims& dims = config_.dims;
  const float eps = static_cast<float>(config_.rms_norm_eps);
  const float residual = static_cast<float>(config_.residual_multiplier);
  const AttentionConfig attention = {
      .num_heads = config_.num_attention_heads,
      .num_kv_heads = dims.num_key_value_heads,
      .head_dim = dims.head_dim,
      .scale = static_cast<float>(config_.attention_scale),
      .norm_eps = eps,
      .qk_norm = config_.qk_norm,
      .clip = static_cast<float>(config_.clip_qkv),
      .rope = {.inv_freq = inv_freq_, .scale = 1.0f, .interleaved = config_.rope_interleaved}};

  Backend& backend = pass->backend();
  const int64_t num_tokens = pass->num_tokens();
  const TensorView h = pass->NewTensor({num_tokens, dims.hidden_size});
  const TensorView x = pass->NewTensor({num_tokens, dims.hidden_size});
  backend.EmbedTokens(embed_tokens_, pass->token_ids(),
                      static_cast<float>(config_.embedding_multiplier), h);
  if (absl::Status s = pass->Observe(0, h); !s.ok()) return s;
  for (int l = 0; l < dims.num_hidden_layers; ++l) {
    const Layer& layer = layers_[static_cast<size_t>(l)];
    const ScratchScope scope(pass);
    backend.RmsNorm(h, layer.input_layernorm, eps, x);
    backend.AddScaled(Attention(pass, l, attention, layer.attention, x), residual, h);
    backend.RmsNorm(h, layer.post_attention_layernorm, eps, x);
    if (absl::Status s = FeedForward(pass, l, x, h); !s.ok()) return s;
    if (absl::Status s = pass->Observe(l + 1, h); !s.ok()) return s;
  }
  const TensorView last = pass->NewTensor({pass->num_logits(), dims.hidden_size});
  const TensorView logits = pass->NewTensor({pass->num_logits(), dims.vocab_size});
  backend.GatherRows(h, pass->logits_rows(), last);
  backend.RmsNorm(last, norm_, eps, last);
  const Projection head = {config_.tie_word_embeddings ? embed_tokens_ : lm_head_, {}, logits};
  backend.MatMul(last, pass->logits_roles(), {&head, 1});
  if (config_.logits_scaling != 1.0)
    backend.Scale(logits, static_cast<float>(1.0 / config_.logits_scaling));
  return logits;
}

absl::Status Decoder::FeedForward(ForwardPass* pass, int l, const TensorView& x,
                                  const TensorView& residual) const {
  const Layer& layer = layers_[static_cast<size_t>(l)];
  const float scale = static_cast<float>(config_.residual_multiplier);
  Backend& backend = pass->backend();
  if (!config_.layer_has_experts[static_cast<size_t>(l)]) {
    backend.AddScaled(Mlp(pass, layer.mlp, x), scale, residual);
    return absl::OkStatus();
  }
  const MoeConfig moe = {.num_experts = config_.dims.num_experts,
                         .route = {.top_k = static_cast<int>(config_.dims.num_experts_per_tok),
                                   .softmax_before_top_k = config_.softmax_before_top_k,
                                   .normalize = config_.norm_topk_prob}};
  if (absl::Status s = AddExperts(pass, l, moe, layer.router, x, scale, residual); !s.ok())
    return s;
  if (config_.shared_intermediate_size > 0) {
    backend.AddScaled(Mlp(pass, layer.shared_mlp, x), scale, residual);
  }
  return absl::OkStatus();
}

}  // namespace thermocline
