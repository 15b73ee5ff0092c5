// Q4_K: 256 weights in 144 bytes: w = d * s * q - dmin * m, 6-bit s and m per 32.
//
// [f16 d][f16 dmin][12 bytes of scales and mins][128 bytes: chunk c of 32 bytes holds weights 64c..
// in its low and 64c+32.. in its high nibbles] Layout: ggml-common.h of llama.cpp; decoding:
// quants.py of gguf-py.
#ifndef THERMOCLINE_KERNELS_QUANT_Q4_K_H_
#define THERMOCLINE_KERNELS_QUANT_Q4_K_H_

#include "kernels/dtype.h"
#include "kernels/quant/blocks.h"
#include "kernels/quant/k_scales.h"

namespace thermocline {

struct FormatQ4K {
  static constexpr DType kDType = DType::kQ4_K;
  static constexpr const char* kName = "Q4_K";
  static constexpr int kBlockElems = kSuperBlockElems;
  static constexpr int kBlockBytes = 144;
  static constexpr bool kHasMin = true;
  static inline void Unpack(const uint8_t* block, SuperBlock* out) {
    const uint8_t* qs = block + 16;
    out->d = HalfToFloat(LoadU16(block));
    out->dmin = HalfToFloat(LoadU16(block + 2));
    UnpackKScales(block + 4, out->scale, out->min);
    for (int c = 0; c < 4; ++c) {
      for (int l = 0; l < 32; ++l) {
        out->q[64 * c + l] = static_cast<int8_t>(qs[32 * c + l] & 0x0F);
        out->q[64 * c + 32 + l] = static_cast<int8_t>(qs[32 * c + l] >> 4);
      }
    }
  }

  // The panel form (kernels/quant/panels.h).
  static constexpr int kPlaneBits[] = {4};
  static constexpr CodePosition Position(int, int k) {
    return {16 + 32 * (k / 64) + k % 32, 4 * (k / 32 % 2)};
  }
  static constexpr PanelField kFields[] = {{4, 3, 4}, {0, 2, 2}};
};

}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_QUANT_Q4_K_H_
