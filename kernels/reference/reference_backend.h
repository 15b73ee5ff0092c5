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
  void MatMul(const TensorView& x, absl::Span<const TokenRole> roles,
              absl::Span<const Projection> projections) override;
  void Rope(const TensorView& x, const TensorView& positions, const RopeArgs& args) override;
  void StoreKv(const TensorView& k, const TensorView& v, const TensorView& slots,
               const TensorView& k_cache, const TensorView& v_cache) override;
  void Attention(const AttentionArgs& args) override;
  void RouteTopK(const TensorView& logits, const RouteArgs& args, const TensorView& ids,
                 const TensorView& weights) override;
  void ExpertFfn(const TensorView& x, absl::Span<const ExpertWork> experts,
                 const TensorView& out) override;
  void CombineExperts(const TensorView& expert_out, const TensorView& weights, float scale,
                      const TensorView& acc) override;
  void SiluMul(const TensorView& gate, const TensorView& up, const TensorView& out) override;
  void AddScaled(const TensorView& x, float scale, const TensorView& acc) override;
  void Scale(const TensorView& x, float scale) override;
  void Clamp(const TensorView& x, float limit) override;
  void GatherRows(const TensorView& x, const TensorView& rows, const TensorView& out) override;
};

}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_REFERENCE_REFERENCE_BACKEND_H_
