// GraniteMoE, with and without a shared expert: scaled embedding, residual, attention and logits;
// the softmax is over the chosen experts. Source: modeling_granitemoe.py and
// modeling_granitemoeshared.py of transformers.
#include "engine/model/architectures/architectures.h"

namespace thermocline {

std::unique_ptr<Model> MakeGraniteMoe(ConfigReader* reader, const ModelOptions& options) {
  DecoderConfig config = ReadDecoderConfig("granitemoe", reader, options);
  config.attention.rope.interleaved = true;  // in GGUF
  config.attention.hf_half_to_pairs = true;
  config.attention.scale = reader->FloatOr({"attention_multiplier", "attention.scale"},
                                           reader->is_gguf() ? config.attention.scale : 1.0);
  config.embedding_multiplier = reader->FloatOr({"embedding_multiplier", "embedding_scale"}, 1.0);
  config.residual_multiplier = reader->FloatOr({"residual_multiplier", "residual_scale"}, 1.0);
  config.logits_scaling = reader->FloatOr({"logits_scaling", "logit_scale"}, 1.0);
  ReadExperts(reader, &config);
  config.moe.route.score = RouteArgs::Score::kSoftmaxOfChosen;
  SetSharedExpert(reader, &config, reader->IntOr({"shared_intermediate_size", ""}, 0, 1 << 24, 0),
                  1);
  MoeNames& names = config.moe.names;
  const int64_t width = config.moe.intermediate_size;
  names.router = "block_sparse_moe.router.layer";
  names.gate = {"block_sparse_moe.input_linear.weight", 2 * width, 0};
  names.up = {"block_sparse_moe.input_linear.weight", 2 * width, width};
  names.down = {"block_sparse_moe.output_linear.weight", config.dims.hidden_size};
  names.shared.gate.hf = names.shared.up.hf = "shared_mlp.input_linear";
  names.shared.down.hf = "shared_mlp.output_linear";
  TokenMixers mixers = AttentionLayers(config);
  return std::make_unique<Decoder>(std::move(config), std::move(mixers));
}

}  // namespace thermocline
