// The 6-bit scales and mins that Q4_K and Q5_K pack into 12 bytes, one pair per 32 weights.
//
// Pairs 0..3: low 6 bits of bytes 0..3 (scale) and 4..7 (min). Pairs 4..7: low and high nibbles of
// bytes 8..11 plus the two top bits of bytes 0..3 and 4..7. Source: get_scale_min_k4 of
// ggml-quants.c in llama.cpp.
#ifndef THERMOCLINE_KERNELS_QUANT_K_SCALES_H_
#define THERMOCLINE_KERNELS_QUANT_K_SCALES_H_

#include "kernels/quant/blocks.h"

namespace thermocline {

// Writes each of the 8 pairs twice, for the 16 sub-blocks of a SuperBlock.
static inline void UnpackKScales(const uint8_t packed[12], int16_t scale[16], int16_t min[16]) {
  for (int j = 0; j < 4; ++j) {
    const int16_t s = packed[j] & 63, m = packed[j + 4] & 63;
    scale[2 * j] = scale[2 * j + 1] = s;
    min[2 * j] = min[2 * j + 1] = m;
    const int16_t s4 = static_cast<int16_t>((packed[j + 8] & 0x0F) | ((packed[j] >> 6) << 4));
    const int16_t m4 = static_cast<int16_t>((packed[j + 8] >> 4) | ((packed[j + 4] >> 6) << 4));
    scale[2 * j + 8] = scale[2 * j + 9] = s4;
    min[2 * j + 8] = min[2 * j + 9] = m4;
  }
}

}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_QUANT_K_SCALES_H_
