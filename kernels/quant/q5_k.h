// Q5_K: 256 weights in 176 bytes: w = d * s * q - dmin * m, 6-bit s and m per 32.
//
// [f16 d][f16 dmin][12 bytes of scales and mins][32 bytes of fifth bits][128 bytes of nibbles, as
// in Q4_K] The fifth bit of weight i is bit (i / 32) of byte i % 32. Layout: ggml-common.h of
// llama.cpp; decoding: quants.py of gguf-py.
#ifndef THERMOCLINE_KERNELS_QUANT_Q5_K_H_
#define THERMOCLINE_KERNELS_QUANT_Q5_K_H_

#include "kernels/dtype.h"
#include "kernels/quant/blocks.h"
#include "kernels/quant/k_scales.h"

namespace thermocline {

struct FormatQ5K {
  static constexpr DType kDType = DType::kQ5_K;
  static constexpr const char* kName = "Q5_K";
  static constexpr int kBlockElems = kSuperBlockElems;
  static constexpr int kBlockBytes = 176;
  static constexpr bool kHasMin = true;
  static inline void Unpack(const uint8_t* block, SuperBlock* out) {
    const uint8_t* high = block + 16;
    const uint8_t* qs = block + 48;
    out->d = HalfToFloat(LoadU16(block));
    out->dmin = HalfToFloat(LoadU16(block + 2));
    UnpackKScales(block + 4, out->scale, out->min);
    for (int c = 0; c < 4; ++c) {
      for (int l = 0; l < 32; ++l) {
        const int low = ((high[l] >> (2 * c)) & 1) << 4, top = ((high[l] >> (2 * c + 1)) & 1) << 4;
        out->q[64 * c + l] = static_cast<int8_t>((qs[32 * c + l] & 0x0F) | low);
        out->q[64 * c + 32 + l] = static_cast<int8_t>((qs[32 * c + l] >> 4) | top);
      }
    }
  }

  // The panel form (kernels/quant/panels.h).
  static constexpr int kPlaneBits[] = {4, 1};
  static constexpr CodePosition Position(int plane, int k) {
    if (plane == 1) return {16 + k % 32, k / 32};
    return {48 + 32 * (k / 64) + k % 32, 4 * (k / 32 % 2)};
  }
  static constexpr PanelField kFields[] = {{4, 3, 4}, {0, 2, 2}};
};

}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_QUANT_Q5_K_H_
