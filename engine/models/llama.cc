// Llama 2 and 3, and the many dense models of the same shape.
// Source: modeling_llama.py of transformers.
#include "engine/models/models.h"

namespace thermocline {

std::unique_ptr<Model> MakeLlama(ConfigReader* reader) {
  DecoderConfig config = ReadDecoderConfig("llama", reader);
  config.rope_interleaved = reader->is_gguf();  // the converter permutes q and k
  return std::make_unique<Decoder>(std::move(config), DecoderNames());
}

}  // namespace thermocline
