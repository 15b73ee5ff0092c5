// The reference backend: every operation as the plainest loops in f32. It is the oracle of all
// tests.
#ifndef THERMOCLINE_KERNELS_REFERENCE_REFERENCE_BACKEND_H_
#define THERMOCLINE_KERNELS_REFERENCE_REFERENCE_BACKEND_H_

#include <string>

#include "kernels/backend.h"

namespace thermocline {

// Host memory, one thread, every operation done when the call returns. Weights are decoded to f32
// row by row and activations are never rounded.
class ReferenceBackend : public Backend {
 public:
  absl::string_view name() const override { return "reference"; }
  MemoryKind memory_kind() const override { return MemoryKind::kHost; }
  std::string Describe() const override { return "reference: plain f32 loops, 1 thread"; }

  absl::StatusOr<Buffer> Allocate(int64_t bytes) override;
  void CopyFromHost(const void* host, void* device, int64_t bytes) override;
  void CopyToHost(const void* device, void* host, int64_t bytes) override;
  EventId Record() override { return 0; }
  absl::Status Wait(EventId) override { return absl::OkStatus(); }

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

 protected:
  // Channels [first, last) of one sequence of CausalConv; channels are independent.
  static void ConvChannels(const TensorView& x, const TensorView& weight, bool silu,
                           const StateArgs& args, int64_t seq, int64_t first, int64_t last);
  // One head of one sequence of GatedDeltaRule; heads are independent.
  static void DeltaRuleHead(const DeltaRuleArgs& args, int64_t seq, int64_t head);
};

}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_REFERENCE_REFERENCE_BACKEND_H_
