#include "kernels/cpu/quantized_activations.h"

#include "kernels/quant/blocks.h"

namespace thermocline {
namespace {

// Grows only: the contents are rewritten by Fill.
template <class T>
void Reserve(int64_t size, std::vector<T>* storage) {
  if (static_cast<int64_t>(storage->size()) < size) storage->resize(static_cast<size_t>(size));
}

}  // namespace

void QuantizedActivations::Reset(ActivationForm form, int64_t num_rows, int64_t k) {
  form_ = form;
  k_ = k;
  const bool small = form == ActivationForm::kSmallInt8;
  const int64_t q_stride = (k + 63) / 64 * 64;
  const int64_t group = small ? kSmallBlockElems : kSuperBlockElems;
  const int64_t d_stride = (k / group + 1) / 2 * 2;
  const int64_t sums_stride = small ? 0 : k / kSubBlockElems;
  Reserve(num_rows * q_stride, &q_);
  Reserve(num_rows * d_stride, &d_);
  Reserve(small ? num_rows * d_stride : 0, &sum_);
  Reserve(num_rows * sums_stride, &sums_);
  rows_.resize(static_cast<size_t>(num_rows));
  for (int64_t r = 0; r < num_rows; ++r) {
    rows_[static_cast<size_t>(r)] = {q_.data() + r * q_stride, d_.data() + r * d_stride,
                                     sum_.data() + (small ? r * d_stride : 0),
                                     sums_.data() + r * sums_stride};
  }
}

void QuantizedActivations::Fill(const CpuKernels& kernels, int64_t row, const float* x) {
  const QuantizedRow& out = rows_[static_cast<size_t>(row)];
  if (form_ == ActivationForm::kSmallInt8) {
    kernels.quantize_small(x, k_, &out);
  } else {
    kernels.quantize_super(x, k_, &out);
  }
}

}  // namespace thermocline
