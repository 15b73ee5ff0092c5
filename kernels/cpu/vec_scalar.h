// Vector types for the scalar level: plain C++.
#ifndef THERMOCLINE_KERNELS_CPU_VEC_SCALAR_H_
#define THERMOCLINE_KERNELS_CPU_VEC_SCALAR_H_

#include <math.h>

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/quantize_impl.h"
#include "kernels/quant/float_bits.h"

namespace thermocline {
namespace {

struct F32 {
  static constexpr int kLanes = 1;
  float v;
  static F32 Zero() { return {0.0f}; }
  static F32 Set(float x) { return {x}; }
  static F32 Load(const float* p) { return {*p}; }
  static F32 LoadHalf(const uint8_t* p) { return {HalfToFloat(LoadU16(p))}; }
  static F32 LoadBfloat16(const uint8_t* p) { return {Bfloat16ToFloat(LoadU16(p))}; }
  void Store(float* p) const { *p = v; }
  static F32 SetHalf(const uint8_t* p) { return LoadHalf(p); }
  static F32 LoadInt8(const uint8_t* p) { return {(float)(int8_t)*p}; }
  void StoreHalf(uint8_t* p) const {
    const uint16_t bits = FloatToHalf(v);
    memcpy(p, &bits, sizeof(bits));
  }
  static F32 Add(F32 a, F32 b) { return {a.v + b.v}; }
  static F32 Sub(F32 a, F32 b) { return {a.v - b.v}; }
  static F32 Mul(F32 a, F32 b) { return {a.v * b.v}; }
  static F32 Div(F32 a, F32 b) { return {a.v / b.v}; }
  // Of both: b when either is NaN, as the instructions do.
  static F32 Max(F32 a, F32 b) { return {a.v > b.v ? a.v : b.v}; }
  static F32 Min(F32 a, F32 b) { return {a.v < b.v ? a.v : b.v}; }
  static F32 Fma(F32 a, F32 b, F32 c) { return {a.v * b.v + c.v}; }
  static F32 Round(F32 a) { return {nearbyintf(a.v)}; }
  static F32 ScaleByPowerOf2(F32 a, F32 n) { return {a.v != a.v ? a.v : ldexpf(a.v, (int)n.v)}; }
  float Sum() const { return v; }
  static void Transpose(F32*) {}
};

inline float SquareRoot(float x) { return sqrtf(x); }

// Numbers of 16 rows, in memory: a loop over lanes each.
struct RowF32 {
  float v[16];

  static RowF32 Zero() { return Set(0.0f); }
  static RowF32 Set(float x) {
    RowF32 r;
    for (float& lane : r.v) lane = x;
    return r;
  }
  static RowF32 Load(const float* p) {
    RowF32 r;
    memcpy(r.v, p, sizeof(r.v));
    return r;
  }
  static RowF32 LoadHalf(const uint8_t* p) {
    RowF32 r;
    for (int i = 0; i < 16; ++i) r.v[i] = HalfToFloat(LoadU16(p + 2 * i));
    return r;
  }
  void Store(float* p) const { memcpy(p, v, sizeof(v)); }
  static RowF32 Add(const RowF32& a, const RowF32& b) {
    RowF32 r;
    for (int i = 0; i < 16; ++i) r.v[i] = a.v[i] + b.v[i];
    return r;
  }
  static RowF32 Mul(const RowF32& a, const RowF32& b) {
    RowF32 r;
    for (int i = 0; i < 16; ++i) r.v[i] = a.v[i] * b.v[i];
    return r;
  }
  static RowF32 Fma(const RowF32& a, const RowF32& b, const RowF32& c) {
    RowF32 r;
    for (int i = 0; i < 16; ++i) r.v[i] = fmaf(a.v[i], b.v[i], c.v[i]);
    return r;
  }
};

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
