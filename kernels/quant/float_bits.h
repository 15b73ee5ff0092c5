// Conversions between f32 and the 16-bit and 8-bit float storage formats, in plain C++.
//
// Everything here has internal linkage on purpose: the instruction-set files include this header
// under different compiler flags, and a shared inline function compiled for AVX-512 must never be
// the copy that the linker picks for the rest of the program.
#ifndef THERMOCLINE_KERNELS_QUANT_FLOAT_BITS_H_
#define THERMOCLINE_KERNELS_QUANT_FLOAT_BITS_H_

#include <stdint.h>
#include <string.h>

namespace thermocline {

static inline float BitsToFloat(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof(value));
  return value;
}

static inline uint32_t FloatToBits(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof(bits));
  return bits;
}

// IEEE 754 binary16 to binary32, exact, subnormals and infinities included.
static inline float HalfToFloat(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t exponent = (half >> 10) & 0x1Fu;
  const uint32_t mantissa = half & 0x3FFu;
  if (exponent == 0) {
    const float magnitude = static_cast<float>(mantissa) * 5.9604644775390625e-8f;  // 2^-24
    return sign != 0 ? -magnitude : magnitude;
  }
  if (exponent == 31) return BitsToFloat(sign | 0x7F800000u | (mantissa << 13));
  return BitsToFloat(sign | ((exponent + 112) << 23) | (mantissa << 13));
}

// binary32 to binary16, round to nearest even, as the F16C instruction does.
static inline uint16_t FloatToHalf(float value) {
  const uint32_t bits = FloatToBits(value);
  const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  const uint32_t magnitude = bits & 0x7FFFFFFFu;
  if (magnitude > 0x7F800000u) return static_cast<uint16_t>(sign | 0x7E00u);   // NaN stays NaN
  if (magnitude >= 0x477FF000u) return static_cast<uint16_t>(sign | 0x7C00u);  // rounds to infinity
  if (magnitude < 0x38800000u) {                                               // subnormal or zero
    // Adding 0.5 leaves the rounded multiple of 2^-24 in the low mantissa bits.
    const float shifted = BitsToFloat(magnitude) + 0.5f;
    return static_cast<uint16_t>(sign | (FloatToBits(shifted) - 0x3F000000u));
  }
  const uint32_t rounded = magnitude + 0xFFFu + ((magnitude >> 13) & 1u);
  return static_cast<uint16_t>(sign | ((rounded - 0x38000000u) >> 13));
}

static inline float Bfloat16ToFloat(uint16_t value) {
  return BitsToFloat(static_cast<uint32_t>(value) << 16);
}

// binary32 to bfloat16, round to nearest even.
static inline uint16_t FloatToBfloat16(float value) {
  const uint32_t bits = FloatToBits(value);
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
}

// Half of the OCP E8M0 scale, 2^(e - 128): MXFP4 values are stored doubled, as integers.
static inline float E8m0ToHalfFloat(uint8_t exponent) {
  if (exponent < 2) return BitsToFloat(0x00200000u << exponent);  // 2^-128, 2^-127: subnormal
  return BitsToFloat(static_cast<uint32_t>(exponent - 1) << 23);
}

static inline uint16_t LoadU16(const uint8_t* bytes) {
  uint16_t value;
  memcpy(&value, bytes, sizeof(value));
  return value;
}

}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_QUANT_FLOAT_BITS_H_
