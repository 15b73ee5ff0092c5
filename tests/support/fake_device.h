// FakeDevice: a backend that behaves like an accelerator and computes like another one.
//
// Its memory cannot be read by the host: addresses it hands out are tagged so that a stray
// dereference faults. Fresh memory is NaN. Operations only queue up; they run when somebody waits,
// so a missing wait shows as stale or poisoned results.
#ifndef THERMOCLINE_TESTS_SUPPORT_FAKE_DEVICE_H_
#define THERMOCLINE_TESTS_SUPPORT_FAKE_DEVICE_H_

#include <deque>
#include <functional>
#include <memory>

#include "kernels/backend.h"
#include "kernels/reference/reference_backend.h"

namespace thermocline {

class FakeDevice : public Backend {
 public:
  // Computes with `inner`, whose memory is the host's and whose operations are done when their call
  // returns; null: with the reference backend.
  explicit FakeDevice(std::unique_ptr<Backend> inner = nullptr);

  absl::string_view name() const override { return "fake"; }
  MemoryKind memory_kind() const override { return MemoryKind::kDevice; }
  std::string Describe() const override {
    return "fake device, deferred, over " + inner_->Describe();
  }

  absl::StatusOr<Buffer> Allocate(int64_t bytes) override;
  void CopyFromHost(const void* host, void* device, int64_t bytes) override;
  void CopyToHost(const void* device, void* host, int64_t bytes) override;
  EventId Record() override { return num_enqueued_; }
  absl::Status Wait(EventId event) override;

  void EmbedTokens(const TensorView& table, const TensorView& token_ids, float scale,
                   const TensorView& out) override;
  void RmsNorm(const TensorView& x, const TensorView& weight, float eps,
               const TensorView& out) override;
  void LayerNorm(const TensorView& x, const TensorView& weight, const TensorView& bias, float eps,
                 const TensorView& out) override;
  void MatMul(const TensorView& x, absl::Span<const TokenRole> roles,
              absl::Span<const Projection> projections) override;
  void HeadMatMul(const TensorView& x, absl::Span<const TokenRole> roles, const TensorView& weight,
                  const TensorView& out) override;
  void Rope(const TensorView& x, const TensorView& positions, const RopeArgs& args) override;
  void StoreKv(const TensorView& k, const TensorView& v, const TensorView& slots,
               const TensorView& k_cache, const TensorView& v_cache) override;
  void Attention(const AttentionArgs& args) override;
  void RouteTopK(const TensorView& logits, const RouteArgs& args, const TensorView& ids,
                 const TensorView& weights) override;
  void ExpertFfn(const TensorView& x, absl::Span<const ExpertWork> experts, Activation activation,
                 const TensorView& out) override;
  void IdentityExperts(const TensorView& x, const TensorView& ids, int num_experts,
                       const TensorView& out) override;
  void CombineExperts(const TensorView& expert_out, const TensorView& weights, float scale,
                      const TensorView& acc) override;
  void SiluMul(const TensorView& gate, const TensorView& up, const TensorView& out) override;
  void Multiply(const TensorView& a, const TensorView& b, const TensorView& out) override;
  void SigmoidMul(const TensorView& gate, const TensorView& x) override;
  void CopyHeads(const TensorView& x, const TensorView& out) override;
  void CausalConv(const TensorView& x, const TensorView& weight, bool silu,
                  const StateArgs& state) override;
  void GatedDeltaRule(const DeltaRuleArgs& args) override;
  void AddScaled(const TensorView& x, float scale, const TensorView& acc) override;
  void Fill(const TensorView& x, float value) override;
  void Scale(const TensorView& x, float scale) override;
  void Clamp(const TensorView& x, float limit) override;
  void MarkFaults(const TensorView& x, float limit, int32_t code,
                  const TensorView& faults) override;
  void GatherRows(const TensorView& x, const TensorView& rows, const TensorView& out) override;

  int64_t num_expert_calls() const { return num_expert_calls_; }

 private:
  void Enqueue(std::function<void()> operation);

  std::unique_ptr<Backend> inner_;
  std::deque<std::function<void()>> queue_;
  EventId num_enqueued_ = 0;
  EventId num_done_ = 0;
  int64_t num_expert_calls_ = 0;
};

}  // namespace thermocline

#endif  // THERMOCLINE_TESTS_SUPPORT_FAKE_DEVICE_H_
