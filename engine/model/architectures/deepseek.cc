// DeepSeek-V2 and V3: multi-head latent attention, leading dense layers, fine-grained experts
// limited to groups, beside shared ones. V2 scores by softmax and a group by its best expert, V3 by
// sigmoid with a bias for the choice and a group by its best two.
// Source: DeepSeek-AI 2024 (both reports); modeling_deepseek_v2.py and _v3.py of transformers.
#include "engine/model/architectures/architectures.h"
#include "engine/model/layers/mla.h"

namespace thermocline {
namespace {

bool IsSigmoid(const ConfigReader& reader) {
  return reader.architecture() == "deepseek_v3" || reader.architecture() == "kimi_k2";
}

void ReadSoftmaxRouting(ConfigReader* reader, DecoderConfig* config) {
  RouteArgs& route = config->moe.route;
  // Only the sigmoid variant normalises; its sum of softmax scores stays as it is.
  route.scale =
      static_cast<float>(reader->FloatOr({"routed_scaling_factor", "expert_weights_scale"}, 1.0));
  if (reader->StringOr({"topk_method", ""}, "group_limited_greedy") != "greedy") {
    ReadRouteGroups(reader, config);
  }
  reader->Record("expert_gating_func", kGatingSoftmax);
}

}  // namespace

std::unique_ptr<Model> MakeDeepseek(ConfigReader* reader, const ModelOptions& options) {
  DecoderConfig config = ReadDecoderSizes("deepseek", reader);
  const MlaConfig mla = ReadMla(reader, config.dims, options);
  ReadExperts(reader, &config, AfterFirstDense(reader));
  const int64_t gating = reader->IntOr({"", "expert_gating_func"}, 1, 4,
                                       IsSigmoid(*reader) ? kGatingSigmoid : kGatingSoftmax);
  if (gating == kGatingSigmoid) {
    ReadSigmoidRouting(reader, /*normalize_by_default=*/!reader->is_gguf(), &config);
  } else {
    ReadSoftmaxRouting(reader, &config);
  }
  ReadSharedExperts(reader, "n_shared_experts", &config);
  TokenMixers mixers;
  for (int64_t l = 0; l < config.dims.num_hidden_layers; ++l) {
    mixers.push_back(std::make_unique<MlaAttention>(mla));
  }
  return std::make_unique<Decoder>(std::move(config), std::move(mixers));
}

}  // namespace thermocline
