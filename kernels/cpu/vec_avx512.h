// Vector types for AVX-512 with VNNI: 16 float lanes, 64-byte integer dot products.
//
// vpdpbusd multiplies unsigned by signed bytes. For small blocks, activations are stored as q +
// 128, unsigned, so that weights keep their sign; the excess 128 * sum(w) is subtracted once per
// weight vector, exactly, in the accumulator's start value. For super-blocks the weights are made
// unsigned and activations keep their sign: the weights' offset times the sums of the activations
// joins the mins, which those formats have anyway.
#ifndef THERMOCLINE_KERNELS_CPU_VEC_AVX512_H_
#define THERMOCLINE_KERNELS_CPU_VEC_AVX512_H_

#include <immintrin.h>

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/quantize_impl.h"
#include "kernels/quant/decode.h"
#include "kernels/quant/iq4_nl.h"
#include "kernels/quant/mxfp4.h"
#include "kernels/quant/q4_0.h"
#include "kernels/quant/q4_1.h"
#include "kernels/quant/q4_k.h"
#include "kernels/quant/q5_0.h"
#include "kernels/quant/q5_1.h"
#include "kernels/quant/q5_k.h"
#include "kernels/quant/q6_k.h"
#include "kernels/quant/q8_0.h"

namespace thermocline {
namespace {

struct F32 {
  enum { kLanes = 16 };
  __m512 v;
  static F32 Zero() { return {_mm512_setzero_ps()}; }
  static F32 Set(float x) { return {_mm512_set1_ps(x)}; }
  static F32 Load(const float* p) { return {_mm512_loadu_ps(p)}; }
  static F32 LoadHalf(const uint8_t* p) {
    return {_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p))};
  }
  static F32 LoadBfloat16(const uint8_t* p) {
    const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p));
    return {_mm512_castsi512_ps(_mm512_slli_epi32(wide, 16))};
  }
  void Store(float* p) const { _mm512_storeu_ps(p, v); }
  static F32 Add(F32 a, F32 b) { return {_mm512_add_ps(a.v, b.v)}; }
  static F32 Sub(F32 a, F32 b) { return {_mm512_sub_ps(a.v, b.v)}; }
  static F32 Mul(F32 a, F32 b) { return {_mm512_mul_ps(a.v, b.v)}; }
  static F32 Div(F32 a, F32 b) { return {_mm512_div_ps(a.v, b.v)}; }
  static F32 Max(F32 a, F32 b) { return {_mm512_max_ps(a.v, b.v)}; }
  static F32 Min(F32 a, F32 b) { return {_mm512_min_ps(a.v, b.v)}; }
  static F32 Fma(F32 a, F32 b, F32 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
  static F32 Round(F32 a) { return {_mm512_roundscale_ps(a.v, 0)}; }
  static F32 ScaleByPowerOf2(F32 a, F32 n) { return {_mm512_scalef_ps(a.v, n.v)}; }
  float Sum() const { return _mm512_reduce_add_ps(v); }
};

inline float SquareRoot(float x) { return _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(x))); }

inline float LoadHalfScale(const uint8_t* p) {
  return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(LoadU16(p))));
}

// -128 * the sums of four neighbouring weights: cancels the activations' offset.
inline __m512i OffsetCorrection(__m512i weights) {
  const __m512i sums =
      _mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_set1_epi8((char)0x80), weights);
  return _mm512_sub_epi32(_mm512_setzero_si512(), sums);
}

// ---- small blocks: two of 32 weights a step, the first in the low half ----

enum { kSmallStep = 2 };

struct SmallWeights {
  __m512i q;
  __m512i correction;
  __m512 d;  // each half holds its block's scale
  __m512 m;  // lanes 0 and 8 hold the blocks' mins, the others 0
};

// 16 bytes of nibbles to 32 bytes: low nibbles, then high ones.
inline __m256i Nibbles(const uint8_t* p) {
  const __m128i bytes = _mm_loadu_si128((const __m128i*)p);
  const __m256i both = _mm256_set_m128i(_mm_srli_epi16(bytes, 4), bytes);
  return _mm256_and_si256(both, _mm256_set1_epi8(0x0F));
}

inline __m256i FifthBits(const uint8_t* p) {
  uint32_t bits;
  memcpy(&bits, p, sizeof(bits));
  return _mm256_maskz_set1_epi8(bits, 16);
}

inline __m256i Lookup(const int8_t table[16], __m256i codes) {
  const __m256i values = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i*)table));
  return _mm256_shuffle_epi8(values, codes);
}

