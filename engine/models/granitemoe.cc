// GraniteMoE, with and without a shared expert: scaled embedding, residual, attention and logits;
// the softmax is over the chosen experts. Source: modeling_granitemoe.py and
// modeling_granitemoeshared.py of transformers.
#include "engine/models/models.h"

namespace thermocline {

std::unique_ptr<Model> MakeGraniteMoe(ConfigReader* reader) {
  DecoderConfig config = ReadDecoderConfig("granitemoe", reader);
  ReadExpertCounts({"num_local_experts", "expert_count"},
                   {"num_experts_per_tok", "expert_used_count"}, reader, &config);
  config.moe_intermediate_size = config.intermediate_size;
  config.shared_intermediate_size = reader->IntOr(
      {"shared_intermediate_size", "expert_shared_feed_forward_length"}, 0, 1 << 24, 0);
  config.rope_interleaved = reader->is_gguf();
  config.softmax_before_top_k = false;
  config.attention_scale = reader->FloatOr({"attention_multiplier", "attention.scale"},
                                           reader->is_gguf() ? config.attention_scale : 1.0);
  config.embedding_multiplier = reader->FloatOr({"embedding_multiplier", "embedding_scale"}, 1.0);
  config.residual_multiplier = reader->FloatOr({"residual_multiplier", "residual_scale"}, 1.0);
  config.logits_scaling = reader->FloatOr({"logits_scaling", "logit_scale"}, 1.0);
  DecoderNames names;
  names.router = "block_sparse_moe.router.layer.weight";
  const int64_t width = config.moe_intermediate_size;
  names.gate = {{"block_sparse_moe.input_linear.weight", ""}, 0, 0, 2 * width, 0};
  names.up = {{"block_sparse_moe.input_linear.weight", ""}, 0, 0, 2 * width, width};
  names.down = {{"block_sparse_moe.output_linear.weight", ""}, 0, 0, config.dims.hidden_size, 0};
  names.shared_input = "shared_mlp.input_linear.weight";
  names.shared_output = "shared_mlp.output_linear.weight";
  return std::make_unique<Decoder>(std::move(config), std::move(names));
}

}  // namespace thermocline
