// Mixtral: Llama's attention, in the first version within a sliding window, with softmax-routed
// experts. GGUF calls it "llama" with experts.
// Source: Jiang et al. 2024; modeling_mixtral.py of transformers.
#include "engine/model/architectures/architectures.h"

namespace thermocline {

std::unique_ptr<Model> MakeMixtral(ConfigReader* reader, const ModelOptions& options) {
  DecoderConfig config = ReadDecoderConfig("mixtral", reader, options);
  config.attention.rope.interleaved = true;  // in GGUF
  config.attention.hf_half_to_pairs = true;
  config.attention.window =
      reader->IntOr({"sliding_window", "attention.sliding_window"}, 0, INT32_MAX, 0);
  ReadExperts(reader, &config);
  config.moe.route.normalize = true;
  config.moe.names = MixtralMoeNames();
  TokenMixers mixers = AttentionLayers(config);
  return std::make_unique<Decoder>(std::move(config), std::move(mixers));
}

}  // namespace thermocline
