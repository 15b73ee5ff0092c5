#include "engine/model/layers/moe.h"

#include "absl/strings/str_cat.h"

namespace thermocline {

void Moe::DeclareTensors(const MoeConfig& config, int layer, const LayerPrefix& prefix,
                         TensorTable* table) {
  const MoeNames& names = config.names;
  const int64_t hidden = config.hidden_size, width = config.intermediate_size;
  const int64_t num_choices = config.num_experts + config.num_identity_experts;
  table->num_experts = static_cast<int>(config.num_experts);
  table->Matrix({prefix.hf + names.router + ".weight", prefix.gguf + "ffn_gate_inp.weight"},
                num_choices, hidden, &router_);
  table->Vector({prefix.hf + names.router + ".bias", prefix.gguf + "ffn_gate_inp.bias"},
                num_choices, &router_bias_, /*optional=*/true);
  if (!names.choice_bias.empty()) {
    table->Vector({prefix.hf + names.choice_bias, prefix.gguf + "exp_probs_b.bias"}, num_choices,
                  &choice_bias_, /*optional=*/true);
  }
  const auto matrix = [&](const ExpertPlace& hf, const char* gguf, int64_t rows, int64_t cols) {
    if (hf.name.empty()) return ExpertMatrix();
    ExpertMatrix m = {hf, {absl::StrCat(prefix.gguf, gguf, "_exps.weight"), rows}, rows, cols};
    m.hf.name = prefix.hf + hf.name;
    const absl::string_view name = gguf;
    if (config.gguf_layout == MoeConfig::GgufLayout::kApart) {
      m.gguf.name = absl::StrCat(prefix.gguf, gguf, ".{e}.weight");
    } else if (config.gguf_layout == MoeConfig::GgufLayout::kGateUpFused && name != "ffn_down") {
      m.gguf = {prefix.gguf + "ffn_gate_up_exps.weight", 2 * width, name == "ffn_up" ? width : 0};
    }
    return m;
  };
  const auto bias = [&](const ExpertPlace& hf, const char* gguf, int64_t rows) {
    if (hf.name.empty()) return ExpertMatrix();
    ExpertMatrix m = {hf, {absl::StrCat(prefix.gguf, gguf, "_exps.bias"), rows}, rows, 1};
    m.hf.name = prefix.hf + hf.name;
    return m;
  };
  table->experts.push_back({.layer = layer,
                            .gate = matrix(names.gate, "ffn_gate", width, hidden),
                            .up = matrix(names.up, "ffn_up", width, hidden),
                            .down = matrix(names.down, "ffn_down", hidden, width),
                            .gate_bias = bias(names.gate_bias, "ffn_gate", width),
                            .up_bias = bias(names.up_bias, "ffn_up", width),
                            .down_bias = bias(names.down_bias, "ffn_down", hidden)});
  if (config.shared_intermediate_size == 0) return;
  shared_.DeclareTensors(prefix, names.shared, hidden, config.shared_intermediate_size, table);
  if (!names.shared_gate.empty()) {
    table->Matrix(
        {prefix.hf + names.shared_gate + ".weight", prefix.gguf + "ffn_gate_inp_shexp.weight"}, 1,
        hidden, &shared_gate_);
  }
}

absl::Status Moe::Add(ForwardPass* pass, const MoeConfig& config, int layer, const TensorView& x,
                      float scale, const TensorView& acc) const {
  const int64_t n = pass->num_tokens(), top_k = config.route.top_k;
  const int num_experts = static_cast<int>(config.num_experts);
  DenseOps& ops = pass->ops();
  const TensorView logits = pass->NewTensor({n, config.num_experts + config.num_identity_experts});
  const TensorView ids = pass->NewTensor({n, top_k}, DType::kI32);
  const TensorView weights = pass->NewTensor({n, top_k});
  const TensorView expert_out = pass->NewTensor({n * top_k, x.cols()});
  const Projection gate = {router_, router_bias_, logits};
  ops.MatMul(x, pass->roles(), {&gate, 1});
  RouteArgs route = config.route;
  route.bias = choice_bias_;
  ops.RouteTopK(logits, route, ids, weights);
  pass->Done(Stage::kRouter);
  if (config.num_identity_experts > 0) ops.IdentityExperts(x, ids, num_experts, expert_out);
  RoutedExperts& experts = pass->experts();
  if (absl::Status s = experts.Plan(layer, x, pass->roles_of_tokens(), ids); !s.ok()) return s;
  experts.Start(config.activation, expert_out);
  pass->Done(Stage::kExperts);
  // The shared expert is computed while missing ones are read, and added behind them.
  TensorView shared;
  if (config.shared_intermediate_size > 0) shared = Shared(pass, x);
  pass->Done(Stage::kCombine);
  absl::StatusOr<std::vector<RoutedExperts::LostRow>> lost = experts.Finish();
  if (!lost.ok()) return lost.status();
  pass->Lose(*lost);
  pass->Done(Stage::kExperts);
  ops.CombineExperts(expert_out, weights, scale, acc);
  if (!shared.empty()) ops.AddScaled(shared, scale, acc);
  return absl::OkStatus();
}

TensorView Moe::Shared(ForwardPass* pass, const TensorView& x) const {
  DenseOps& ops = pass->ops();
  const int64_t n = pass->num_tokens();
  const TensorView shared = shared_.Forward(pass, x);
  if (!shared_gate_.empty()) {
    const TensorView share = pass->NewTensor({n, 1});
    const Projection share_gate = {shared_gate_, {}, share};
    ops.MatMul(x, pass->roles(), {&share_gate, 1});
    ops.SigmoidMul(share, shared);
  }
  return shared;
}

}  // namespace thermocline
