// Q2_K: 256 weights in 84 bytes: w = d * (s & 15) * q - dmin * (s >> 4), a scale byte s per 16.
//
// [16 scale bytes][64 bytes of 2-bit weights][f16 d][f16 dmin]
// Half h (128 weights) uses bytes 32h..32h+31; plane p (2 bits at 2p) holds weights 128h + 32p ...
// Layout: ggml-common.h of llama.cpp; decoding: quants.py of gguf-py.
#ifndef THERMOCLINE_KERNELS_QUANT_Q2_K_H_
#define THERMOCLINE_KERNELS_QUANT_Q2_K_H_

#include "kernels/dtype.h"
#include "kernels/quant/blocks.h"

namespace thermocline {

struct FormatQ2K {
  static constexpr DType kDType = DType::kQ2_K;
  static constexpr const char* kName = "Q2_K";
  static constexpr int kBlockElems = kSuperBlockElems;
  static constexpr int kBlockBytes = 84;
  static constexpr bool kHasMin = true;
  static inline void Unpack(const uint8_t* block, SuperBlock* out) {
    const uint8_t* scales = block;
    const uint8_t* qs = block + 16;
    out->d = HalfToFloat(LoadU16(block + 80));
    out->dmin = HalfToFloat(LoadU16(block + 82));
    for (int g = 0; g < kSubBlocks; ++g) {
      out->scale[g] = scales[g] & 0x0F;
      out->min[g] = scales[g] >> 4;
    }
    for (int h = 0; h < 2; ++h) {
      for (int p = 0; p < 4; ++p) {
        for (int l = 0; l < 32; ++l) {
          out->q[128 * h + 32 * p + l] = static_cast<int8_t>((qs[32 * h + l] >> (2 * p)) & 3);
        }
      }
    }
  }

  // The panel form (kernels/quant/panels.h).
  static constexpr int kPlaneBits[] = {2};
  static constexpr CodePosition Position(int, int k) {
    return {16 + 32 * (k / 128) + k % 32, 2 * (k / 32 % 4)};
  }
  static constexpr PanelField kFields[] = {{0, 16, 1}, {80, 2, 2}};
};

}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_QUANT_Q2_K_H_
