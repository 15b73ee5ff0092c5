// Ling (Bailing MoE), first and second generation: fused queries, keys and values; the first with
// softmax routing, the second with per-head norms, partial rotation and DeepSeek-V3's feed-forward
// half. Source: modeling_bailing_moe.py and modeling_bailing_moe_v2.py of inclusionAI/Ling.
#include "engine/model/architectures/architectures.h"

namespace thermocline {
namespace {

DecoderConfig ReadBailing(absl::string_view architecture, ConfigReader* reader,
                          const ModelOptions& options) {
  DecoderConfig config = ReadDecoderConfig(architecture, reader, options);
  config.names.embed_tokens = "model.word_embeddings";
  config.attention.names.qkv_proj = "attention.query_key_value";
  config.attention.names.o_proj = "attention.dense";
  config.attention.names.q_norm = "attention.query_layernorm.weight";
  config.attention.names.k_norm = "attention.key_layernorm.weight";
  ReadExperts(reader, &config, AfterFirstDense(reader));
  return config;
}

}  // namespace

std::unique_ptr<Model> MakeBailingMoe(ConfigReader* reader, const ModelOptions& options) {
  DecoderConfig config = ReadBailing("bailing_moe", reader, options);
  config.attention.rope.interleaved = true;  // in GGUF
  config.attention.hf_half_to_pairs = true;
  config.normalize_head = reader->BoolOr({"norm_head", ""}, false);
  config.moe.route.normalize = reader->BoolOr({"norm_topk_prob", "expert_weights_norm"}, false);
  config.moe.route.scale = static_cast<float>(reader->FloatOr({"", "expert_weights_scale"}, 1.0));
  reader->Record("expert_weights_scale", 1.0);
  ReadSharedExperts(reader, "num_shared_experts", &config);
  TokenMixers mixers = AttentionLayers(config);
  return std::make_unique<Decoder>(std::move(config), std::move(mixers));
}

std::unique_ptr<Model> MakeBailingMoe2(ConfigReader* reader, const ModelOptions& options) {
  DecoderConfig config = ReadBailing("bailing_moe_v2", reader, options);
  config.attention.names.gguf_qkv = true;
  const bool in_gguf = reader->checkpoint().Find("blk.0.attn_q_norm.weight") != nullptr;
  if (reader->BoolOr({"use_qk_norm", ""}, in_gguf)) config.attention.qk_norm = QkNorm::kPerHead;
  ReadSigmoidRouting(reader, /*normalize_by_default=*/true, &config);
  config.moe.names.choice_bias = "mlp.gate.expert_bias";
  ReadSharedExperts(reader, "num_shared_experts", &config);
  // llama.cpp multiplies the width by the count.
  reader->Record("expert_shared_feed_forward_length", config.moe.intermediate_size);
  TokenMixers mixers = AttentionLayers(config);
  return std::make_unique<Decoder>(std::move(config), std::move(mixers));
}

}  // namespace thermocline
