// Products of rows of a weight matrix with tokens, by the kernel that the table has for the
// weight's format and the tokens' role.
#ifndef THERMOCLINE_KERNELS_CPU_WEIGHT_DOT_H_
#define THERMOCLINE_KERNELS_CPU_WEIGHT_DOT_H_

#include <vector>

#include "kernels/backend.h"
#include "kernels/cpu/cpu_kernel_table.h"
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/onednn_matmul.h"
#include "kernels/cpu/rounded_activations.h"

namespace thermocline {

// A worker's memory for WeightDot::Run, reused from call to call.
struct WeightDotScratch {
  std::vector<float> decoded;  // a piece of a panel
  std::vector<const void*> x;
  std::vector<float*> out;
  OneDnnMatMul onednn;
};

class WeightDot {
 public:
  // kProduct or kExperts.
  WeightDot(const CpuKernels& kernels, const CpuKernelTable& table, KernelUse use,
            const Calibration& calibration)
      : kernels_(kernels), table_(table), use_(use), calibration_(calibration) {}

  // Adds the forms that tokens need for this weight, of either role.
  void Note(const TensorView& weight, Forms* needed) const;
  // Whether the two roles have different kernels. Where not, any role may be given to Run.
  bool RolesDiffer(const TensorView& weight) const {
    return KernelFor(weight, TokenRole::kPrompt) != KernelFor(weight, TokenRole::kGenerated);
  }

  // out[t][r - first_row] = weight row r . token t, for rows [first_row, last_row), plus bias[r]
  // unless `bias` is empty. Any thread. `next`: the rows that this thread will probably read next
  // (PanelOf), or null. Where roles differ, a prompt token's bits may depend on first_row and
  // last_row: they must follow from the weight alone.
  void Run(const TensorView& weight, const TensorView& bias, int64_t first_row, int64_t last_row,
           TokenRole role, const TokenRows& tokens, const uint8_t* next, float* const* out,
           WeightDotScratch* scratch) const;

 private:
  CpuKernel KernelFor(const TensorView& weight, TokenRole role) const;
  void RunPanels(const TensorView& weight, int64_t first_row, int64_t last_row,
                 const std::vector<const void*>& tokens, const uint8_t* next,
                 float* const* out) const;
  // Quantised weights with f32 activations.
  void RunDecoded(const TensorView& weight, int64_t first_row, int64_t last_row,
                  const TokenRows& tokens, float* const* out, WeightDotScratch* scratch) const;

  // Prompt tokens, a fixed number at a time. False: the library refused.
  bool RunOneDnn(const TensorView& weight, int64_t first_row, int64_t last_row,
                 const TokenRows& tokens, float* const* out, WeightDotScratch* scratch) const;

  const CpuKernels& kernels_;
  const CpuKernelTable table_;
  const KernelUse use_;
  const Calibration calibration_;
};

}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_CPU_WEIGHT_DOT_H_
