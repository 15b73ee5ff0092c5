// Q8_0: 32 weights in 34 bytes: w = d * q.
//
// [f16 d][32 x int8]
// Layout: ggml-common.h of llama.cpp; decoding: quants.py of gguf-py.
#ifndef THERMOCLINE_KERNELS_QUANT_Q8_0_H_
#define THERMOCLINE_KERNELS_QUANT_Q8_0_H_

#include "kernels/dtype.h"
#include "kernels/quant/blocks.h"

namespace thermocline {

struct FormatQ8_0 {
  static constexpr DType kDType = DType::kQ8_0;
  static constexpr const char* kName = "Q8_0";
  static constexpr int kBlockElems = kSmallBlockElems;
  static constexpr int kBlockBytes = 34;
  static constexpr bool kHasMin = false;
  static inline void Unpack(const uint8_t* block, SmallBlock* out) {
    out->d = HalfToFloat(LoadU16(block));
    out->m = 0.0f;
    memcpy(out->q, block + 2, 32);
  }

  // The panel form (kernels/quant/panels.h).
  static constexpr int kPlaneBits[] = {8};
  static constexpr CodePosition Position(int, int k) { return {2 + k, 0}; }
  static constexpr PanelField kFields[] = {{0, 1, 2}};
};

}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_QUANT_Q8_0_H_
