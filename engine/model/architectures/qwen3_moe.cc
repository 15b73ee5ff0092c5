// Qwen3-MoE: per-head normalisation of queries and keys, softmax-routed experts, optionally dense
// layers. Source: Qwen3 technical report 2025; modeling_qwen3_moe.py of transformers.
#include "engine/model/architectures/architectures.h"

namespace thermocline {

std::unique_ptr<Model> MakeQwen3Moe(ConfigReader* reader, const ModelOptions& options) {
  DecoderConfig config = ReadDecoderConfig("qwen3_moe", reader, options);
  config.attention.qk_norm = QkNorm::kPerHead;
  ReadExperts(reader, &config, SparseSteps(reader));
  config.moe.route.normalize =
      reader->BoolOr({"norm_topk_prob", "expert_weights_norm"}, reader->is_gguf());
  TokenMixers mixers = AttentionLayers(config);
  return std::make_unique<Decoder>(std::move(config), std::move(mixers));
}

}  // namespace thermocline