struct SmallHalf {
  __m256i q;
  float d;
  float m;
};

template <class Format>
inline SmallHalf LoadHalfStep(const uint8_t* block);

template <>
inline SmallHalf LoadHalfStep<FormatQ4_0>(const uint8_t* b) {
  return {_mm256_sub_epi8(Nibbles(b + 2), _mm256_set1_epi8(8)), LoadHalfScale(b), 0.0f};
}
template <>
inline SmallHalf LoadHalfStep<FormatQ4_1>(const uint8_t* b) {
  return {Nibbles(b + 4), LoadHalfScale(b), LoadHalfScale(b + 2)};
}
template <>
inline SmallHalf LoadHalfStep<FormatQ5_0>(const uint8_t* b) {
  const __m256i q = _mm256_or_si256(Nibbles(b + 6), FifthBits(b + 2));
  return {_mm256_sub_epi8(q, _mm256_set1_epi8(16)), LoadHalfScale(b), 0.0f};
}
template <>
inline SmallHalf LoadHalfStep<FormatQ5_1>(const uint8_t* b) {
  return {_mm256_or_si256(Nibbles(b + 8), FifthBits(b + 4)), LoadHalfScale(b),
          LoadHalfScale(b + 2)};
}
template <>
inline SmallHalf LoadHalfStep<FormatQ8_0>(const uint8_t* b) {
  return {_mm256_loadu_si256((const __m256i*)(b + 2)), LoadHalfScale(b), 0.0f};
}
template <>
inline SmallHalf LoadHalfStep<FormatIq4Nl>(const uint8_t* b) {
  return {Lookup(kIq4NlValues, Nibbles(b + 2)), LoadHalfScale(b), 0.0f};
}
template <>
inline SmallHalf LoadHalfStep<FormatMxfp4>(const uint8_t* b) {
  return {Lookup(kMxfp4Values, Nibbles(b + 1)), E8m0ToHalfFloat(b[0]), 0.0f};
}

// Lanes 0..7 = low, 8..15 = high.
inline __m512 Halves(float low, float high) {
  return _mm512_mask_blend_ps(0xFF00, _mm512_set1_ps(low), _mm512_set1_ps(high));
}

template <class Format>
inline SmallWeights LoadSmall(const uint8_t* block, bool both) {
  const SmallHalf low = LoadHalfStep<Format>(block);
  SmallHalf high = {_mm256_setzero_si256(), 0.0f, 0.0f};
  if (both) high = LoadHalfStep<Format>(block + Format::kBlockBytes);
  SmallWeights w;
  w.q = _mm512_inserti64x4(_mm512_castsi256_si512(low.q), high.q, 1);
  w.correction = OffsetCorrection(w.q);
  w.d = Halves(low.d, high.d);
  if (Format::kHasMin) w.m = _mm512_maskz_mov_ps(0x0101, Halves(low.m, high.m));
  return w;
}

struct SmallAcc {
  __m512 sum = _mm512_setzero_ps();
};
inline float Finish(const SmallAcc& acc) { return _mm512_reduce_add_ps(acc.sum); }

template <bool kHasMin>
inline void AccumulateSmall(const SmallWeights& w, const QuantizedRow& x, int64_t b,
                            SmallAcc* acc) {
  const __m512i q = _mm512_loadu_si512(x.q + b * kSmallBlockElems);
  const __m512 dot = _mm512_cvtepi32_ps(_mm512_dpbusd_epi32(w.correction, q, w.q));
  acc->sum = _mm512_fmadd_ps(dot, _mm512_mul_ps(w.d, Halves(x.d[b], x.d[b + 1])), acc->sum);
  if (kHasMin) acc->sum = _mm512_fmadd_ps(w.m, Halves(x.sum[b], x.sum[b + 1]), acc->sum);
}

// ---- super-blocks: 256 weights in four vectors ----

struct SuperWeights {
  __m512i q[4];      // unsigned
  __m512i scale[4];  // one 32-bit scale a lane, for the sub-block of its four weights
  __m256i min;       // 16 x int16
  float d;
  float dmin;
};

// Spreads 16 scales (32-bit lanes) over the four vectors: lane l of vector i serves sub-block 4i +
// l / 4.
inline void SpreadScales(__m512i scales, __m512i out[4]) {
  const __m512i lane = _mm512_set_epi32(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0);
  for (int i = 0; i < 4; ++i) {
    out[i] = _mm512_permutexvar_epi32(_mm512_add_epi32(lane, _mm512_set1_epi32(4 * i)), scales);
  }
}

