// Element types of tensors, quantised GGUF block types included.
#ifndef THERMOCLINE_KERNELS_DTYPE_H_
#define THERMOCLINE_KERNELS_DTYPE_H_

#include <cstdint>

namespace thermocline {

// Plain types hold one element a block. The others hold `block_elems` weights in `block_bytes`
// bytes, laid out as llama.cpp's ggml-common.h defines them; kernels/quant/registry.h knows the
// sizes.
enum class DType : uint8_t {
  kF32,
  kF16,
  kBF16,
  kI32,
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ8_0,
  kQ2_K,
  kQ3_K,
  kQ4_K,
  kQ5_K,
  kQ6_K,
  kIQ4_NL,
  kIQ4_XS,
  kMXFP4,
};
inline constexpr int kNumDTypes = static_cast<int>(DType::kMXFP4) + 1;

}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_DTYPE_H_
