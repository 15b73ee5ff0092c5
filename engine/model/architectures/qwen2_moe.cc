// Qwen2-MoE: biased queries, keys and values, softmax-routed experts beside a shared one that each
// token weighs with a gate of its own, optionally dense layers.
// Source: Qwen2 technical report 2024; modeling_qwen2_moe.py of transformers.
#include "engine/model/architectures/architectures.h"

namespace thermocline {

std::unique_ptr<Model> MakeQwen2Moe(ConfigReader* reader, const ModelOptions& options) {
  DecoderConfig config = ReadDecoderConfig("qwen2_moe", reader, options);
  if (reader->BoolOr({"use_sliding_window", ""}, false)) {
    reader->Fail(
        "Qwen2-MoE with use_sliding_window = true is not supported; no published model has it");
  }
  ReadExperts(reader, &config, SparseSteps(reader));
  config.moe.route.normalize = reader->BoolOr({"norm_topk_prob", "expert_weights_norm"}, false);
  SetGatedSharedExpert(reader, &config);
  TokenMixers mixers = AttentionLayers(config);
  return std::make_unique<Decoder>(std::move(config), std::move(mixers));
}

}  // namespace thermocline
