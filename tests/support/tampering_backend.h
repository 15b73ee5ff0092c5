// Shows every tensor of every operation to a visitor, which may change it: inputs
// before the operation runs, results after.
#ifndef THERMOCLINE_TESTS_SUPPORT_TAMPERING_BACKEND_H_
#define THERMOCLINE_TESTS_SUPPORT_TAMPERING_BACKEND_H_

#include <functional>
#include <memory>
#include <utility>

#include "kernels/backend.h"

namespace thermocline {

// Over a backend whose memory the host can read.
class TamperingOps : public DenseOps {
 public:
  // `site` names operation and tensor; `slots` are the rows of a KV cache that the operation has
  // written, else empty.
  using Visitor =
      std::function<void(const char* site, const TensorView& x, const TensorView& slots)>;

  TamperingOps(std::unique_ptr<DenseOps> inner, Visitor visitor)
      : inner_(std::move(inner)), visitor_(std::move(visitor)) {}

  void EmbedTokens(const TensorView& table, const TensorView& token_ids, float scale,
                   const TensorView& out) override {
    inner_->EmbedTokens(table, token_ids, scale, out);
    Visit("EmbedTokens.out", out);
  }
  void RmsNorm(const TensorView& x, const TensorView& weight, float eps,
               const TensorView& out) override {
    inner_->RmsNorm(x, weight, eps, out);
    Visit("RmsNorm.out", out);
  }
  void LayerNorm(const TensorView& x, const TensorView& weight, const TensorView& bias, float eps,
                 const TensorView& out) override {
    inner_->LayerNorm(x, weight, bias, eps, out);
    Visit("LayerNorm.out", out);
  }
  void MatMul(const TensorView& x, const TensorView& roles,
              absl::Span<const Projection> projections) override {
    inner_->MatMul(x, roles, projections);
    for (const Projection& p : projections) Visit("MatMul.out", p.out);
  }
  void HeadMatMul(const TensorView& x, const TensorView& roles, const TensorView& weight,
                  const TensorView& out) override {
    inner_->HeadMatMul(x, roles, weight, out);
    Visit("HeadMatMul.out", out);
  }
  void Rope(const TensorView& x, const TensorView& positions, const RopeArgs& args) override {
    inner_->Rope(x, positions, args);
    Visit("Rope.x", x);
  }
  void StoreKv(const TensorView& k, const TensorView& v, const TensorView& slots,
               const TensorView& k_cache, const TensorView& v_cache) override {
    inner_->StoreKv(k, v, slots, k_cache, v_cache);
    visitor_("StoreKv.k_cache", k_cache, slots);
    if (!v.empty()) visitor_("StoreKv.v_cache", v_cache, slots);
  }
  void Attention(const AttentionArgs& args) override {
    Visit("Attention.q", args.q);
    inner_->Attention(args);
    Visit("Attention.out", args.out);
  }
  void RouteTopK(const TensorView& logits, const RouteArgs& args, const TensorView& ids,
                 const TensorView& weights) override {
    Visit("RouteTopK.logits", logits);
    inner_->RouteTopK(logits, args, ids, weights);
    Visit("RouteTopK.weights", weights);
  }
  void IdentityExperts(const TensorView& x, const TensorView& ids, int num_experts,
                       const TensorView& out) override {
    inner_->IdentityExperts(x, ids, num_experts, out);
  }
  void CombineExperts(const TensorView& expert_out, const TensorView& weights, float scale,
                      const TensorView& acc) override {
    Visit("CombineExperts.expert_out", expert_out);
    inner_->CombineExperts(expert_out, weights, scale, acc);
    Visit("CombineExperts.acc", acc);
  }
  void SiluMul(const TensorView& gate, const TensorView& up, const TensorView& out) override {
    Visit("SiluMul.gate", gate);
    inner_->SiluMul(gate, up, out);
    Visit("SiluMul.out", out);
  }
  void Multiply(const TensorView& a, const TensorView& b, const TensorView& out) override {
    inner_->Multiply(a, b, out);
    Visit("Multiply.out", out);
  }
  void SigmoidMul(const TensorView& gate, const TensorView& x) override {
    Visit("SigmoidMul.gate", gate);
    inner_->SigmoidMul(gate, x);
    Visit("SigmoidMul.x", x);
  }
  void CopyHeads(const TensorView& x, const TensorView& out) override {
    inner_->CopyHeads(x, out);
    Visit("CopyHeads.out", out);
  }
  void CausalConv(const TensorView& x, const TensorView& weight, bool silu,
                  const StateArgs& state) override {
    inner_->CausalConv(x, weight, silu, state);
    Visit("CausalConv.x", x);
    visitor_("CausalConv.state", state.state, state.slots);
  }
  void GatedDeltaRule(const DeltaRuleArgs& args) override {
    Visit("GatedDeltaRule.beta", args.beta);
    Visit("GatedDeltaRule.a", args.a);
    inner_->GatedDeltaRule(args);
    Visit("GatedDeltaRule.out", args.out);
    visitor_("GatedDeltaRule.state", args.state.state, args.state.slots);
  }
  void AddScaled(const TensorView& x, float scale, const TensorView& acc) override {
    inner_->AddScaled(x, scale, acc);
    Visit("AddScaled.acc", acc);
  }
  void Fill(const TensorView& x, float value) override { inner_->Fill(x, value); }
  void Scale(const TensorView& x, float scale) override {
    inner_->Scale(x, scale);
    Visit("Scale.x", x);
  }
  void Clamp(const TensorView& x, float limit) override {
    Visit("Clamp.x", x);
    inner_->Clamp(x, limit);
  }
  void MarkFaults(const TensorView& x, float limit, int32_t code,
                  const TensorView& faults) override {
    inner_->MarkFaults(x, limit, code, faults);
  }
  void ScatterRows(const TensorView& x, const TensorView& rows, const TensorView& out) override {
    inner_->ScatterRows(x, rows, out);
    Visit("ScatterRows.out", out);
  }
  void GatherRows(const TensorView& x, const TensorView& rows, const TensorView& out) override {
    inner_->GatherRows(x, rows, out);
    Visit("GatherRows.out", out);
  }

 private:
  void Visit(const char* site, const TensorView& x) { visitor_(site, x, {}); }

  std::unique_ptr<DenseOps> inner_;
  Visitor visitor_;
};

// The backend with a visitor of its dense operations.
inline std::unique_ptr<Backend> MakeTamperingBackend(std::unique_ptr<Backend> backend,
                                                     const TamperingOps::Visitor& visitor) {
  backend->dense = std::make_unique<TamperingOps>(std::move(backend->dense), visitor);
  return backend;
}

}  // namespace thermocline

#endif  // THERMOCLINE_TESTS_SUPPORT_TAMPERING_BACKEND_H_
