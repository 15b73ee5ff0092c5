// Mixtral: Llama's attention with softmax-routed experts. GGUF calls it "llama" with experts.
// Source: Jiang et al. 2024; modeling_mixtral.py of transformers.
#include "engine/models/models.h"

namespace thermocline {

std::unique_ptr<Model> MakeMixtral(ConfigReader* reader) {
  DecoderConfig config = ReadDecoderConfig("mixtral", reader);
  ReadExpertCounts({"num_local_experts", "expert_count"},
                   {"num_experts_per_tok", "expert_used_count"}, reader, &config);
  config.moe_intermediate_size = config.intermediate_size;
  config.rope_interleaved = reader->is_gguf();
  config.norm_topk_prob = true;
  if (reader->IntOr({"sliding_window", "attention.sliding_window"}, 0, INT32_MAX, 0) != 0) {
    reader->Fail("Mixtral with a sliding window is not supported yet");
  }
  DecoderNames names;
  names.router = "block_sparse_moe.gate.weight";
  names.gate.name.hf = "block_sparse_moe.experts.{e}.w1.weight";
  names.up.name.hf = "block_sparse_moe.experts.{e}.w3.weight";
  names.down.name.hf = "block_sparse_moe.experts.{e}.w2.weight";
  return std::make_unique<Decoder>(std::move(config), std::move(names));
}

}  // namespace thermocline
