// The reference backend: every operation as the plainest loops in f32. It is the oracle of all
// tests.
#ifndef THERMOCLINE_KERNELS_REFERENCE_REFERENCE_OPS_H_
#define THERMOCLINE_KERNELS_REFERENCE_REFERENCE_OPS_H_

#include <memory>

#include "kernels/backend.h"

namespace thermocline {

// Host memory, one thread, every operation done when the call returns. Weights are decoded to f32
// row by row and activations are never rounded.
class ReferenceOps : public DenseOps {
 public:
  void EmbedTokens(const TensorView& table, const TensorView& token_ids, float scale,
                   const TensorView& out) override;
  void RmsNorm(const TensorView& x, const TensorView& weight, float eps,
               const TensorView& out) override;
  void LayerNorm(const TensorView& x, const TensorView& weight, const TensorView& bias, float eps,
                 const TensorView& out) override;
  void MatMul(const TensorView& x, const TensorView& roles,
              absl::Span<const Projection> projections) override;
  void HeadMatMul(const TensorView& x, const TensorView& roles, const TensorView& weight,
                  const TensorView& out) override;
  void Rope(const TensorView& x, const TensorView& positions, const RopeArgs& args) override;
  void StoreKv(const TensorView& k, const TensorView& v, const TensorView& slots,
               const TensorView& k_cache, const TensorView& v_cache) override;
  void Attention(const AttentionArgs& args) override;
  void RouteTopK(const TensorView& logits, const RouteArgs& args, const TensorView& ids,
                 const TensorView& weights) override;
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
  void ScatterRows(const TensorView& x, const TensorView& rows, const TensorView& out) override;
};

class ReferenceExperts : public ExpertOps {
 public:
  void Start(const ExpertBatch& batch, absl::Span<ExpertWork> experts) override;
  absl::Status Finish(ExpertFeed* feed) override;

 private:
  void Compute(ExpertWork* work) const;

  const ExpertBatch* batch_ = nullptr;
  absl::Span<ExpertWork> experts_;
};

std::unique_ptr<Backend> MakeReferenceBackend();

}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_REFERENCE_REFERENCE_OPS_H_
