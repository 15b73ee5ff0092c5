// One step's activations in the forms that the weights of an operation ask for.
#ifndef THERMOCLINE_KERNELS_CPU_ROUNDED_ACTIVATIONS_H_
#define THERMOCLINE_KERNELS_CPU_ROUNDED_ACTIVATIONS_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/cpu/kernels.h"

namespace thermocline {

// The form of activations a kernel meets its weights with.
enum class ActivationForm { kF32, kSmallInt8, kSuperInt8, kBfloat16 };

// The forms, but for kF32, that a set of weights asks for.
struct Forms {
  bool small = false;
  bool super = false;
  bool bfloat16 = false;

  bool any() const { return small || super || bfloat16; }
};

// The same tokens in every form some weight needs; `f32` is always there.
struct TokenRows {
  std::vector<const void*> f32, small, super, bfloat16;

  void Clear();
};

// Bytes of `elems` activations in those forms.
int64_t RoundedBytes(const Forms& forms, int64_t elems);

// Storage for N rows of K activations; reused from call to call.
class RoundedActivations {
 public:
  // Makes room for num_rows rows of k. Rows keep their addresses until the next Reset.
  void Reset(const Forms& forms, int64_t num_rows, int64_t k);
  // Rounds x[k] into row `row`; rows may be filled by different threads.
  void Fill(const CpuKernels& kernels, int64_t row, const float* x);
  // Appends row `row`, which Fill has seen or will see, and x itself.
  void AppendTo(int64_t row, const float* x, TokenRows* tokens) const;

 private:
  Forms forms_;
  int64_t k_ = 0;
  std::vector<SmallRecord> small_;
  std::vector<SuperRecord> super_;
  std::vector<uint16_t> bfloat16_;
};

}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_CPU_ROUNDED_ACTIVATIONS_H_
