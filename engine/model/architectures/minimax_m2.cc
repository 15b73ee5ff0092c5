// MiniMax-M2: partial rotation, queries and keys normalised over all heads together, sigmoid scores
// with a bias for the choice. Source: modeling_minimax_m2.py of transformers.
#include "engine/model/architectures/architectures.h"

namespace thermocline {

std::unique_ptr<Model> MakeMinimaxM2(ConfigReader* reader, const ModelOptions& options) {
  DecoderConfig config = ReadDecoderConfig("minimax_m2", reader, options);
  config.attention.qk_norm = QkNorm::kAllHeads;
  ReadExperts(reader, &config);
  ReadSigmoidRouting(reader, /*normalize_by_default=*/true, &config);
  config.moe.route.normalize_eps = 0.0f;
  config.moe.names = MixtralMoeNames();
  config.moe.names.choice_bias = "block_sparse_moe.e_score_correction_bias";
  TokenMixers mixers = AttentionLayers(config);
  return std::make_unique<Decoder>(std::move(config), std::move(mixers));
}

}  // namespace thermocline
