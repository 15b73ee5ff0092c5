// Qwen3-MoE: per-head normalisation of queries and keys, softmax-routed experts, optionally dense
// layers. Source: Qwen3 technical report 2025; modeling_qwen3_moe.py of transformers.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/models/models.h"

namespace thermocline {

std::unique_ptr<Model> MakeQwen3Moe(ConfigReader* reader) {
  DecoderConfig config = ReadDecoderConfig("qwen3_moe", reader);
  ReadExpertCounts(
      {reader->Has({"num_experts", ""}) ? "num_experts" : "num_local_experts", "expert_count"},
      {"num_experts_per_tok", "expert_used_count"}, reader, &config);
  config.moe_intermediate_size =
      reader->Int({"moe_intermediate_size", "expert_feed_forward_length"}, 1, 1 << 24);
  config.qk_norm = QkNorm::kPerHead;
  config.norm_topk_prob = reader->BoolOr({"norm_topk_prob", ""}, reader->is_gguf());
  const std::vector<int64_t> dense = reader->IntsOr({"mlp_only_layers", ""}, {});
  const int64_t step = reader->IntOr({"decoder_sparse_step", ""}, 1, 1 << 20, 1);
  for (int64_t l = 0; l < config.dims.num_hidden_layers; ++l) {
    const bool has_experts =
        reader->is_gguf()
            ? reader->checkpoint().Find(absl::StrCat("blk.", l, ".ffn_gate_exps.weight")) != nullptr
            : std::find(dense.begin(), dense.end(), l) == dense.end() && (l + 1) % step == 0;
    config.layer_has_experts[static_cast<size_t>(l)] = has_experts;
  }
  return std::make_unique<Decoder>(std::move(config), DecoderNames());
}

}  // namespace thermocline
