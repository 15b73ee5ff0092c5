// Vector types for the scalar level: one lane, plain C++.
#ifndef THERMOCLINE_KERNELS_CPU_VEC_SCALAR_H_
#define THERMOCLINE_KERNELS_CPU_VEC_SCALAR_H_

#include <math.h>

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/quantize_impl.h"
#include "kernels/quant/decode.h"

namespace thermocline {
namespace {

struct F32 {
  enum { kLanes = 1 };
  float v;
  static F32 Zero() { return {0.0f}; }
  static F32 Set(float x) { return {x}; }
  static F32 Load(const float* p) { return {*p}; }
  static F32 LoadHalf(const uint8_t* p) { return {HalfToFloat(LoadU16(p))}; }
  static F32 LoadBfloat16(const uint8_t* p) { return {Bfloat16ToFloat(LoadU16(p))}; }
  void Store(float* p) const { *p = v; }
  static F32 Add(F32 a, F32 b) { return {a.v + b.v}; }
  static F32 Sub(F32 a, F32 b) { return {a.v - b.v}; }
  static F32 Mul(F32 a, F32 b) { return {a.v * b.v}; }
  static F32 Div(F32 a, F32 b) { return {a.v / b.v}; }
  static F32 Max(F32 a, F32 b) { return {a.v > b.v ? a.v : b.v}; }
  static F32 Min(F32 a, F32 b) { return {a.v < b.v ? a.v : b.v}; }
  static F32 Fma(F32 a, F32 b, F32 c) { return {a.v * b.v + c.v}; }
  static F32 Round(F32 a) { return {nearbyintf(a.v)}; }
  static F32 ScaleByPowerOf2(F32 a, F32 n) { return {ldexpf(a.v, (int)n.v)}; }
  float Sum() const { return v; }
};

inline float SquareRoot(float x) { return sqrtf(x); }

enum { kSmallStep = 1 };
typedef SmallBlock SmallWeights;
typedef SuperBlock SuperWeights;

struct SmallAcc {
  float sum = 0.0f;
};
struct SuperAcc {
  float sum = 0.0f;
};
inline float Finish(const SmallAcc& acc) { return acc.sum; }
inline float Finish(const SuperAcc& acc) { return acc.sum; }

template <class Format>
inline SmallWeights LoadSmall(const uint8_t* block, bool) {
  SmallWeights w;
  UnpackBlock<Format>(block, &w);
  return w;
}

template <class Format>
inline SuperWeights LoadSuper(const uint8_t* block) {
  SuperWeights w;
  UnpackBlock<Format>(block, &w);
  return w;
}

template <bool kHasMin>
inline void AccumulateSmall(const SmallWeights& w, const QuantizedRow& x, int64_t b,
                            SmallAcc* acc) {
  int32_t dot = 0;
  for (int i = 0; i < kSmallBlockElems; ++i) dot += w.q[i] * x.q[b * kSmallBlockElems + i];
  acc->sum += w.d * x.d[b] * (float)dot;
  if (kHasMin) acc->sum += w.m * x.sum[b];
}

template <class Format>
inline void AccumulateSuper(const SuperWeights& w, const QuantizedRow& x, int64_t b,
                            SuperAcc* acc) {
  int32_t dot = 0, min = 0;
  for (int g = 0; g < kSubBlocks; ++g) {
    int32_t part = 0;
    for (int i = g * kSubBlockElems; i < (g + 1) * kSubBlockElems; ++i) {
      part += w.q[i] * x.q[b * kSuperBlockElems + i];
    }
    dot += w.scale[g] * part;
    min += w.min[g] * x.sums[b * kSubBlocks + g];
  }
  acc->sum += w.d * x.d[b] * (float)dot;
  if (Format::kHasMin) acc->sum -= w.dmin * x.d[b] * (float)min;
}

inline void QuantizeSmall(const float* x, int64_t k, const QuantizedRow* out) {
  QuantizeSmallRow<0>(x, k, out);
}
inline void QuantizeSuper(const float* x, int64_t k, const QuantizedRow* out) {
  QuantizeSuperRow<0>(x, k, out);
}

}  // namespace
}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_CPU_VEC_SCALAR_H_
