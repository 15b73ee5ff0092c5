// ERNIE 4.5 MoE: pairwise rotation, softmax scores with a bias for the choice, shared experts,
// dense layers at both ends. Source: Baidu 2025; modeling_ernie4_5_moe.py of transformers.
#include "engine/model/architectures/architectures.h"

namespace thermocline {

std::unique_ptr<Model> MakeErnie45Moe(ConfigReader* reader, const ModelOptions& options) {
  DecoderConfig config = ReadDecoderConfig("ernie4_5_moe", reader, options);
  config.attention.rope.interleaved = true;
  const int64_t layers = config.dims.num_hidden_layers;
  const int64_t interval =
      reader->IntOr({"moe_layer_interval", "interleave_moe_layer_step"}, 1, 1 << 12, 1);
  reader->Record("interleave_moe_layer_step", interval);
  const int64_t end = reader->IntOr({"moe_layer_end_index", ""}, -1, 1 << 12, -1);
  const std::function<bool(int64_t)> started = AfterFirstDense(reader);
  ReadExperts(reader, &config, [=](int64_t l) {
    return (l + 1) % interval == 0 && started(l) && l <= (end < 0 ? layers - 1 : end);
  });
  RouteArgs& route = config.moe.route;
  route.normalize = true;
  route.normalize_min = static_cast<float>(reader->FloatOr({"moe_norm_min", ""}, 1e-12));
  MoeNames& names = config.moe.names;
  names.choice_bias = "mlp.moe_statics.e_score_correction_bias";
  ReadSharedExperts(reader, "moe_num_shared_experts", &config);
  TokenMixers mixers = AttentionLayers(config);
  return std::make_unique<Decoder>(std::move(config), std::move(mixers));
}

}  // namespace thermocline
