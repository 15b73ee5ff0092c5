#include "kernels/cpu/quantized_activations.h"

#include "kernels/quant/blocks.h"

namespace thermocline {
namespace {

// Grows only, to just that size and without a copy: the contents are rewritten by Fill.
template <class T>
void Reserve(int64_t size, std::vector<T>* storage) {
  if (static_cast<int64_t>(storage->size()) >= size) return;
  *storage = {};
  storage->resize(static_cast<size_t>(size));
}

}  // namespace

int64_t QuantizedBytes(int64_t elems) {
  constexpr int64_t kSmall = sizeof(SmallRecord), kSuper = sizeof(SuperRecord);
  return elems / kSmallBlockElems * kSmall + elems / kSuperBlockElems * kSuper;
}

void QuantizedActivations::Reset(ActivationForm form, int64_t num_rows, int64_t k) {
  form_ = form;
  k_ = k;
  if (form == ActivationForm::kSmallInt8) {
    stride_ = k / kSmallBlockElems;
    Reserve(num_rows * stride_, &small_);
  } else {
    stride_ = k / kSuperBlockElems;
    Reserve(num_rows * stride_, &super_);
  }
}

void QuantizedActivations::Fill(const CpuKernels& kernels, int64_t row, const float* x) {
  if (form_ == ActivationForm::kSmallInt8) {
    kernels.quantize_small(x, k_, &small_[static_cast<size_t>(row * stride_)]);
  } else {
    kernels.quantize_super(x, k_, &super_[static_cast<size_t>(row * stride_)]);
  }
}

}  // namespace thermocline
