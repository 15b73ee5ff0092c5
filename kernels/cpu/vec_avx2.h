// Vector types for AVX2 with FMA and F16C: 8 lanes, integer dot products through 16-bit sums.
// Floats go in pairs of vectors, 16 lanes as at every level, so that sums over lanes are the same
// bits.
#ifndef THERMOCLINE_KERNELS_CPU_VEC_AVX2_H_
#define THERMOCLINE_KERNELS_CPU_VEC_AVX2_H_

#include <immintrin.h>

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/quantize_impl.h"
#include "kernels/quant/float_bits.h"

namespace thermocline {
namespace {

// Numbers of 8 rows, or half of an RowF32.
struct RowF32 {
  static constexpr int kLanes = 8;
  __m256 v;
  static RowF32 Zero() { return {_mm256_setzero_ps()}; }
  static RowF32 Set(float x) { return {_mm256_set1_ps(x)}; }
  static RowF32 Load(const float* p) { return {_mm256_loadu_ps(p)}; }
  static RowF32 LoadHalf(const uint8_t* p) {
    return {_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p))};
  }
  static RowF32 LoadBfloat16(const uint8_t* p) {
    const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)p));
    return {_mm256_castsi256_ps(_mm256_slli_epi32(wide, 16))};
  }
  void Store(float* p) const { _mm256_storeu_ps(p, v); }
  static RowF32 SetHalf(const uint8_t* p) {
    return {_mm256_broadcastss_ps(_mm_cvtph_ps(_mm_cvtsi32_si128(LoadU16(p))))};
  }
  static RowF32 LoadInt8(const uint8_t* p) {
    return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)p)))};
  }
  void StoreHalf(uint8_t* p) const {
    _mm_storeu_si128((__m128i*)p, _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
  }
  static RowF32 Add(RowF32 a, RowF32 b) { return {_mm256_add_ps(a.v, b.v)}; }
  static RowF32 Sub(RowF32 a, RowF32 b) { return {_mm256_sub_ps(a.v, b.v)}; }
  static RowF32 Mul(RowF32 a, RowF32 b) { return {_mm256_mul_ps(a.v, b.v)}; }
  static RowF32 Div(RowF32 a, RowF32 b) { return {_mm256_div_ps(a.v, b.v)}; }
  static RowF32 Max(RowF32 a, RowF32 b) { return {_mm256_max_ps(a.v, b.v)}; }
  static RowF32 Min(RowF32 a, RowF32 b) { return {_mm256_min_ps(a.v, b.v)}; }
  static RowF32 Fma(RowF32 a, RowF32 b, RowF32 c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
  static RowF32 Round(RowF32 a) {
    return {_mm256_round_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
  }
  // |n| <= 126: the exponent is built in place.
  static RowF32 ScaleByPowerOf2(RowF32 a, RowF32 n) {
    const __m256i exponent =
        _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n.v), _mm256_set1_epi32(127)), 23);
    return {_mm256_mul_ps(a.v, _mm256_castsi256_ps(exponent))};
  }
  // rows[i][j] <-> rows[j][i].
  static void Transpose(RowF32 rows[8]) {
    __m256 a[8], b[8];
    for (int i = 0; i < 8; i += 2) {
      a[i] = _mm256_unpacklo_ps(rows[i].v, rows[i + 1].v);
      a[i + 1] = _mm256_unpackhi_ps(rows[i].v, rows[i + 1].v);
    }
    for (int i = 0; i < 8; i += 4) {
      b[i] = _mm256_shuffle_ps(a[i], a[i + 2], 0x44);
      b[i + 1] = _mm256_shuffle_ps(a[i], a[i + 2], 0xEE);
      b[i + 2] = _mm256_shuffle_ps(a[i + 1], a[i + 3], 0x44);
      b[i + 3] = _mm256_shuffle_ps(a[i + 1], a[i + 3], 0xEE);
    }
    for (int j = 0; j < 4; ++j) {
      rows[j].v = _mm256_permute2f128_ps(b[j], b[4 + j], 0x20);
      rows[4 + j].v = _mm256_permute2f128_ps(b[j], b[4 + j], 0x31);
    }
  }
};

struct F32 {
  static constexpr int kLanes = 16;
  RowF32 low, high;

