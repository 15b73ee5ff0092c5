// Qwen3, dense: Llama with queries and keys normalised per head.
// Source: Qwen3 technical report 2025; modeling_qwen3.py of transformers.
#include "engine/model/architectures/architectures.h"

namespace thermocline {

std::unique_ptr<Model> MakeQwen3(ConfigReader* reader, const ModelOptions& options) {
  DecoderConfig config = ReadDecoderConfig("qwen3", reader, options);
  config.attention.qk_norm = QkNorm::kPerHead;
  TokenMixers mixers = AttentionLayers(config);
  return std::make_unique<Decoder>(std::move(config), std::move(mixers));
}

}  // namespace thermocline
