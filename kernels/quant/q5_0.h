// Q5_0: 32 weights in 22 bytes: w = d * (q - 16).
//
// [f16 d][u32 fifth bits][16 bytes of nibbles: low are weights 0..15, high 16..31]
// Layout: ggml-common.h of llama.cpp; decoding: quants.py of gguf-py.
#ifndef THERMOCLINE_KERNELS_QUANT_Q5_0_H_
#define THERMOCLINE_KERNELS_QUANT_Q5_0_H_

#include "kernels/dtype.h"
#include "kernels/quant/blocks.h"

namespace thermocline {

struct FormatQ5_0 {
  static constexpr DType kDType = DType::kQ5_0;
  static constexpr const char* kName = "Q5_0";
  static constexpr int kBlockElems = kSmallBlockElems;
  static constexpr int kBlockBytes = 22;
  static constexpr bool kHasMin = false;
  static inline void Unpack(const uint8_t* block, SmallBlock* out) {
    out->d = HalfToFloat(LoadU16(block));
    out->m = 0.0f;
    uint32_t high;
    memcpy(&high, block + 2, sizeof(high));
    const uint8_t* qs = block + 6;
    for (int i = 0; i < 16; ++i) {
      const int low_bit = static_cast<int>((high >> i) & 1u) << 4;
      const int high_bit = static_cast<int>((high >> (i + 16)) & 1u) << 4;
      out->q[i] = static_cast<int8_t>(((qs[i] & 0x0F) | low_bit) - 16);
      out->q[i + 16] = static_cast<int8_t>(((qs[i] >> 4) | high_bit) - 16);
    }
  }

  // The panel form (kernels/quant/panels.h).
  static constexpr int kPlaneBits[] = {4, 1};
  static constexpr CodePosition Position(int plane, int k) {
    if (plane == 1) return {2, k, /*packed_bits=*/true};
    return {6 + k % 16, 4 * (k / 16)};
  }
  static constexpr PanelField kFields[] = {{0, 1, 2}};
};

}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_QUANT_Q5_0_H_
