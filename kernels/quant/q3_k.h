// Q3_K: 256 weights in 110 bytes: w = d * (s - 32) * (q - 4), a 6-bit scale s per 16.
//
// [32 bytes of third bits][64 bytes of 2-bit weights][12 scale bytes][f16 d]
// The third bit of weight i is bit (i / 32) of byte i % 32. Scales: low nibbles of bytes 0..7, two
// high bits in bytes 8..11. Layout: ggml-common.h of llama.cpp; decoding: quants.py of gguf-py.
#ifndef THERMOCLINE_KERNELS_QUANT_Q3_K_H_
#define THERMOCLINE_KERNELS_QUANT_Q3_K_H_

#include "kernels/dtype.h"
#include "kernels/quant/blocks.h"

namespace thermocline {

struct FormatQ3K {
  static constexpr DType kDType = DType::kQ3_K;
  static constexpr const char* kName = "Q3_K";
  static constexpr int kBlockElems = kSuperBlockElems;
  static constexpr int kBlockBytes = 110;
  static constexpr bool kHasMin = false;
  static inline void Unpack(const uint8_t* block, SuperBlock* out) {
    const uint8_t* high = block;
    const uint8_t* qs = block + 32;
    const uint8_t* scales = block + 96;
    out->d = HalfToFloat(LoadU16(block + 108));
    out->dmin = 0.0f;
    for (int g = 0; g < kSubBlocks; ++g) {
      const int low = g < 8 ? scales[g] & 0x0F : scales[g - 8] >> 4;
      const int top = (scales[8 + (g & 3)] >> (2 * (g >> 2))) & 3;
      out->scale[g] = static_cast<int16_t>((low | (top << 4)) - 32);
      out->min[g] = 0;
    }
    for (int h = 0; h < 2; ++h) {
      for (int p = 0; p < 4; ++p) {
        for (int l = 0; l < 32; ++l) {
          const int low = (qs[32 * h + l] >> (2 * p)) & 3;
          const int third = (high[l] >> (4 * h + p)) & 1;
          out->q[128 * h + 32 * p + l] = static_cast<int8_t>((low | (third << 2)) - 4);
        }
      }
    }
  }

  // The panel form (kernels/quant/panels.h).
  static constexpr int kPlaneBits[] = {2, 1};
  static constexpr CodePosition Position(int plane, int k) {
    if (plane == 1) return {k % 32, k / 32};
    return {32 + 32 * (k / 128) + k % 32, 2 * (k / 32 % 4)};
  }
  static constexpr PanelField kFields[] = {{96, 3, 4}, {108, 1, 2}};
};

}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_QUANT_Q3_K_H_
