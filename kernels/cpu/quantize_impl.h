// Rounding of activations to int8, written so that the compiler vectorises it; shared by all
// instruction sets.
#ifndef THERMOCLINE_KERNELS_CPU_QUANTIZE_IMPL_H_
#define THERMOCLINE_KERNELS_CPU_QUANTIZE_IMPL_H_

#include "kernels/cpu/kernels.h"
#include "kernels/quant/blocks.h"

namespace thermocline {
namespace {

// Rounds to nearest even for |x| < 2^22: adding 1.5 * 2^23 leaves the integer in the low mantissa
// bits.
inline int32_t RoundToInt(float x) {
  return (int32_t)(FloatToBits(x + 12582912.0f) & 0x7FFFFFu) - 0x400000;
}

inline float MaxAbs(const float* x, int n) {
  uint32_t max = 0;  // magnitudes compare like their bit patterns
  for (int i = 0; i < n; ++i) {
    const uint32_t bits = FloatToBits(x[i]) & 0x7FFFFFFFu;
    max = bits > max ? bits : max;
  }
  return BitsToFloat(max);
}

// Writes n rounded values, each plus kOffset modulo 256, and returns the scale.
template <int kOffset>
inline float QuantizeGroup(const float* x, int n, int8_t* q) {
  const float max = MaxAbs(x, n);
  const float inverse = max > 0.0f ? 127.0f / max : 0.0f;
  for (int i = 0; i < n; ++i) q[i] = (int8_t)(RoundToInt(x[i] * inverse) + kOffset);
  return max / 127.0f;
}

template <int kOffset>
inline int SumOf(const int8_t* q, int n) {
  int sum = 0;
  for (int i = 0; i < n; ++i) sum += (int8_t)(q[i] - kOffset);
  return sum;
}

template <int kOffset>
inline void QuantizeSmallRow(const float* x, int64_t k, const QuantizedRow* out) {
  const int64_t groups = k / kSmallBlockElems;
  for (int64_t g = 0; g < groups; ++g) {
    int8_t* q = out->q + g * kSmallBlockElems;
    out->d[g] = QuantizeGroup<kOffset>(x + g * kSmallBlockElems, kSmallBlockElems, q);
    out->sum[g] = out->d[g] * (float)SumOf<kOffset>(q, kSmallBlockElems);
  }
  if (groups % 2 != 0) {  // vector kernels read pairs of groups
    for (int i = 0; i < kSmallBlockElems; ++i) {
      out->q[groups * kSmallBlockElems + i] = (int8_t)kOffset;
    }
    out->d[groups] = out->sum[groups] = 0.0f;
  }
}

template <int kOffset>
inline void QuantizeSuperRow(const float* x, int64_t k, const QuantizedRow* out) {
  for (int64_t b = 0; b < k / kSuperBlockElems; ++b) {
    int8_t* q = out->q + b * kSuperBlockElems;
    out->d[b] = QuantizeGroup<kOffset>(x + b * kSuperBlockElems, kSuperBlockElems, q);
    for (int g = 0; g < kSubBlocks; ++g) {
      out->sums[b * kSubBlocks + g] =
          (int16_t)SumOf<kOffset>(q + g * kSubBlockElems, kSubBlockElems);
    }
  }
}

}  // namespace
}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_CPU_QUANTIZE_IMPL_H_
