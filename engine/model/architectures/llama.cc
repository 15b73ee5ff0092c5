// Llama 2 and 3, and the many dense models of the same shape.
// Source: modeling_llama.py of transformers.
#include "engine/model/architectures/architectures.h"

namespace thermocline {

std::unique_ptr<Model> MakeLlama(ConfigReader* reader, const ModelOptions& options) {
  DecoderConfig config = ReadDecoderConfig("llama", reader, options);
  config.attention.rope.interleaved = true;  // in GGUF
  config.attention.hf_half_to_pairs = true;
  TokenMixers mixers = AttentionLayers(config);
  return std::make_unique<Decoder>(std::move(config), std::move(mixers));
}

}  // namespace thermocline
