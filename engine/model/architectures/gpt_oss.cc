// gpt-oss: biased attention with a sink a head, every other layer within a sliding window; experts
// with biases and a clamped activation, published as MXFP4.
// Source: OpenAI 2025, gpt-oss model card; modeling_gpt_oss.py of transformers.
#include "engine/model/architectures/architectures.h"

namespace thermocline {

std::unique_ptr<Model> MakeGptOss(ConfigReader* reader, const ModelOptions& options) {
  DecoderConfig config = ReadDecoderConfig("gpt_oss", reader, options);
  config.attention.sinks = true;
  config.names.post_norm.gguf = "post_attention_norm";
  ReadExperts(reader, &config);
  config.moe.route.score = RouteArgs::Score::kSoftmaxOfChosen;
  config.moe.activation = Activation::kSwigluOai;

  // Gate and up alternate. MXFP4 blocks lie along the input, as everywhere; other types are stored
  // [num_experts, in, out].
  const std::string gate_up = "mlp.experts.gate_up_proj", down = "mlp.experts.down_proj";
  const TensorInfo* stored = reader->checkpoint().Find("model.layers.0." + gate_up);
  const bool transposed = stored != nullptr && stored->dtype != DType::kMXFP4;
  const int64_t width = config.moe.intermediate_size, hidden = config.dims.hidden_size;
  MoeNames& names = config.moe.names;
  names.router = "mlp.router";
  names.gate = {gate_up, 2 * width, 0, 2, transposed};
  names.up = {gate_up, 2 * width, 1, 2, transposed};
  names.down = {down, hidden, 0, 1, transposed};
  names.gate_bias = {gate_up + "_bias", 2 * width, 0, 2};
  names.up_bias = {gate_up + "_bias", 2 * width, 1, 2};
  names.down_bias = {down + "_bias", hidden};

  std::vector<int64_t> alternating;
  for (int64_t l = 0; l < config.dims.num_hidden_layers; ++l) alternating.push_back(l % 2 == 0);
  TokenMixers mixers =
      AttentionLayers(config, ReadWindows(reader, config.dims.num_hidden_layers, alternating));
  return std::make_unique<Decoder>(std::move(config), std::move(mixers));
}

}  // namespace thermocline
