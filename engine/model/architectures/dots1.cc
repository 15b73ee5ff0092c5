// dots.llm1: attention with per-head norms, then DeepSeek-V3's feed-forward half.
// Source: rednote-hilab 2025; modeling_dots1.py of transformers.
#include "engine/model/architectures/architectures.h"

namespace thermocline {

std::unique_ptr<Model> MakeDots1(ConfigReader* reader, const ModelOptions& options) {
  DecoderConfig config = ReadDecoderConfig("dots1", reader, options);
  config.attention.qk_norm = QkNorm::kPerHead;
  ReadExperts(reader, &config, AfterFirstDense(reader));
  ReadSigmoidRouting(reader, /*normalize_by_default=*/false, &config);
  ReadSharedExperts(reader, "n_shared_experts", &config);
  TokenMixers mixers =
      AttentionLayers(config, ReadWindows(reader, config.dims.num_hidden_layers, {}));
  return std::make_unique<Decoder>(std::move(config), std::move(mixers));
}

}  // namespace thermocline
