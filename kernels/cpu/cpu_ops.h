// The CPU backend: threads, integer dot products chosen for the processor, oneDNN for dense prompt
// products.
#ifndef THERMOCLINE_KERNELS_CPU_CPU_OPS_H_
#define THERMOCLINE_KERNELS_CPU_CPU_OPS_H_

#include <memory>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cpu/onednn_matmul.h"
#include "kernels/cpu/paged_attention.h"
#include "kernels/cpu/weight_dot.h"
#include "kernels/worker_pool.h"

namespace thermocline {

// Every operation is done when its call returns.
class CpuOps : public DenseOps {
 public:
  // All outlive it. `dot`'s kernels are `kernels`.
  CpuOps(const CpuKernels& kernels, const WeightDot& dot, bool use_onednn, WorkerPool* pool);

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

 private:
  struct Worker {
    WeightDotScratch scratch;
    std::vector<float*> out;           // per token: where a row range lands
    std::vector<float> panel, result;  // oneDNN
    OneDnnMatMul onednn;
  };

  // Sines and cosines of the last step's positions, which all layers ask for.
  struct RopeTable {
    std::vector<int32_t> positions;
    std::vector<float> inv_freq;
    float scale = 0.0f;
    std::vector<float> cosine, sine;  // [positions, inv_freq]
  };

  // Rounds the rows of x into the forms needed.
  void QuantizeRows(const TensorView& x, const FormsNeeded& needed);
  // Appends row n of x, which QuantizeRows has seen, to `tokens`.
  void AddToken(const TensorView& x, int64_t n, const FormsNeeded& needed, TokenRows* tokens) const;
  void UpdateRopeTable(const TensorView& positions, const RopeArgs& args);
  void RunOneDnn(const TensorView& x, absl::Span<const int32_t> prompt_rows,
                 absl::Span<const Projection> projections);

  const CpuKernels& kernels_;
  const WeightDot dot_;
  const bool use_onednn_;
  WorkerPool* pool_;
  PagedAttention attention_;
  std::vector<Worker> workers_;
  QuantizedActivations small_, super_;  // of the operation's input
  RopeTable rope_;
};

// `pool` outlives the backend. INVALID_ARGUMENT for an instruction set this machine lacks.
absl::StatusOr<std::unique_ptr<Backend>> MakeCpuBackend(WorkerPool* pool,
                                                        const BackendOptions& options);

}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_CPU_CPU_OPS_H_
