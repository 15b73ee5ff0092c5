// Phi-3.5-MoE: LayerNorm and biases everywhere, two experts chosen one after the other by
// SparseMixer. Source: Abdin et al. 2024; modeling_phimoe.py of transformers.
#include "engine/model/architectures/architectures.h"

namespace thermocline {

std::unique_ptr<Model> MakePhimoe(ConfigReader* reader, const ModelOptions& options) {
  DecoderConfig config = ReadDecoderConfig("phimoe", reader, options);
  config.layer_norm = true;
  config.attention.window =
      reader->IntOr({"sliding_window", "attention.sliding_window"}, 0, INT32_MAX, 0);
  ReadExperts(reader, &config);
  config.moe.route.score = RouteArgs::Score::kSparseMixer;
  config.moe.route.jitter =
      static_cast<float>(reader->FloatOr({"router_jitter_noise", "router_jitter_noise"}, 0.01));
  config.moe.names = MixtralMoeNames();
  TokenMixers mixers = AttentionLayers(config);
  return std::make_unique<Decoder>(std::move(config), std::move(mixers));
}

}  // namespace thermocline
