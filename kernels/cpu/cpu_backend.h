// The CPU backend: threads, integer dot products chosen for the processor, oneDNN for dense prompt
// products.
#ifndef THERMOCLINE_KERNELS_CPU_CPU_BACKEND_H_
#define THERMOCLINE_KERNELS_CPU_CPU_BACKEND_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "kernels/backend.h"
#include "kernels/cpu/expert_ffn.h"
#include "kernels/cpu/onednn_matmul.h"
#include "kernels/cpu/paged_attention.h"
#include "kernels/cpu/weight_dot.h"
#include "kernels/cpu/worker_pool.h"
#include "kernels/reference/reference_backend.h"

namespace thermocline {

// Operations that cost nothing next to the matrix products are the reference ones. Every operation
// is done when its call returns.
class CpuBackend : public ReferenceBackend {
 public:
  // INVALID_ARGUMENT for an instruction set this machine lacks or a negative thread count.
  static absl::StatusOr<std::unique_ptr<Backend>> Create(const BackendOptions& options);

  absl::string_view name() const override { return "cpu"; }
  std::string Describe() const override;
  int num_threads() const override { return pool_.num_threads(); }

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
  void CombineExperts(const TensorView& expert_out, const TensorView& weights, float scale,
                      const TensorView& acc) override;
  void SiluMul(const TensorView& gate, const TensorView& up, const TensorView& out) override;
  void MarkFaults(const TensorView& x, float limit, int32_t code,
                  const TensorView& faults) override;
  void CausalConv(const TensorView& x, const TensorView& weight, bool silu,
                  const StateArgs& state) override;
  void GatedDeltaRule(const DeltaRuleArgs& args) override;

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

  CpuBackend(const CpuKernels& kernels, int num_threads, const BackendOptions& options);

  // Calls fn(row) for rows [0, num_rows) of about `cols` elements each, several to a task.
  void ForRows(int64_t num_rows, int64_t cols, absl::FunctionRef<void(int64_t)> fn);
  // Rounds the rows of x into the forms needed.
  void QuantizeRows(const TensorView& x, const FormsNeeded& needed);
  // Appends row n of x, which QuantizeRows has seen, to `tokens`.
  void AddToken(const TensorView& x, int64_t n, const FormsNeeded& needed, TokenRows* tokens) const;
  void UpdateRopeTable(const TensorView& positions, const RopeArgs& args);
  void RunOneDnn(const TensorView& x, absl::Span<const int32_t> prompt_rows,
                 absl::Span<const Projection> projections);

  const CpuKernels& kernels_;
  const Activations activations_;
  const bool use_onednn_;
  const WeightDot dot_;
  WorkerPool pool_;
  thermocline::ExpertFfn expert_ffn_;
  PagedAttention attention_;
  std::vector<Worker> workers_;
  QuantizedActivations small_, super_;  // of the operation's input
  RopeTable rope_;
};

}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_CPU_CPU_BACKEND_H_
