// Vector types for AVX2 with FMA and F16C: 8 float lanes, integer dot products through 16-bit
// products.
//
// Bytes are widened to 16 bits before vpmaddwd, which is exact for every format (vpmaddubsw would
// saturate).
#ifndef THERMOCLINE_KERNELS_CPU_VEC_AVX2_H_
#define THERMOCLINE_KERNELS_CPU_VEC_AVX2_H_

#include <immintrin.h>

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/quantize_impl.h"
#include "kernels/quant/decode.h"

namespace thermocline {
namespace {

struct F32 {
  enum { kLanes = 8 };
  __m256 v;
  static F32 Zero() { return {_mm256_setzero_ps()}; }
  static F32 Set(float x) { return {_mm256_set1_ps(x)}; }
  static F32 Load(const float* p) { return {_mm256_loadu_ps(p)}; }
  static F32 LoadHalf(const uint8_t* p) {
    return {_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p))};
  }
  static F32 LoadBfloat16(const uint8_t* p) {
    const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)p));
    return {_mm256_castsi256_ps(_mm256_slli_epi32(wide, 16))};
  }
  void Store(float* p) const { _mm256_storeu_ps(p, v); }
  static F32 Add(F32 a, F32 b) { return {_mm256_add_ps(a.v, b.v)}; }
  static F32 Sub(F32 a, F32 b) { return {_mm256_sub_ps(a.v, b.v)}; }
  static F32 Mul(F32 a, F32 b) { return {_mm256_mul_ps(a.v, b.v)}; }
  static F32 Div(F32 a, F32 b) { return {_mm256_div_ps(a.v, b.v)}; }
  static F32 Max(F32 a, F32 b) { return {_mm256_max_ps(a.v, b.v)}; }
  static F32 Min(F32 a, F32 b) { return {_mm256_min_ps(a.v, b.v)}; }
  static F32 Fma(F32 a, F32 b, F32 c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
  static F32 Round(F32 a) {
    return {_mm256_round_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
  }
  // |n| <= 126: the exponent is built in place.
  static F32 ScaleByPowerOf2(F32 a, F32 n) {
    const __m256i exponent =
        _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n.v), _mm256_set1_epi32(127)), 23);
    return {_mm256_mul_ps(a.v, _mm256_castsi256_ps(exponent))};
  }
  float Sum() const {
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
  }
};

inline float SquareRoot(float x) { return _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(x))); }

// 16 int8 as 16 int16.
inline __m256i Widen(const int8_t* p) {
  return _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i*)p));
}

enum { kSmallStep = 1 };

struct SmallWeights {
  __m256i low;   // weights 0..15 as int16
  __m256i high;  // weights 16..31
  float d;
  float m;
};

template <class Format>
inline SmallWeights LoadSmall(const uint8_t* block, bool) {
  SmallBlock unpacked;
  UnpackBlock<Format>(block, &unpacked);
  return {Widen(unpacked.q), Widen(unpacked.q + 16), unpacked.d, unpacked.m};
}

struct SmallAcc {
  __m256 sum = _mm256_setzero_ps();
  float min = 0.0f;
};
inline float Finish(const SmallAcc& acc) { return F32{acc.sum}.Sum() + acc.min; }

template <bool kHasMin>
inline void AccumulateSmall(const SmallWeights& w, const QuantizedRow& x, int64_t b,
                            SmallAcc* acc) {
  const int8_t* q = x.q + b * kSmallBlockElems;
  const __m256i dot = _mm256_add_epi32(_mm256_madd_epi16(w.low, Widen(q)),
                                       _mm256_madd_epi16(w.high, Widen(q + 16)));
  acc->sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), _mm256_set1_ps(w.d * x.d[b]), acc->sum);
  if (kHasMin) acc->min = acc->min + w.m * x.sum[b];
}

// Unpacked bytes stay in memory (L1): 16 sub-blocks do not fit the registers.
typedef SuperBlock SuperWeights;

template <class Format>
inline SuperWeights LoadSuper(const uint8_t* block) {
  SuperWeights w;
  UnpackBlock<Format>(block, &w);
  return w;
}

struct SuperAcc {
  __m256 sum = _mm256_setzero_ps();
  __m256 min = _mm256_setzero_ps();
};
inline float Finish(const SuperAcc& acc) { return F32{_mm256_sub_ps(acc.sum, acc.min)}.Sum(); }

template <class Format>
inline void AccumulateSuper(const SuperWeights& w, const QuantizedRow& x, int64_t b,
                            SuperAcc* acc) {
  const int8_t* q = x.q + b * kSuperBlockElems;
  __m256i dot = _mm256_setzero_si256();
  for (int g = 0; g < kSubBlocks; ++g) {
    const __m256i part =
        _mm256_madd_epi16(Widen(w.q + g * kSubBlockElems), Widen(q + g * kSubBlockElems));
    dot = _mm256_add_epi32(dot, _mm256_mullo_epi32(part, _mm256_set1_epi32(w.scale[g])));
  }
  const float d = x.d[b];
  acc->sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), _mm256_set1_ps(w.d * d), acc->sum);
  if (Format::kHasMin) {
    const __m256i sums = _mm256_loadu_si256((const __m256i*)(x.sums + b * kSubBlocks));
    const __m256i mins = _mm256_loadu_si256((const __m256i*)w.min);
    const __m256 min = _mm256_cvtepi32_ps(_mm256_madd_epi16(sums, mins));
    acc->min = _mm256_fmadd_ps(min, _mm256_set1_ps(w.dmin * d), acc->min);
  }
}

inline void QuantizeSmall(const float* x, int64_t k, const QuantizedRow* out) {
  QuantizeSmallRow<0>(x, k, out);
}
inline void QuantizeSuper(const float* x, int64_t k, const QuantizedRow* out) {
  QuantizeSuperRow<0>(x, k, out);
}

}  // namespace
}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_CPU_VEC_AVX2_H_
