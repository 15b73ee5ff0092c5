// HunYuan-A13B: queries and keys normalised after rotation, softmax-routed experts beside a shared
// one of the same width. Source: Tencent 2025; modeling_hunyuan_v1_moe.py of transformers.
#include "engine/model/architectures/architectures.h"

namespace thermocline {

std::unique_ptr<Model> MakeHunyuanMoe(ConfigReader* reader, const ModelOptions& options) {
  DecoderConfig config = ReadDecoderConfig("hunyuan_v1_moe", reader, options);
  config.attention.qk_norm = QkNorm::kPerHeadAfterRope;
  config.attention.names.q_norm = "self_attn.query_layernorm.weight";
  config.attention.names.k_norm = "self_attn.key_layernorm.weight";
  ReadExperts(reader, &config);
  // The reference takes the dense width for experts and shared expert alike.
  config.moe.intermediate_size = config.intermediate_size;
  reader->Record("expert_feed_forward_length", config.intermediate_size);
  SetSharedExpert(reader, &config, config.intermediate_size, 1);
  config.moe.route.normalize = true;
  MoeNames& names = config.moe.names;
  names.router = "mlp.gate.wg";
  names.shared.gate.hf = "mlp.shared_mlp.gate_proj";
  names.shared.up.hf = "mlp.shared_mlp.up_proj";
  names.shared.down.hf = "mlp.shared_mlp.down_proj";
  TokenMixers mixers = AttentionLayers(config);
  return std::make_unique<Decoder>(std::move(config), std::move(mixers));
}

}  // namespace thermocline
