// OLMoE: queries and keys normalised over all heads together and optionally clipped; expert weights
// not renormalised. Source: Muennighoff et al. 2024; modeling_olmoe.py of transformers.
#include "engine/model/architectures/architectures.h"

namespace thermocline {

std::unique_ptr<Model> MakeOlmoe(ConfigReader* reader, const ModelOptions& options) {
  DecoderConfig config = ReadDecoderConfig("olmoe", reader, options);
  config.attention.qk_norm = QkNorm::kAllHeads;
  config.attention.clip = reader->FloatOr({"clip_qkv", "attention.clamp_kqv"}, 0.0);
  ReadExperts(reader, &config);
  config.moe.route.normalize = reader->BoolOr({"norm_topk_prob", "expert_weights_norm"}, false);
  TokenMixers mixers = AttentionLayers(config);
  return std::make_unique<Decoder>(std::move(config), std::move(mixers));
}

}  // namespace thermocline
