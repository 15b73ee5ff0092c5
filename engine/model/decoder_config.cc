// The parts of DecoderConfig that several architectures read alike.
#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "engine/model/decoder.h"

namespace thermocline {
namespace {

constexpr int64_t kMaxLayers = 4096;
constexpr int64_t kMaxWidth = 1 << 24;  // hidden sizes, vocabularies
constexpr int64_t kMaxHeads = 1 << 14;
constexpr int64_t kMaxHeadDim = 1 << 12;
constexpr int64_t kMaxExperts = 1 << 14;
constexpr int64_t kMaxPositions = int64_t{1} << 30;

void ReadVocab(ConfigReader* reader, ModelDims* dims) {
  if (!reader->is_gguf()) {
    dims->vocab_size = reader->Int({"vocab_size", "vocab_size"}, 1, kMaxWidth);
    return;
  }
  const TensorInfo* embedding = reader->checkpoint().Find("token_embd.weight");
  if (embedding == nullptr || embedding->shape.size() != 2 || embedding->shape[0] > kMaxWidth) {
    reader->Fail("the model lacks the matrix token_embd.weight, or it is too large");
  } else {
    dims->vocab_size = embedding->shape[0];
  }
}

void ReadAttention(ConfigReader* reader, const ModelOptions& options, DecoderConfig* config) {
  const ModelDims& dims = config->dims;
  AttentionConfig& attention = config->attention;
  attention.hidden_size = dims.hidden_size;
  attention.norm_eps = config->norm_eps;
  attention.num_heads = reader->Int({"num_attention_heads", "attention.head_count"}, 1, kMaxHeads);
  attention.num_kv_heads = reader->IntOr({"num_key_value_heads", "attention.head_count_kv"}, 1,
                                         kMaxHeads, attention.num_heads);
  if (attention.num_heads % attention.num_kv_heads != 0) {
    reader->Fail(
        absl::StrCat("num_attention_heads = ", attention.num_heads,
                     " is not a multiple of num_key_value_heads = ", attention.num_kv_heads));
  }
  attention.head_dim =
      reader->IntOr({"head_dim|attention_head_dim", "attention.key_length"}, 1, kMaxHeadDim,
                    std::max<int64_t>(1, dims.hidden_size / attention.num_heads));
  reader->Record("attention.key_length", attention.head_dim);
  reader->Record("attention.value_length", attention.head_dim);
  attention.scale = 1.0 / std::sqrt(static_cast<double>(attention.head_dim));
  const double partial =
      reader->FloatOr({"rope_parameters.partial_rotary_factor|partial_rotary_factor", ""}, 1.0);
  const int64_t rotary_dim =
      reader->IntOr({"rotary_dim", ""}, 2, kMaxHeadDim,
                    static_cast<int64_t>(static_cast<double>(attention.head_dim) * partial));
  attention.rope = ReadRope(reader, attention.head_dim, rotary_dim, dims.max_position_embeddings,
                            options.max_context);
}

}  // namespace

DecoderConfig ReadDecoderConfig(absl::string_view architecture, ConfigReader* reader,
                                const ModelOptions& options) {
  DecoderConfig config = ReadDecoderSizes(architecture, reader);
  ReadAttention(reader, options, &config);
  return config;
}

DecoderConfig ReadDecoderSizes(absl::string_view architecture, ConfigReader* reader) {
  DecoderConfig config;
  ModelDims& dims = config.dims;
  dims.architecture = std::string(architecture);
  dims.hidden_size = reader->Int({"hidden_size", "embedding_length"}, 2, kMaxWidth);
  const int64_t num_blocks =
      reader->Int({"num_hidden_layers|num_layers", "block_count"}, 1, kMaxLayers);
  // Layers behind the last that predict further tokens are not used.
  dims.num_hidden_layers =
      num_blocks - reader->IntOr({"", "nextn_predict_layers"}, 0, num_blocks - 1, 0);
  dims.max_position_embeddings =
      reader->Int({"max_position_embeddings|model_max_length", "context_length"}, 1, kMaxPositions);
  ReadVocab(reader, &dims);
  config.intermediate_size =
      reader->IntOr({"intermediate_size|ffn_hidden_size", "feed_forward_length"}, 1, kMaxWidth, 1);
  config.norm_eps =
      reader->Float({"rms_norm_eps|norm_eps|layer_norm_eps", "attention.layer_norm_rms_epsilon"});
  // A head that GGUF and some folders leave out is the embedding's transpose.
  const bool has_head =
      reader->checkpoint().Find(reader->is_gguf() ? "output.weight" : "lm_head.weight") != nullptr;
  config.tie_word_embeddings =
      reader->BoolOr({"tie_word_embeddings|tie_embedding", ""}, !has_head) || !has_head;
  config.layer_has_experts.assign(static_cast<size_t>(dims.num_hidden_layers), false);
  return config;
}

void ReadExperts(ConfigReader* reader, DecoderConfig* config,
                 const std::function<bool(int64_t layer)>& has_experts) {
  ModelDims& dims = config->dims;
  dims.num_experts = reader->Int(
      {"num_local_experts|num_experts|n_routed_experts|moe_num_experts", "expert_count"}, 1,
      kMaxExperts);
  dims.num_experts_per_tok =
      reader->Int({"num_experts_per_tok|num_experts_per_token|moe_topk|moe_k", "expert_used_count"},
                  1, kMaxExperts);
  if (dims.num_experts_per_tok > dims.num_experts) {
    reader->Fail(absl::StrCat("num_experts_per_tok = ", dims.num_experts_per_tok,
                              ", but the model has num_experts = ", dims.num_experts));
  }
  config->moe.num_experts = dims.num_experts;
  config->moe.route.top_k = static_cast<int>(dims.num_experts_per_tok);
  int64_t width = config->intermediate_size;
  const Checkpoint& checkpoint = reader->checkpoint();
  for (int64_t l = 0; l < dims.num_hidden_layers; ++l) {
    // Some files do not say it.
    const TensorInfo* up = checkpoint.Find(absl::StrCat("blk.", l, ".ffn_up_exps.weight"));
    if (up != nullptr && up->shape.size() == 3) width = up->shape[1];
    if (checkpoint.Find(absl::StrCat("blk.", l, ".ffn_gate_up_exps.weight")) != nullptr)
      config->moe.gguf_layout = MoeConfig::GgufLayout::kGateUpFused;
    if (checkpoint.Find(absl::StrCat("blk.", l, ".ffn_gate.0.weight")) != nullptr)
      config->moe.gguf_layout = MoeConfig::GgufLayout::kApart;
  }
  config->moe.intermediate_size =
      reader->IntOr({"moe_intermediate_size|expert_ffn_hidden_size", "expert_feed_forward_length"},
                    1, kMaxWidth, width);
  if (config->moe.intermediate_size < 2) {
    // A matrix of one column would be taken for a bias.
    reader->Fail(
        absl::StrCat(reader->is_gguf() ? "expert_feed_forward_length" : "moe_intermediate_size",
                     " = ", config->moe.intermediate_size, ", but 2 or more is expected"));
    config->moe.intermediate_size = 2;
  }
  reader->Record("expert_feed_forward_length", config->moe.intermediate_size);
  for (int64_t l = 0; l < dims.num_hidden_layers; ++l) {
    const std::string router = absl::StrCat("blk.", l, ".ffn_gate_inp.weight");
    config->layer_has_experts[static_cast<size_t>(l)] =
        reader->is_gguf() ? reader->checkpoint().Find(router) != nullptr
                          : has_experts == nullptr || has_experts(l);
  }
}

void SetSharedExpert(ConfigReader* reader, DecoderConfig* config, int64_t hf, int64_t num_shared) {
  int64_t width = hf;
  for (int64_t l = 0; reader->is_gguf() && l < config->dims.num_hidden_layers; ++l) {
    // The metadata say it in several ways; the tensor cannot be wrong.
    const TensorInfo* up =
        reader->checkpoint().Find(absl::StrCat("blk.", l, ".ffn_up_shexp.weight"));
    if (up != nullptr) width = up->shape[0];
  }
  if (width < 0 || width > kMaxWidth) {
    reader->Fail(absl::StrCat("the shared expert's width = ", width, ", but 0 to ", kMaxWidth,
                              " is allowed"));
    width = 0;
  }
  config->moe.shared_intermediate_size = width;
  if (width == 0) return;
  reader->Record("expert_shared_count", num_shared);
  reader->Record("expert_shared_feed_forward_length", width);
}

void ReadSharedExperts(ConfigReader* reader, absl::string_view hf_key, DecoderConfig* config) {
  const int64_t num_shared = reader->IntOr({hf_key, "expert_shared_count"}, 0, 1024, 0);
  SetSharedExpert(reader, config, config->moe.intermediate_size * num_shared, num_shared);
}

void ReadSigmoidRouting(ConfigReader* reader, bool normalize_by_default, DecoderConfig* config) {
  RouteArgs& route = config->moe.route;
  route.score = RouteArgs::Score::kSigmoid;
  route.normalize = reader->BoolOr({"norm_topk_prob", "expert_weights_norm"}, normalize_by_default);
  reader->Record("expert_weights_norm", route.normalize);
  route.normalize_eps = 1e-20f;
  route.scale =
      static_cast<float>(reader->FloatOr({"routed_scaling_factor", "expert_weights_scale"}, 1.0));
  ReadRouteGroups(reader, config);
  route.group_by_best_two = true;
  config->moe.names.choice_bias = "mlp.gate.e_score_correction_bias";
  reader->Record("expert_gating_func", kGatingSigmoid);
}

void ReadRouteGroups(ConfigReader* reader, DecoderConfig* config) {
  RouteArgs& route = config->moe.route;
  const int64_t num_experts = config->moe.num_experts;
  route.num_groups =
      static_cast<int>(reader->IntOr({"n_group", "expert_group_count"}, 0, num_experts, 1));
  if (route.num_groups <= 1) {
    route.num_groups = route.top_k_groups = 1;
    return;
  }
  route.top_k_groups = static_cast<int>(
      reader->IntOr({"topk_group", "expert_group_used_count"}, 1, route.num_groups, 1));
  if (num_experts % route.num_groups != 0 ||
      route.top_k > num_experts / route.num_groups * route.top_k_groups) {
    reader->Fail(absl::StrCat("n_group = ", route.num_groups,
                              " and topk_group = ", route.top_k_groups, " do not fit ", num_experts,
                              " experts of which ", route.top_k, " are chosen"));
    route.num_groups = route.top_k_groups = 1;
  }
}

std::function<bool(int64_t)> AfterFirstDense(ConfigReader* reader) {
  const int64_t first = reader->IntOr(
      {"first_k_dense_replace|num_dense_layers|moe_layer_start_index", "leading_dense_block_count"},
      0, kMaxLayers, 0);
  return [first](int64_t layer) { return layer >= first; };
}

std::function<bool(int64_t)> SparseSteps(ConfigReader* reader) {
  const std::vector<int64_t> dense = reader->IntsOr({"mlp_only_layers", ""}, {});
  const int64_t step = reader->IntOr({"decoder_sparse_step", ""}, 1, 1 << 20, 1);
  return [dense, step](int64_t layer) {
    return std::find(dense.begin(), dense.end(), layer) == dense.end() && (layer + 1) % step == 0;
  };
}

void SetGatedSharedExpert(ConfigReader* reader, DecoderConfig* config) {
  SetSharedExpert(reader, config,
                  reader->IntOr({"shared_expert_intermediate_size", ""}, 0, kMaxWidth, 0), 1);
  MoeNames& names = config->moe.names;
  names.shared.gate.hf = "mlp.shared_expert.gate_proj";
  names.shared.up.hf = "mlp.shared_expert.up_proj";
  names.shared.down.hf = "mlp.shared_expert.down_proj";
  names.shared_gate = "mlp.shared_expert_gate";
}

std::vector<int64_t> ReadWindows(ConfigReader* reader, int64_t num_layers,
                                 std::vector<int64_t> sliding) {
  const int64_t window =
      reader->IntOr({"sliding_window", "attention.sliding_window"}, 0, INT32_MAX, 0);
  const std::vector<std::string> types = reader->StringsOr({"layer_types", ""}, {});
  std::vector<int64_t> usual = sliding;
  usual.resize(static_cast<size_t>(num_layers), 0);
  sliding = reader->IntsOr({"", "attention.sliding_window_pattern"}, std::move(sliding));
  std::vector<int64_t> windows, pattern;
  for (size_t l = 0; l < static_cast<size_t>(num_layers); ++l) {
    const bool slides =
        l < types.size() ? types[l] == "sliding_attention" : l < sliding.size() && sliding[l] != 0;
    windows.push_back(slides ? window : 0);
    pattern.push_back(slides);
  }
  if (pattern != usual) reader->Record("attention.sliding_window_pattern", pattern);
  return windows;
}

TokenMixers AttentionLayers(const DecoderConfig& config, const std::vector<int64_t>& windows) {
  TokenMixers mixers;
  for (int64_t l = 0; l < config.dims.num_hidden_layers; ++l) {
    AttentionConfig attention = config.attention;
    if (!windows.empty()) attention.window = windows[static_cast<size_t>(l)];
    mixers.push_back(std::make_unique<GqaAttention>(std::move(attention)));
  }
  return mixers;
}

}  // namespace thermocline
