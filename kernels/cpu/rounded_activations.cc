#include "kernels/cpu/rounded_activations.h"

#include "kernels/quant/blocks.h"
#include "kernels/quant/registry.h"

namespace thermocline {
namespace {

// Grows only, to just that size and without a copy: the contents are rewritten by Fill.
template <class T>
void Reserve(int64_t size, std::vector<T>* storage) {
  if (static_cast<int64_t>(storage->size()) >= size) return;
  *storage = {};
  storage->resize(static_cast<size_t>(size));
}

// Row `row` of rows of `length` records.
template <class T>
const T* RowOf(const std::vector<T>& records, int64_t row, int64_t length) {
  return &records[static_cast<size_t>(row * length)];
}

}  // namespace

void TokenRows::Clear() {
  for (std::vector<const void*>* rows : {&f32, &small, &super, &bfloat16}) rows->clear();
}

int64_t RoundedBytes(const Forms& forms, int64_t elems) {
  int64_t bytes = 0;
  if (forms.small) bytes += elems / kSmallBlockElems * int64_t{sizeof(SmallRecord)};
  if (forms.super) bytes += elems / kSuperBlockElems * int64_t{sizeof(SuperRecord)};
  if (forms.bfloat16) bytes += BytesOf(DType::kBF16, elems);
  return bytes;
}

void RoundedActivations::Reset(const Forms& forms, int64_t num_rows, int64_t k) {
  forms_ = forms;
  k_ = k;
  if (forms.small) Reserve(num_rows * (k / kSmallBlockElems), &small_);
  if (forms.super) Reserve(num_rows * (k / kSuperBlockElems), &super_);
  if (forms.bfloat16) Reserve(num_rows * k, &bfloat16_);
}

void RoundedActivations::Fill(const CpuKernels& kernels, int64_t row, const float* x) {
  const size_t r = static_cast<size_t>(row), k = static_cast<size_t>(k_);
  if (forms_.small) kernels.quantize_small(x, k_, &small_[r * (k / kSmallBlockElems)]);
  if (forms_.super) kernels.quantize_super(x, k_, &super_[r * (k / kSuperBlockElems)]);
  if (forms_.bfloat16) {
    kernels.encode_row[static_cast<int>(DType::kBF16)](x, k_, &bfloat16_[r * k]);
  }
}

void RoundedActivations::AppendTo(int64_t row, const float* x, TokenRows* tokens) const {
  tokens->f32.push_back(x);
  if (forms_.small) tokens->small.push_back(RowOf(small_, row, k_ / kSmallBlockElems));
  if (forms_.super) tokens->super.push_back(RowOf(super_, row, k_ / kSuperBlockElems));
  if (forms_.bfloat16) tokens->bfloat16.push_back(RowOf(bfloat16_, row, k_));
}

}  // namespace thermocline
