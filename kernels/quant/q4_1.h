// Q4_1: 32 weights in 20 bytes: w = d * q + m.
//
// [f16 d][f16 m][16 bytes: low nibbles are weights 0..15, high nibbles 16..31]
// Layout: ggml-common.h of llama.cpp; decoding: quants.py of gguf-py.
#ifndef THERMOCLINE_KERNELS_QUANT_Q4_1_H_
#define THERMOCLINE_KERNELS_QUANT_Q4_1_H_

#include "kernels/dtype.h"
#include "kernels/quant/blocks.h"

namespace thermocline {

struct FormatQ4_1 {
  static constexpr DType kDType = DType::kQ4_1;
  static constexpr const char* kName = "Q4_1";
  static constexpr int kBlockElems = kSmallBlockElems;
  static constexpr int kBlockBytes = 20;
  static constexpr bool kHasMin = true;
  static inline void Unpack(const uint8_t* block, SmallBlock* out) {
    const uint8_t* qs = block + 4;
    out->d = HalfToFloat(LoadU16(block));
    out->m = HalfToFloat(LoadU16(block + 2));
    for (int i = 0; i < 16; ++i) {
      out->q[i] = static_cast<int8_t>(qs[i] & 0x0F);
      out->q[i + 16] = static_cast<int8_t>(qs[i] >> 4);
    }
  }

  // The panel form (kernels/quant/panels.h).
  static constexpr int kPlaneBits[] = {4};
  static constexpr CodePosition Position(int, int k) { return {4 + k % 16, 4 * (k / 16)}; }
  static constexpr PanelField kFields[] = {{0, 2, 2}};
};

}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_QUANT_Q4_1_H_
