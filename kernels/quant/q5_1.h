// Q5_1: 32 weights in 24 bytes: w = d * q + m.
//
// [f16 d][f16 m][u32 fifth bits][16 bytes of nibbles: low are weights 0..15, high 16..31]
// Layout: ggml-common.h of llama.cpp; decoding: quants.py of gguf-py.
#ifndef THERMOCLINE_KERNELS_QUANT_Q5_1_H_
#define THERMOCLINE_KERNELS_QUANT_Q5_1_H_

#include "kernels/dtype.h"
#include "kernels/quant/blocks.h"

namespace thermocline {

struct FormatQ5_1 {
  static constexpr DType kDType = DType::kQ5_1;
  static constexpr const char* kName = "Q5_1";
  static constexpr int kBlockElems = kSmallBlockElems;
  static constexpr int kBlockBytes = 24;
  static constexpr bool kHasMin = true;
  static inline void Unpack(const uint8_t* block, SmallBlock* out) {
    out->d = HalfToFloat(LoadU16(block));
    out->m = HalfToFloat(LoadU16(block + 2));
    uint32_t high;
    memcpy(&high, block + 4, sizeof(high));
    const uint8_t* qs = block + 8;
    for (int i = 0; i < 16; ++i) {
      const int low_bit = static_cast<int>((high >> i) & 1u) << 4;
      const int high_bit = static_cast<int>((high >> (i + 16)) & 1u) << 4;
      out->q[i] = static_cast<int8_t>(((qs[i] & 0x0F) | low_bit));
      out->q[i + 16] = static_cast<int8_t>(((qs[i] >> 4) | high_bit));
    }
  }

  // The panel form (kernels/quant/panels.h).
  static constexpr int kPlaneBits[] = {4, 1};
  static constexpr CodePosition Position(int plane, int k) {
    if (plane == 1) return {4, k, /*packed_bits=*/true};
    return {8 + k % 16, 4 * (k / 16)};
  }
  static constexpr PanelField kFields[] = {{0, 2, 2}};
};

}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_QUANT_Q5_1_H_
