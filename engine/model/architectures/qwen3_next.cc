// Qwen3-Next: three layers of Gated DeltaNet to one of gated attention, softmax-routed experts
// beside a gated shared one, norms stored around zero.
// Source: modeling_qwen3_next.py of transformers.
#include "absl/strings/str_cat.h"
#include "engine/model/architectures/architectures.h"
#include "engine/model/layers/gated_delta_net.h"

namespace thermocline {
namespace {

constexpr int64_t kMaxHeads = 1 << 12;
constexpr int64_t kMaxKernel = 64;

GatedDeltaNetConfig ReadDeltaNet(ConfigReader* reader, const DecoderConfig& config) {
  GatedDeltaNetConfig delta = {.hidden_size = config.dims.hidden_size};
  delta.num_key_heads = reader->Int({"linear_num_key_heads", "ssm.group_count"}, 1, kMaxHeads);
  delta.num_value_heads =
      reader->Int({"linear_num_value_heads", "ssm.time_step_rank"}, 1, kMaxHeads);
  delta.key_dim = reader->Int({"linear_key_head_dim", "ssm.state_size"}, 1, kMaxHeads);
  delta.value_dim = reader->IntOr({"linear_value_head_dim", ""}, 1, kMaxHeads, delta.key_dim);
  const int64_t inner = reader->IntOr({"", "ssm.inner_size"}, 1, int64_t{kMaxHeads} * kMaxHeads,
                                      delta.value_dim * delta.num_value_heads);
  delta.value_dim = inner / delta.num_value_heads;
  delta.kernel_size = reader->Int({"linear_conv_kernel_dim", "ssm.conv_kernel"}, 2, kMaxKernel);
  delta.norm_eps = config.norm_eps;
  delta.gguf_ssm_in = reader->checkpoint().Find("blk.0.ssm_in.weight") != nullptr;
  reader->Record("ssm.inner_size", inner);
  if (delta.num_value_heads % delta.num_key_heads != 0 || delta.value_dim < 1) {
    reader->Fail(
        absl::StrCat("linear_num_value_heads = ", delta.num_value_heads,
                     " is not a multiple of linear_num_key_heads = ", delta.num_key_heads));
    delta.num_value_heads = delta.num_key_heads;
  }
  return delta;
}

}  // namespace

std::unique_ptr<Model> MakeQwen3Next(ConfigReader* reader, const ModelOptions& options) {
  DecoderConfig config = ReadDecoderConfig("qwen3_next", reader, options);
  config.zero_centered_norm = true;
  config.names.post_norm.gguf = "post_attention_norm";
  config.attention.qk_norm = QkNorm::kPerHead;
  config.attention.zero_centered_norm = true;
  config.attention.gated = true;
  if (reader->BoolOr({"attention_bias", ""}, false))
    reader->Fail("attention_bias = true is not supported; no published model has it");
  ReadExperts(reader, &config, SparseSteps(reader));
  config.moe.route.normalize = reader->BoolOr({"norm_topk_prob", "expert_weights_norm"}, true);
  SetGatedSharedExpert(reader, &config);

  const int64_t interval =
      reader->IntOr({"full_attention_interval", "full_attention_interval"}, 1, 1 << 12, 4);
  std::vector<std::string> types = reader->StringsOr({"layer_types", ""}, {});
  const std::vector<int64_t> recurrent = reader->IntsOr({"", "attention.recurrent_layers"}, {});
  const GatedDeltaNetConfig delta = ReadDeltaNet(reader, config);
  std::vector<int64_t> linear_layers;
  TokenMixers mixers;
  for (size_t l = 0; l < static_cast<size_t>(config.dims.num_hidden_layers); ++l) {
    bool linear = (static_cast<int64_t>(l) + 1) % interval != 0;
    if (l < types.size()) linear = types[l] == "linear_attention";
    if (l < recurrent.size()) linear = recurrent[l] != 0;
    linear_layers.push_back(linear);
    if (linear) {
      mixers.push_back(std::make_unique<GatedDeltaNet>(delta));
    } else {
      mixers.push_back(std::make_unique<GqaAttention>(config.attention));
    }
  }
  reader->Record("attention.recurrent_layers", linear_layers);
  return std::make_unique<Decoder>(std::move(config), std::move(mixers));
}

}  // namespace thermocline