// Formats without mins: w = d * scale * (q + offset) - d * (scale * offset).
inline void SetOffsetMins(__m256i scales, int offset, SuperWeights* w) {
  w->min = _mm256_mullo_epi16(scales, _mm256_set1_epi16((short)offset));
  w->dmin = w->d;
}

template <class Format>
struct SuperLoader {
  // Makes the weights unsigned; the table of IQ4_XS reaches -127, Q3_K's weights -4.
  static constexpr int kOffset = Format::kHasMin ? 0 : 128;
  static inline void Load(const uint8_t* block, SuperWeights* w) {
    SuperBlock unpacked;
    UnpackBlock<Format>(block, &unpacked);
    for (int i = 0; i < 4; ++i) {
      w->q[i] =
          _mm512_add_epi8(_mm512_loadu_si512(unpacked.q + 64 * i), _mm512_set1_epi8((char)kOffset));
    }
    const __m256i scales = _mm256_loadu_si256((const __m256i*)unpacked.scale);
    SpreadScales(_mm512_cvtepi16_epi32(scales), w->scale);
    w->d = unpacked.d;
    if (Format::kHasMin) {
      w->min = _mm256_loadu_si256((const __m256i*)unpacked.min);
      w->dmin = unpacked.dmin;
    } else {
      SetOffsetMins(scales, kOffset, w);
    }
  }
};

// The 12 scale bytes of Q4_K and Q5_K: 8 scales in the low, 8 mins in the high half of the result,
// as bytes.
inline __m128i UnpackKScaleBytes(const uint8_t* packed) {
  uint32_t a, b, c;  // bytes 0..3, 4..7, 8..11
  memcpy(&a, packed, 4);
  memcpy(&b, packed + 4, 4);
  memcpy(&c, packed + 8, 4);
  const uint32_t scale_high = (c & 0x0F0F0F0Fu) | ((a >> 2) & 0x30303030u);
  const uint32_t min_high = ((c >> 4) & 0x0F0F0F0Fu) | ((b >> 2) & 0x30303030u);
  return _mm_set_epi32((int)min_high, (int)(b & 0x3F3F3F3Fu), (int)scale_high,
                       (int)(a & 0x3F3F3F3Fu));
}

inline void LoadKScales(const uint8_t* packed, SuperWeights* w) {
  const __m128i bytes = UnpackKScaleBytes(packed);
  const __m128i twice = _mm_set_epi8(7, 7, 6, 6, 5, 5, 4, 4, 3, 3, 2, 2, 1, 1, 0, 0);
  const __m128i twice_high = _mm_add_epi8(twice, _mm_set1_epi8(8));
  SpreadScales(_mm512_cvtepu8_epi32(_mm_shuffle_epi8(bytes, twice)), w->scale);
  w->min = _mm256_cvtepu8_epi16(_mm_shuffle_epi8(bytes, twice_high));
}

// 32 bytes of nibbles to 64: low nibbles, then high ones.
inline __m512i WideNibbles(const uint8_t* p) {
  const __m256i bytes = _mm256_loadu_si256((const __m256i*)p);
  const __m512i both =
      _mm512_inserti64x4(_mm512_castsi256_si512(bytes), _mm256_srli_epi16(bytes, 4), 1);
  return _mm512_and_si512(both, _mm512_set1_epi8(0x0F));
}

template <>
struct SuperLoader<FormatQ4K> {
  static inline void Load(const uint8_t* block, SuperWeights* w) {
    for (int i = 0; i < 4; ++i) w->q[i] = WideNibbles(block + 16 + 32 * i);
    LoadKScales(block + 4, w);
    w->d = LoadHalfScale(block);
    w->dmin = LoadHalfScale(block + 2);
  }
};

template <>
struct SuperLoader<FormatQ5K> {
  static inline void Load(const uint8_t* block, SuperWeights* w) {
    const __m256i high = _mm256_loadu_si256((const __m256i*)(block + 16));
    for (int i = 0; i < 4; ++i) {
      const __m512i planes = _mm512_inserti64x4(
          _mm512_castsi256_si512(_mm256_srl_epi16(high, _mm_cvtsi32_si128(2 * i))),
          _mm256_srl_epi16(high, _mm_cvtsi32_si128(2 * i + 1)), 1);
      const __m512i fifth = _mm512_slli_epi16(_mm512_and_si512(planes, _mm512_set1_epi8(1)), 4);
      w->q[i] = _mm512_or_si512(WideNibbles(block + 48 + 32 * i), fifth);
    }
    LoadKScales(block + 4, w);
    w->d = LoadHalfScale(block);
    w->dmin = LoadHalfScale(block + 2);
  }
};

