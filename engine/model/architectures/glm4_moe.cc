// GLM-4.5 and 4.6: attention with partial rotation and optional per-head norms, then DeepSeek-V3's
// feed-forward half. Source: modeling_glm4_moe.py of transformers.
#include "engine/model/architectures/architectures.h"

namespace thermocline {

std::unique_ptr<Model> MakeGlm4Moe(ConfigReader* reader, const ModelOptions& options) {
  DecoderConfig config = ReadDecoderConfig("glm4_moe", reader, options);
  const bool in_gguf = reader->checkpoint().Find("blk.0.attn_q_norm.weight") != nullptr;
  if (reader->BoolOr({"use_qk_norm", ""}, in_gguf)) config.attention.qk_norm = QkNorm::kPerHead;
  config.names.post_norm.gguf = "post_attention_norm";
  ReadExperts(reader, &config, AfterFirstDense(reader));
  ReadSigmoidRouting(reader, /*normalize_by_default=*/true, &config);
  ReadSharedExperts(reader, "n_shared_experts", &config);
  TokenMixers mixers = AttentionLayers(config);
  return std::make_unique<Decoder>(std::move(config), std::move(mixers));
}

}  // namespace thermocline
