// IQ4_XS: 256 weights in 136 bytes: w = d * (s - 32) * table[q], a 6-bit scale s per 32.
//
// [f16 d][u16 high scale bits][4 bytes of low scale nibbles][128 bytes of nibbles: group g of 32
// weights in bytes 16g..16g+15, low then high] Layout: ggml-common.h of llama.cpp; decoding:
// quants.py of gguf-py.
#ifndef THERMOCLINE_KERNELS_QUANT_IQ4_XS_H_
#define THERMOCLINE_KERNELS_QUANT_IQ4_XS_H_

#include "kernels/dtype.h"
#include "kernels/quant/blocks.h"
#include "kernels/quant/iq4_nl.h"

namespace thermocline {

struct FormatIq4Xs {
  static constexpr DType kDType = DType::kIQ4_XS;
  static constexpr const char* kName = "IQ4_XS";
  static constexpr int kBlockElems = kSuperBlockElems;
  static constexpr int kBlockBytes = 136;
  static constexpr bool kHasMin = false;
  static inline void Unpack(const uint8_t* block, SuperBlock* out) {
    const uint8_t* low = block + 4;
    const uint8_t* qs = block + 8;
    const unsigned high = LoadU16(block + 2);
    out->d = HalfToFloat(LoadU16(block));
    out->dmin = 0.0f;
    for (int g = 0; g < 8; ++g) {
      const int s = ((low[g / 2] >> (4 * (g & 1))) & 0x0F) | (((high >> (2 * g)) & 3) << 4);
      out->scale[2 * g] = out->scale[2 * g + 1] = static_cast<int16_t>(s - 32);
      out->min[2 * g] = out->min[2 * g + 1] = 0;
      for (int l = 0; l < 16; ++l) {
        out->q[32 * g + l] = kIq4NlValues[qs[16 * g + l] & 0x0F];
        out->q[32 * g + 16 + l] = kIq4NlValues[qs[16 * g + l] >> 4];
      }
    }
  }

  // The panel form (kernels/quant/panels.h).
  static constexpr int kPlaneBits[] = {4};
  static constexpr CodePosition Position(int, int k) {
    return {8 + 16 * (k / 32) + k % 16, 4 * (k / 16 % 2)};
  }
  static constexpr PanelField kFields[] = {{4, 1, 4}, {0, 2, 2}};
};

}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_QUANT_IQ4_XS_H_