template <>
struct SuperLoader<FormatQ6K> {
  static inline void Load(const uint8_t* block, SuperWeights* w) {
    for (int h = 0; h < 2; ++h) {
      const __m512i low = _mm512_loadu_si512(block + 64 * h);
      const __m256i pairs = _mm256_loadu_si256((const __m256i*)(block + 128 + 32 * h));
      const __m512i nibble = _mm512_set1_epi8(0x0F), top = _mm512_set1_epi8(0x30);
      // Planes 0 and 1 take pair bits 0-1 and 2-3, planes 2 and 3 bits 4-5 and 6-7, to bit 4.
      const __m512i first = _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_slli_epi16(pairs, 4)),
                                               _mm256_slli_epi16(pairs, 2), 1);
      const __m512i second =
          _mm512_inserti64x4(_mm512_castsi256_si512(pairs), _mm256_srli_epi16(pairs, 2), 1);
      const __m512i q0 =
          _mm512_or_si512(_mm512_and_si512(low, nibble), _mm512_and_si512(first, top));
      const __m512i q1 = _mm512_or_si512(_mm512_and_si512(_mm512_srli_epi16(low, 4), nibble),
                                         _mm512_and_si512(second, top));
      w->q[2 * h] = q0;
      w->q[2 * h + 1] = q1;
    }
    const __m128i scales = _mm_loadu_si128((const __m128i*)(block + 192));
    SpreadScales(_mm512_cvtepi8_epi32(scales), w->scale);
    w->d = LoadHalfScale(block + 208);
    SetOffsetMins(_mm256_cvtepi8_epi16(scales), 32, w);
  }
};

template <class Format>
constexpr bool IsWide() {
  // Sums of four products exceed 16 bits: the weights reach 128 or more.
  return Format::kDType == DType::kIQ4_XS || Format::kDType == DType::kQ3_K;
}

template <class Format>
inline SuperWeights LoadSuper(const uint8_t* block) {
  SuperWeights w;
  SuperLoader<Format>::Load(block, &w);
  if (!IsWide<Format>()) {
    // For vpdpwssd below: the scale in the low, zero in the high 16 bits of each lane.
    for (int i = 0; i < 4; ++i)
      w.scale[i] = _mm512_and_si512(w.scale[i], _mm512_set1_epi32(0xFFFF));
  }
  return w;
}

struct SuperAcc {
  __m512 sum = _mm512_setzero_ps();
  __m256 min = _mm256_setzero_ps();
};
inline float Finish(const SuperAcc& acc) {
  const __m512 min = _mm512_zextps256_ps512(acc.min);
  return _mm512_reduce_add_ps(_mm512_sub_ps(acc.sum, min));
}

template <class Format>
inline void AccumulateSuper(const SuperWeights& w, const QuantizedRow& x, int64_t b,
                            SuperAcc* acc) {
  const int8_t* q = x.q + b * kSuperBlockElems;
  __m512i dot = _mm512_setzero_si512();
  for (int i = 0; i < 4; ++i) {
    const __m512i part =
        _mm512_dpbusd_epi32(_mm512_setzero_si512(), w.q[i], _mm512_loadu_si512(q + 64 * i));
    // Otherwise |part| <= 4 * 63 * 127 fits the low 16 bits, and its sign extension meets a zero.
    dot = IsWide<Format>() ? _mm512_add_epi32(dot, _mm512_mullo_epi32(part, w.scale[i]))
                           : _mm512_dpwssd_epi32(dot, part, w.scale[i]);
  }
  const float d = x.d[b];
  acc->sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), _mm512_set1_ps(w.d * d), acc->sum);
  const __m256i sums = _mm256_loadu_si256((const __m256i*)(x.sums + b * kSubBlocks));
  const __m256 min = _mm256_cvtepi32_ps(_mm256_madd_epi16(sums, w.min));
  acc->min = _mm256_fmadd_ps(min, _mm256_set1_ps(w.dmin * d), acc->min);
}

// ---- activations ----

inline void QuantizeSmall(const float* x, int64_t k, const QuantizedRow* out) {
  QuantizeSmallRow<128>(x, k, out);
}
inline void QuantizeSuper(const float* x, int64_t k, const QuantizedRow* out) {
  QuantizeSuperRow<0>(x, k, out);
}

}  // namespace
}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_CPU_VEC_AVX512_H_
