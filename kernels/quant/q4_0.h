// Q4_0: 32 weights in 18 bytes: w = d * (q - 8).
//
// [f16 d][16 bytes: low nibbles are weights 0..15, high nibbles 16..31]
// Layout: ggml-common.h of llama.cpp; decoding: quants.py of gguf-py.
#ifndef THERMOCLINE_KERNELS_QUANT_Q4_0_H_
#define THERMOCLINE_KERNELS_QUANT_Q4_0_H_

#include "kernels/dtype.h"
#include "kernels/quant/blocks.h"

namespace thermocline {

struct FormatQ4_0 {
  static constexpr DType kDType = DType::kQ4_0;
  static constexpr const char* kName = "Q4_0";
  static constexpr int kBlockElems = kSmallBlockElems;
  static constexpr int kBlockBytes = 18;
  static constexpr bool kHasMin = false;
  static inline void Unpack(const uint8_t* block, SmallBlock* out) {
    const uint8_t* qs = block + 2;
    out->d = HalfToFloat(LoadU16(block));
    out->m = 0.0f;
    for (int i = 0; i < 16; ++i) {
      out->q[i] = static_cast<int8_t>((qs[i] & 0x0F) - 8);
      out->q[i + 16] = static_cast<int8_t>((qs[i] >> 4) - 8);
    }
  }

  // The panel form (kernels/quant/panels.h).
  static constexpr int kPlaneBits[] = {4};
  static constexpr CodePosition Position(int, int k) { return {2 + k % 16, 4 * (k / 16)}; }
  static constexpr PanelField kFields[] = {{0, 1, 2}};
};

}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_QUANT_Q4_0_H_
