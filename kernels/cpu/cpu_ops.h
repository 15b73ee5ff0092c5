// The CPU backend: threads, integer dot products chosen for the processor, oneDNN where the table
// of kernels says so.
#ifndef THERMOCLINE_KERNELS_CPU_CPU_OPS_H_
#define THERMOCLINE_KERNELS_CPU_CPU_OPS_H_

#include <memory>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cpu/paged_attention.h"
#include "kernels/cpu/weight_dot.h"
#include "kernels/worker_pool.h"

namespace thermocline {

// Every operation is done when its call returns.
class CpuOps : public DenseOps {
 public:
  // All outlive it. `dot`'s kernels are `kernels`.
  CpuOps(const CpuKernels& kernels, const CpuKernelTable& table, const WeightDot& dot,
         WorkerPool* pool);

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
    std::vector<float*> out;  // per token: where a row range lands
    std::vector<float> sum;   // [cols]
  };
  // Tokens that a product's tasks compute together.
  struct Group {
    TokenRole role;
    std::vector<int32_t> rows;  // of x
    TokenRows tokens;
  };

  // Sines and cosines of the last step's positions, which all layers ask for.
  struct RopeTable {
    std::vector<int32_t> positions;
    std::vector<float> inv_freq;
    float scale = 0.0f;
    std::vector<float> cosine, sine;  // [positions, inv_freq]
  };

  // Rounds the rows of x into the forms needed.
  void RoundRows(const TensorView& x, const Forms& needed);
  Group MakeGroup(const TensorView& x, TokenRole role, absl::Span<const int32_t> rows) const;
  void UpdateRopeTable(const TensorView& positions, const RopeArgs& args);

  const CpuKernels& kernels_;
  const WeightDot dot_;
  WorkerPool* pool_;
  PagedAttention attention_;
  std::vector<Worker> workers_;
  RoundedActivations rounded_;  // the operation's input
  RopeTable rope_;
};

// `pool` outlives the backend. INVALID_ARGUMENT for an instruction set this machine lacks.
absl::StatusOr<std::unique_ptr<Backend>> MakeCpuBackend(WorkerPool* pool,
                                                        const BackendOptions& options);

}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_CPU_CPU_OPS_H_
