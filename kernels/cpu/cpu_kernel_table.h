// Which of the CPU's kernels serves which operation, format and role. What is asked before a
// product or an attention is computed, so that the table that is printed is the one that is used.
#ifndef THERMOCLINE_KERNELS_CPU_CPU_KERNEL_TABLE_H_
#define THERMOCLINE_KERNELS_CPU_CPU_KERNEL_TABLE_H_

#include <array>
#include <optional>
#include <vector>

#include "kernels/backend.h"
#include "kernels/kernel_table.h"

namespace thermocline {

enum class CpuKernel : uint8_t {
  kNone,           // nothing of the format: no cache is of IQ4_XS
  kInt8Panels,     // panels of weights, activations rounded to int8
  kF32Panels,      // panels of floats, f32 activations
  kDecodedPanels,  // panels decoded piece by piece to f32, f32 activations
  kTiles,          // attention of many tokens over blocks of positions
  kRows,           // attention of one token over the stored rows
  kOneDnn,         // what OneDnnMatMul can serve of it; the rest as without oneDNN
};

class CpuKernelTable {
 public:
  // `onednn`: for everything it can serve, or for nothing; unset: where it is faster.
  CpuKernelTable(Activations activations, std::optional<bool> onednn);

  CpuKernel Serving(KernelUse use, DType format, TokenRole role) const {
    return kernels_[Index(use, format, role)];
  }
  bool uses_onednn() const;
  std::vector<KernelRow> Rows() const;

 private:
  static constexpr size_t kNumUses = 3, kNumRoles = 2;

  static size_t Index(KernelUse use, DType format, TokenRole role) {
    return (static_cast<size_t>(use) * kNumDTypes + static_cast<size_t>(format)) * kNumRoles +
           static_cast<size_t>(role);
  }

  std::array<CpuKernel, kNumUses* kNumDTypes* kNumRoles> kernels_ = {};
};

}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_CPU_CPU_KERNEL_TABLE_H_
