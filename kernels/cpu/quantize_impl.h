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

// Writes n rounded values and returns the scale.
inline float QuantizeGroup(const float* x, int n, int8_t* q) {
  const float max = MaxAbs(x, n);
  const float inverse = max > 0.0f ? 127.0f / max : 0.0f;
  for (int i = 0; i < n; ++i) q[i] = (int8_t)RoundToInt(x[i] * inverse);
  return max / 127.0f;
}

inline int SumOf(const int8_t* q, int n) {
  int sum = 0;
  for (int i = 0; i < n; ++i) sum += q[i];
  return sum;
}

void QuantizeSmall(const float* x, int64_t k, SmallRecord* out) {
  for (int64_t g = 0; g < k / kSmallBlockElems; ++g) {
    SmallRecord* record = out + g;
    record->d = QuantizeGroup(x + g * kSmallBlockElems, kSmallBlockElems, record->q);
    const int sum = SumOf(record->q, kSmallBlockElems);
    record->sum = record->d * (float)sum;
    record->minus_sum = -sum;
  }
}

void QuantizeSuper(const float* x, int64_t k, SuperRecord* out) {
  for (int64_t b = 0; b < k / kSuperBlockElems; ++b) {
    SuperRecord* record = out + b;
    record->d = QuantizeGroup(x + b * kSuperBlockElems, kSuperBlockElems, record->q);
    for (int g = 0; g < kSubBlocks; ++g) {
      const int sum = SumOf(record->q + g * kSubBlockElems, kSubBlockElems);
      record->sum16[g] = (int16_t)sum;
      record->minus_sum[g] = -sum;
    }
    for (int g = 0; g < kSubBlocks / 2; ++g) {
      record->sum32[g] = (int16_t)(record->sum16[2 * g] + record->sum16[2 * g + 1]);
    }
  }
}

}  // namespace
}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_CPU_QUANTIZE_IMPL_H_
