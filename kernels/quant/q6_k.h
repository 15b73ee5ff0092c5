// Q6_K: 256 weights in 210 bytes: w = d * s * (q - 32), an int8 scale s per 16.
//
// [128 bytes of low nibbles][64 bytes of high bit pairs][16 x int8 scales][f16 d]
// Half h, plane p (32 weights each): the nibble is in byte 64h + 32(p & 1) + l, low for p < 2; the
// pair is at bit 2p of byte 32h + l. Layout: ggml-common.h of llama.cpp; decoding: quants.py of
// gguf-py.
#ifndef THERMOCLINE_KERNELS_QUANT_Q6_K_H_
#define THERMOCLINE_KERNELS_QUANT_Q6_K_H_

#include "kernels/dtype.h"
#include "kernels/quant/blocks.h"

namespace thermocline {

struct FormatQ6K {
  static constexpr DType kDType = DType::kQ6_K;
  static constexpr const char* kName = "Q6_K";
  static constexpr int kBlockElems = kSuperBlockElems;
  static constexpr int kBlockBytes = 210;
  static constexpr bool kHasMin = false;
  static inline void Unpack(const uint8_t* block, SuperBlock* out) {
    const uint8_t* ql = block;
    const uint8_t* qh = block + 128;
    out->d = HalfToFloat(LoadU16(block + 208));
    out->dmin = 0.0f;
    for (int g = 0; g < kSubBlocks; ++g) {
      out->scale[g] = static_cast<int8_t>(block[192 + g]);
      out->min[g] = 0;
    }
    for (int h = 0; h < 2; ++h) {
      for (int p = 0; p < 4; ++p) {
        for (int l = 0; l < 32; ++l) {
          const uint8_t byte = ql[64 * h + 32 * (p & 1) + l];
          const int low = p < 2 ? byte & 0x0F : byte >> 4;
          const int top = (qh[32 * h + l] >> (2 * p)) & 3;
          out->q[128 * h + 32 * p + l] = static_cast<int8_t>((low | (top << 4)) - 32);
        }
      }
    }
  }

  // The panel form (kernels/quant/panels.h).
  static constexpr int kPlaneBits[] = {4, 2};
  static constexpr CodePosition Position(int plane, int k) {
    if (plane == 1) return {128 + 32 * (k / 128) + k % 32, 2 * (k / 32 % 4)};
    return {64 * (k / 128) + k % 64, 4 * (k / 64 % 2)};
  }
  static constexpr PanelField kFields[] = {{192, 16, 1}, {208, 1, 2}};
};

}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_QUANT_Q6_K_H_