  static F32 Zero() { return {RowF32::Zero(), RowF32::Zero()}; }
  static F32 Set(float x) { return {RowF32::Set(x), RowF32::Set(x)}; }
  static F32 Load(const float* p) { return {RowF32::Load(p), RowF32::Load(p + 8)}; }
  static F32 LoadHalf(const uint8_t* p) { return {RowF32::LoadHalf(p), RowF32::LoadHalf(p + 16)}; }
  static F32 LoadBfloat16(const uint8_t* p) {
    return {RowF32::LoadBfloat16(p), RowF32::LoadBfloat16(p + 16)};
  }
  void Store(float* p) const {
    low.Store(p);
    high.Store(p + 8);
  }
  static F32 SetHalf(const uint8_t* p) {
    const RowF32 half = RowF32::SetHalf(p);
    return {half, half};
  }
  static F32 LoadInt8(const uint8_t* p) { return {RowF32::LoadInt8(p), RowF32::LoadInt8(p + 8)}; }
  void StoreHalf(uint8_t* p) const {
    low.StoreHalf(p);
    high.StoreHalf(p + 16);
  }
  static F32 Add(F32 a, F32 b) { return {RowF32::Add(a.low, b.low), RowF32::Add(a.high, b.high)}; }
  static F32 Sub(F32 a, F32 b) { return {RowF32::Sub(a.low, b.low), RowF32::Sub(a.high, b.high)}; }
  static F32 Mul(F32 a, F32 b) { return {RowF32::Mul(a.low, b.low), RowF32::Mul(a.high, b.high)}; }
  static F32 Div(F32 a, F32 b) { return {RowF32::Div(a.low, b.low), RowF32::Div(a.high, b.high)}; }
  static F32 Max(F32 a, F32 b) { return {RowF32::Max(a.low, b.low), RowF32::Max(a.high, b.high)}; }
  static F32 Min(F32 a, F32 b) { return {RowF32::Min(a.low, b.low), RowF32::Min(a.high, b.high)}; }
  static F32 Fma(F32 a, F32 b, F32 c) {
    return {RowF32::Fma(a.low, b.low, c.low), RowF32::Fma(a.high, b.high, c.high)};
  }
  static F32 Round(F32 a) { return {RowF32::Round(a.low), RowF32::Round(a.high)}; }
  static F32 ScaleByPowerOf2(F32 a, F32 n) {
    return {RowF32::ScaleByPowerOf2(a.low, n.low), RowF32::ScaleByPowerOf2(a.high, n.high)};
  }
  float Sum() const {
    const __m256 eight = _mm256_add_ps(low.v, high.v);
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
  }
  // rows[i][j] <-> rows[j][i]: quarters are turned, those off the diagonal change places.
  static void Transpose(F32 rows[16]) {
    RowF32 quarter[8], other[8];
    for (int i = 0; i < 8; ++i) quarter[i] = rows[i].low;
    RowF32::Transpose(quarter);
    for (int i = 0; i < 8; ++i) rows[i].low = quarter[i];
    for (int i = 0; i < 8; ++i) quarter[i] = rows[8 + i].high;
    RowF32::Transpose(quarter);
    for (int i = 0; i < 8; ++i) rows[8 + i].high = quarter[i];
    for (int i = 0; i < 8; ++i) quarter[i] = rows[i].high;
    RowF32::Transpose(quarter);
    for (int i = 0; i < 8; ++i) other[i] = rows[8 + i].low;
    for (int i = 0; i < 8; ++i) rows[8 + i].low = quarter[i];
    RowF32::Transpose(other);
    for (int i = 0; i < 8; ++i) rows[i].high = other[i];
  }
};

inline float SquareRoot(float x) { return _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(x))); }

// Integers of 8 rows.
struct I32 {
  static constexpr int kLanes = 8;
  __m256i v;
  static I32 Zero() { return {_mm256_setzero_si256()}; }
  static I32 Set(int32_t x) { return {_mm256_set1_epi32(x)}; }
  static I32 Load(const void* p) { return {_mm256_loadu_si256((const __m256i*)p)}; }
  static I32 Broadcast(const void* p) {
    int32_t word;
    memcpy(&word, p, sizeof(word));
    return {_mm256_set1_epi32(word)};
  }
  static I32 LoadInt8(const void* p) {
    return {_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)p))};
  }
  static I32 LoadUint8(const void* p) {
    return {_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)p))};
  }
  static I32 LoadUint16(const void* p) {
    return {_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)p))};
  }
  void Store(void* p) const { _mm256_storeu_si256((__m256i*)p, v); }
  static I32 And(I32 a, I32 b) { return {_mm256_and_si256(a.v, b.v)}; }
  static I32 Or(I32 a, I32 b) { return {_mm256_or_si256(a.v, b.v)}; }
  static I32 Xor(I32 a, I32 b) { return {_mm256_xor_si256(a.v, b.v)}; }
  static I32 Add(I32 a, I32 b) { return {_mm256_add_epi32(a.v, b.v)}; }
  static I32 Mul(I32 a, I32 b) { return {_mm256_mullo_epi32(a.v, b.v)}; }
  static I32 Min(I32 a, I32 b) { return {_mm256_min_epi32(a.v, b.v)}; }
  static I32 Max(I32 a, I32 b) { return {_mm256_max_epi32(a.v, b.v)}; }
  template <int kBits>
  static I32 ShiftLeft(I32 a) {
    return {_mm256_slli_epi32(a.v, kBits)};
  }
  template <int kBits>
  static I32 ShiftRight(I32 a) {
    return {_mm256_srli_epi32(a.v, kBits)};
  }
  static I32 Lookup(const uint8_t table[16], I32 codes) {
    const __m128i values = _mm_loadu_si128((const __m128i*)table);
    return {_mm256_shuffle_epi8(_mm256_broadcastsi128_si256(values), codes.v)};
  }
  // vpmaddubsw saturates at 16 bits, which two products of weights up to 128 do not reach. Larger
  // weights go in two parts.
  template <bool kFullRange>
  static I32 DotBytes(I32 acc, I32 w, I32 x) {
    const __m256i ones = _mm256_set1_epi16(1);
    if (kFullRange) {
      const __m256i low = _mm256_set1_epi8(0x7F);
      const __m256i top = _mm256_maddubs_epi16(_mm256_andnot_si256(low, w.v), x.v);
      acc.v = _mm256_add_epi32(acc.v, _mm256_madd_epi16(top, ones));
      w.v = _mm256_and_si256(w.v, low);
    }
    const __m256i pairs = _mm256_maddubs_epi16(w.v, x.v);
    return {_mm256_add_epi32(acc.v, _mm256_madd_epi16(pairs, ones))};
  }
  static I32 DotWords(I32 acc, I32 a, I32 b) {
    return {_mm256_add_epi32(acc.v, _mm256_madd_epi16(a.v, b.v))};
  }
  RowF32 BitsAsFloat() const { return {_mm256_castsi256_ps(v)}; }
  RowF32 ToFloat() const { return {_mm256_cvtepi32_ps(v)}; }
};

constexpr int kAttendRows = 4, kAttendVectors = 1;
constexpr int kPanelTokens = 2, kTilePanels = 1, kTileTokens = 2;

}  // namespace
}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_CPU_VEC_AVX2_H_
