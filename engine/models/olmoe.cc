// OLMoE: queries and keys normalised over all heads together and optionally clipped; expert weights
// not renormalised. Source: Muennighoff et al. 2024; modeling_olmoe.py of transformers.
#include "engine/models/models.h"

namespace thermocline {

std::unique_ptr<Model> MakeOlmoe(ConfigReader* reader) {
  DecoderConfig config = ReadDecoderConfig("olmoe", reader);
  ReadExpertCounts({"num_experts", "expert_count"}, {"num_experts_per_tok", "expert_used_count"},
                   reader, &config);
  config.moe_intermediate_size = config.intermediate_size;
  config.qk_norm = QkNorm::kAllHeads;
  config.clip_qkv = reader->FloatOr({"clip_qkv", "attention.clamp_kqv"}, 0.0);
  config.norm_topk_prob = reader->BoolOr({"norm_topk_prob", "expert_weights_norm"}, false);
  return std::make_unique<Decoder>(std::move(config), DecoderNames());
}

}  // namespace thermocline
