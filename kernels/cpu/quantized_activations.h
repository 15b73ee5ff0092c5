// One step's activations in the int8 forms that the weights of an operation ask for.
#ifndef THERMOCLINE_KERNELS_CPU_QUANTIZED_ACTIVATIONS_H_
#define THERMOCLINE_KERNELS_CPU_QUANTIZED_ACTIVATIONS_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/cpu/kernels.h"

namespace thermocline {

// The form of activations a weight format meets.
enum class ActivationForm { kF32, kSmallInt8, kSuperInt8 };

// Bytes of `elems` activations in both int8 forms.
int64_t QuantizedBytes(int64_t elems);

// Storage for N rows of K activations in one int8 form; reused from call to call.
class QuantizedActivations {
 public:
  // Makes room for num_rows rows of k. Rows keep their addresses until the next Reset.
  void Reset(ActivationForm form, int64_t num_rows, int64_t k);
  // Quantises x[k] into row `row`; rows may be filled by different threads.
  void Fill(const CpuKernels& kernels, int64_t row, const float* x);
  // The row's records, SmallRecord or SuperRecord.
  const void* row(int64_t row) const {
    if (form_ == ActivationForm::kSmallInt8) return &small_[static_cast<size_t>(row * stride_)];
    return &super_[static_cast<size_t>(row * stride_)];
  }

 private:
  ActivationForm form_ = ActivationForm::kSmallInt8;
  int64_t k_ = 0;
  int64_t stride_ = 0;  // records a row
  std::vector<SmallRecord> small_;
  std::vector<SuperRecord> super_;
};

}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_CPU_QUANTIZED_ACTIVATIONS_H_
