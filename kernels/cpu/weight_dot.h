// Products of rows of a weight matrix with tokens: the kernel that a weight's format and the
// precision of the activations ask for.
#ifndef THERMOCLINE_KERNELS_CPU_WEIGHT_DOT_H_
#define THERMOCLINE_KERNELS_CPU_WEIGHT_DOT_H_

#include <vector>

#include "kernels/backend.h"
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/quantized_activations.h"

namespace thermocline {

// The same tokens in every form some weight needs; `f32` is always there.
struct TokenRows {
  std::vector<const void*> f32, small, super;

  void Clear() {
    f32.clear();
    small.clear();
    super.clear();
  }
};

// A worker's memory for WeightDot::Run, reused from call to call.
struct WeightDotScratch {
  std::vector<float> decoded;  // a piece of a panel
  std::vector<const void*> x;
  std::vector<float*> out;
};

// Which int8 forms a set of weights asks for.
struct FormsNeeded {
  bool small = false;
  bool super = false;
};

class WeightDot {
 public:
  WeightDot(const CpuKernels& kernels, Activations activations, const KernelTable& table)
      : kernels_(kernels), activations_(activations), table_(table) {}

  ActivationForm FormFor(const TensorView& weight) const;
  void Note(const TensorView& weight, FormsNeeded* needed) const;

  // out[t][r - first_row] = weight row r . token t, for rows [first_row, last_row), plus bias[r]
  // unless `bias` is empty. Any thread. `next`: the rows that this thread will probably read next
  // (PanelOf), or null.
  void Run(const TensorView& weight, const TensorView& bias, int64_t first_row, int64_t last_row,
           const TokenRows& tokens, const uint8_t* next, float* const* out,
           WeightDotScratch* scratch) const;

 private:
  // Quantised weights with f32 activations.
  void RunDecoded(const TensorView& weight, int64_t first_row, int64_t last_row,
                  const TokenRows& tokens, float* const* out, WeightDotScratch* scratch) const;

  const CpuKernels& kernels_;
  const Activations activations_;
  const KernelTable table_;
};

}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_CPU_WEIGHT_DOT_H_
