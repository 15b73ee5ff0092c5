// Vector types for AVX-512 with VNNI: 16 float lanes, 64-byte integer dot products.
#ifndef THERMOCLINE_KERNELS_CPU_VEC_AVX512_H_
#define THERMOCLINE_KERNELS_CPU_VEC_AVX512_H_

#include <immintrin.h>

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/quantize_impl.h"
#include "kernels/quant/float_bits.h"

namespace thermocline {
namespace {

struct F32 {
  static constexpr int kLanes = 16;
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
  static F32 SetHalf(const uint8_t* p) {
    return {_mm512_broadcastss_ps(_mm_cvtph_ps(_mm_cvtsi32_si128(LoadU16(p))))};
  }
  static F32 LoadInt8(const uint8_t* p) {
    return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)p)))};
  }
  void StoreHalf(uint8_t* p) const {
    _mm256_storeu_si256((__m256i*)p, _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
  }
  static F32 Add(F32 a, F32 b) { return {_mm512_add_ps(a.v, b.v)}; }
  static F32 Sub(F32 a, F32 b) { return {_mm512_sub_ps(a.v, b.v)}; }
  static F32 Mul(F32 a, F32 b) { return {_mm512_mul_ps(a.v, b.v)}; }
  static F32 Div(F32 a, F32 b) { return {_mm512_div_ps(a.v, b.v)}; }
  static F32 Max(F32 a, F32 b) { return {_mm512_max_ps(a.v, b.v)}; }
  static F32 Min(F32 a, F32 b) { return {_mm512_min_ps(a.v, b.v)}; }
  static F32 Fma(F32 a, F32 b, F32 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
  static F32 Round(F32 a) { return {_mm512_roundscale_ps(a.v, 0)}; }
  static F32 ScaleByPowerOf2(F32 a, F32 n) { return {_mm512_scalef_ps(a.v, n.v)}; }
  float Sum() const {
    const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
  }
  // rows[i][j] <-> rows[j][i].
  static void Transpose(F32 rows[16]) {
    __m512 a[16], b[16];
    for (int i = 0; i < 16; i += 2) {
      a[i] = _mm512_unpacklo_ps(rows[i].v, rows[i + 1].v);
      a[i + 1] = _mm512_unpackhi_ps(rows[i].v, rows[i + 1].v);
    }
    for (int i = 0; i < 16; i += 4) {
      b[i] = Pairs<0x44>(a[i], a[i + 2]);
      b[i + 1] = Pairs<0xEE>(a[i], a[i + 2]);
      b[i + 2] = Pairs<0x44>(a[i + 1], a[i + 3]);
      b[i + 3] = Pairs<0xEE>(a[i + 1], a[i + 3]);
    }
    // Quarter q of b[4 g + j] holds rows 4 g .. 4 g + 3 of column 4 q + j.
    for (int j = 0; j < 4; ++j) {
      const __m512 low0 = _mm512_shuffle_f32x4(b[j], b[4 + j], 0x88);
      const __m512 low1 = _mm512_shuffle_f32x4(b[8 + j], b[12 + j], 0x88);
      const __m512 high0 = _mm512_shuffle_f32x4(b[j], b[4 + j], 0xDD);
      const __m512 high1 = _mm512_shuffle_f32x4(b[8 + j], b[12 + j], 0xDD);
      rows[j].v = _mm512_shuffle_f32x4(low0, low1, 0x88);
      rows[8 + j].v = _mm512_shuffle_f32x4(low0, low1, 0xDD);
      rows[4 + j].v = _mm512_shuffle_f32x4(high0, high1, 0x88);
      rows[12 + j].v = _mm512_shuffle_f32x4(high0, high1, 0xDD);
    }
  }
  template <int kControl>
  static __m512 Pairs(__m512 a, __m512 b) {
    return _mm512_shuffle_ps(a, b, kControl);
  }
};

inline float SquareRoot(float x) { return _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(x))); }

typedef F32 RowF32;

// Integers of 16 rows.
struct I32 {
  static constexpr int kLanes = 16;
  __m512i v;
  static I32 Zero() { return {_mm512_setzero_si512()}; }
  static I32 Set(int32_t x) { return {_mm512_set1_epi32(x)}; }
  static I32 Load(const void* p) { return {_mm512_loadu_si512(p)}; }
  // The same four bytes in every lane.
  static I32 Broadcast(const void* p) {
    int32_t word;
    memcpy(&word, p, sizeof(word));
    return {_mm512_set1_epi32(word)};
  }
  static I32 LoadInt8(const void* p) {
    return {_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)p))};
  }
  static I32 LoadUint8(const void* p) {
    return {_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)p))};
  }
  static I32 LoadUint16(const void* p) {
    return {_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p))};
  }
  void Store(void* p) const { _mm512_storeu_si512(p, v); }
  static I32 And(I32 a, I32 b) { return {_mm512_and_si512(a.v, b.v)}; }
  static I32 Or(I32 a, I32 b) { return {_mm512_or_si512(a.v, b.v)}; }
  static I32 Xor(I32 a, I32 b) { return {_mm512_xor_si512(a.v, b.v)}; }
  static I32 Add(I32 a, I32 b) { return {_mm512_add_epi32(a.v, b.v)}; }
  static I32 Mul(I32 a, I32 b) { return {_mm512_mullo_epi32(a.v, b.v)}; }
  static I32 Min(I32 a, I32 b) { return {_mm512_min_epi32(a.v, b.v)}; }
  static I32 Max(I32 a, I32 b) { return {_mm512_max_epi32(a.v, b.v)}; }
  template <int kBits>
  static I32 ShiftLeft(I32 a) {
    return {_mm512_slli_epi32(a.v, kBits)};
  }
  template <int kBits>
  static I32 ShiftRight(I32 a) {
    return {_mm512_srli_epi32(a.v, kBits)};
  }
  // table[code] for every byte, codes below 16.
  static I32 Lookup(const uint8_t table[16], I32 codes) {
    const __m128i values = _mm_loadu_si128((const __m128i*)table);
    return {_mm512_shuffle_epi8(_mm512_broadcast_i32x4(values), codes.v)};
  }
  // acc + the sum of four products of unsigned w with signed x, exact.
  template <bool kFullRange>
  static I32 DotBytes(I32 acc, I32 w, I32 x) {
    return {_mm512_dpbusd_epi32(acc.v, w.v, x.v)};
  }
  // acc + the sum of two products of int16.
  static I32 DotWords(I32 acc, I32 a, I32 b) { return {_mm512_dpwssd_epi32(acc.v, a.v, b.v)}; }
  F32 BitsAsFloat() const { return {_mm512_castsi512_ps(v)}; }
  F32 ToFloat() const { return {_mm512_cvtepi32_ps(v)}; }
};

// Tiles of the panel products, as many sums as fit into the registers: one panel and up to
// kPanelTokens tokens, or kTilePanels and up to kTileTokens.
constexpr int kAttendRows = 6, kAttendVectors = 4;  // of the attention tiles, likewise
constexpr int kPanelTokens = 12, kTilePanels = 2, kTileTokens = 6;

}  // namespace
}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_CPU_VEC_AVX512_H_
