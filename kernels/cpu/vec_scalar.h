// Vector types for the scalar level: plain C++. As at every level, a vector of floats has 16 lanes
// and Sum adds halves: sums over lanes are the same bits everywhere.
#ifndef THERMOCLINE_KERNELS_CPU_VEC_SCALAR_H_
#define THERMOCLINE_KERNELS_CPU_VEC_SCALAR_H_

#include <math.h>

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/quantize_impl.h"
#include "kernels/quant/float_bits.h"

namespace thermocline {
namespace {

// Sixteen floats, in memory: a loop over lanes each.
struct F32 {
  static constexpr int kLanes = 16;
  float v[kLanes];

  template <class Fn>
  static F32 Make(Fn fn) {
    F32 r;
    for (int i = 0; i < kLanes; ++i) r.v[i] = fn(i);
    return r;
  }
  static F32 Zero() { return Set(0.0f); }
  static F32 Set(float x) {
    return Make([&](int) { return x; });
  }
  static F32 Load(const float* p) {
    F32 r;
    memcpy(r.v, p, sizeof(r.v));
    return r;
  }
  static F32 LoadHalf(const uint8_t* p) {
    return Make([&](int i) { return HalfToFloat(LoadU16(p + 2 * i)); });
  }
  static F32 LoadBfloat16(const uint8_t* p) {
    return Make([&](int i) { return Bfloat16ToFloat(LoadU16(p + 2 * i)); });
  }
  void Store(float* p) const { memcpy(p, v, sizeof(v)); }
  static F32 SetHalf(const uint8_t* p) { return Set(HalfToFloat(LoadU16(p))); }
  static F32 LoadInt8(const uint8_t* p) {
    return Make([&](int i) { return (float)(int8_t)p[i]; });
  }
  void StoreHalf(uint8_t* p) const {
    for (int i = 0; i < kLanes; ++i) {
      const uint16_t bits = FloatToHalf(v[i]);
      memcpy(p + 2 * i, &bits, sizeof(bits));
    }
  }
  static F32 Add(const F32& a, const F32& b) {
    return Make([&](int i) { return a.v[i] + b.v[i]; });
  }
  static F32 Sub(const F32& a, const F32& b) {
    return Make([&](int i) { return a.v[i] - b.v[i]; });
  }
  static F32 Mul(const F32& a, const F32& b) {
    return Make([&](int i) { return a.v[i] * b.v[i]; });
  }
  static F32 Div(const F32& a, const F32& b) {
    return Make([&](int i) { return a.v[i] / b.v[i]; });
  }
  // Of both: b when either is NaN, as the instructions do.
  static F32 Max(const F32& a, const F32& b) {
    return Make([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
  }
  static F32 Min(const F32& a, const F32& b) {
    return Make([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; });
  }
  static F32 Fma(const F32& a, const F32& b, const F32& c) {
    return Make([&](int i) { return fmaf(a.v[i], b.v[i], c.v[i]); });
  }
  static F32 Round(const F32& a) {
    return Make([&](int i) { return nearbyintf(a.v[i]); });
  }
  // |n| <= 126; NaN stays NaN.
  static F32 ScaleByPowerOf2(const F32& a, const F32& n) {
    return Make([&](int i) { return a.v[i] != a.v[i] ? a.v[i] : ldexpf(a.v[i], (int)n.v[i]); });
  }
  float Sum() const {
    F32 s = *this;
    for (int width = kLanes / 2; width > 0; width /= 2) {
      for (int i = 0; i < width; ++i) s.v[i] += s.v[i + width];
    }
    return s.v[0];
  }
  static void Transpose(F32* rows) {
    for (int i = 0; i < kLanes; ++i) {
      for (int j = 0; j < i; ++j) {
        const float kept = rows[i].v[j];
        rows[i].v[j] = rows[j].v[i];
        rows[j].v[i] = kept;
      }
    }
  }
};

inline float SquareRoot(float x) { return sqrtf(x); }

typedef F32 RowF32;

struct I32 {
  static constexpr int kLanes = 16;
  int32_t v[16];

  template <class Fn>
  static I32 Make(Fn fn) {
    I32 r;
    for (int i = 0; i < kLanes; ++i) r.v[i] = (int32_t)fn(i);
    return r;
  }
  static I32 Zero() { return Set(0); }
  static I32 Set(int32_t x) {
    return Make([&](int) { return x; });
  }
  static I32 Load(const void* p) {
    I32 r;
    memcpy(r.v, p, sizeof(r.v));
    return r;
  }
  static I32 Broadcast(const void* p) {
    int32_t word;
    memcpy(&word, p, sizeof(word));
    return Set(word);
  }
  static I32 LoadInt8(const void* p) {
    return Make([&](int i) { return ((const int8_t*)p)[i]; });
  }
  static I32 LoadUint8(const void* p) {
    return Make([&](int i) { return ((const uint8_t*)p)[i]; });
  }
  static I32 LoadUint16(const void* p) {
    return Make([&](int i) { return LoadU16((const uint8_t*)p + 2 * i); });
  }
  void Store(void* p) const { memcpy(p, v, sizeof(v)); }
  static I32 And(const I32& a, const I32& b) {
    return Make([&](int i) { return a.v[i] & b.v[i]; });
  }
  static I32 Or(const I32& a, const I32& b) {
    return Make([&](int i) { return a.v[i] | b.v[i]; });
  }
  static I32 Xor(const I32& a, const I32& b) {
    return Make([&](int i) { return a.v[i] ^ b.v[i]; });
  }
  static I32 Add(const I32& a, const I32& b) {
    return Make([&](int i) { return a.v[i] + b.v[i]; });
  }
  static I32 Mul(const I32& a, const I32& b) {
    return Make([&](int i) { return a.v[i] * b.v[i]; });
  }
  static I32 Min(const I32& a, const I32& b) {
    return Make([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; });
  }
  static I32 Max(const I32& a, const I32& b) {
    return Make([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
  }
  template <int kBits>
  static I32 ShiftLeft(const I32& a) {
    return Make([&](int i) { return (uint32_t)a.v[i] << kBits; });
  }
  template <int kBits>
  static I32 ShiftRight(const I32& a) {
    return Make([&](int i) { return (uint32_t)a.v[i] >> kBits; });
  }
  static I32 Lookup(const uint8_t table[16], const I32& codes) {
    return Make([&](int i) {
      uint32_t r = 0;
      for (int b = 0; b < 32; b += 8) r |= (uint32_t)table[(codes.v[i] >> b) & 0x0F] << b;
      return r;
    });
  }
  template <bool kFullRange>
  static I32 DotBytes(const I32& acc, const I32& w, const I32& x) {
    return Make([&](int i) {
      int32_t sum = acc.v[i];
      for (int b = 0; b < 32; b += 8) {
        sum += (int32_t)(uint8_t)(w.v[i] >> b) * (int8_t)(x.v[i] >> b);
      }
      return sum;
    });
  }
  static I32 DotWords(const I32& acc, const I32& a, const I32& b) {
    return Make([&](int i) {
      return acc.v[i] + (int16_t)a.v[i] * (int16_t)b.v[i] + (a.v[i] >> 16) * (b.v[i] >> 16);
    });
  }
  RowF32 BitsAsFloat() const {
    RowF32 r;
    memcpy(r.v, v, sizeof(v));
    return r;
  }
  RowF32 ToFloat() const {
    RowF32 r;
    for (int i = 0; i < kLanes; ++i) r.v[i] = (float)v[i];
    return r;
  }
};

constexpr int kAttendRows = 1, kAttendVectors = 1;
constexpr int kPanelTokens = 1, kTilePanels = 1, kTileTokens = 1;

}  // namespace
}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_CPU_VEC_SCALAR_H_
