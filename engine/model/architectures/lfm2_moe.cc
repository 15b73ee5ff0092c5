// LFM2-MoE: gated short convolutions with a few layers of attention between, sigmoid-routed experts
// after leading dense layers. Source: Liquid AI 2025; modeling_lfm2_moe.py of transformers.
#include "absl/strings/str_cat.h"
#include "engine/model/architectures/architectures.h"
#include "engine/model/layers/short_conv.h"

namespace thermocline {

std::unique_ptr<Model> MakeLfm2Moe(ConfigReader* reader, const ModelOptions& options) {
  DecoderConfig config = ReadDecoderConfig("lfm2_moe", reader, options);
  const int64_t layers = config.dims.num_hidden_layers;
  config.names.norm = {"model.embedding_norm", "token_embd_norm"};
  config.names.input_norm.hf = "operator_norm";
  config.names.post_norm.hf = "ffn_norm";
  config.names.mlp.gate.hf = "feed_forward.w1";
  config.names.mlp.up.hf = "feed_forward.w3";
  config.names.mlp.down.hf = "feed_forward.w2";
  config.attention.qk_norm = QkNorm::kPerHead;
  config.attention.names.o_proj = "self_attn.out_proj";
  config.attention.names.q_norm = "self_attn.q_layernorm.weight";
  config.attention.names.k_norm = "self_attn.k_layernorm.weight";
  ReadExperts(reader, &config, AfterFirstDense(reader));
  ReadSigmoidRouting(reader, /*normalize_by_default=*/true, &config);
  config.moe.route.normalize_eps = 1e-6f;
  MoeNames& names = config.moe.names;
  names.router = "feed_forward.gate";
  names.choice_bias = "feed_forward.expert_bias";
  names.gate = {"feed_forward.experts.{e}.w1.weight"};
  names.up = {"feed_forward.experts.{e}.w3.weight"};
  names.down = {"feed_forward.experts.{e}.w2.weight"};
  if (reader->BoolOr({"conv_bias", ""}, false)) {
    reader->Fail("LFM2-MoE with conv_bias = true is not supported; no published model has it");
  }

  const ShortConvConfig conv = {
      .hidden_size = config.dims.hidden_size,
      .kernel_size = reader->Int({"conv_L_cache", "shortconv.l_cache"}, 2, 1024)};
  const std::vector<std::string> types = reader->StringsOr({"layer_types", ""}, {});
  if (!reader->is_gguf() && static_cast<int64_t>(types.size()) != layers) {
    reader->Fail(absl::StrCat("layer_types has ", types.size(), " entries, but the model has ",
                              layers, " layers"));
  }
  std::vector<int64_t> kv_heads;  // GGUF marks convolutions by zero
  TokenMixers mixers;
  for (int64_t l = 0; l < layers; ++l) {
    const std::string in_proj = absl::StrCat("blk.", l, ".shortconv.in_proj.weight");
    const bool is_conv = reader->is_gguf() ? reader->checkpoint().Find(in_proj) != nullptr
                                           : static_cast<size_t>(l) < types.size() &&
                                                 types[static_cast<size_t>(l)] == "conv";
    kv_heads.push_back(is_conv ? 0 : config.attention.num_kv_heads);
    if (is_conv) {
      mixers.push_back(std::make_unique<ShortConv>(conv));
    } else {
      mixers.push_back(std::make_unique<GqaAttention>(config.attention));
    }
  }
  reader->Record("attention.head_count_kv", kv_heads);
  return std::make_unique<Decoder>(std::move(config), std::move(mixers));
}

}  // namespace thermocline
