// MXFP4: 32 weights in 17 bytes: w = 2^(e - 128) * table[q], FP4 (E2M1) values stored doubled.
//
// [u8 e][16 bytes: low nibbles are weights 0..15, high nibbles 16..31]
// Source: OCP Microscaling Formats 1.0, section 5. Layout: ggml-common.h of llama.cpp; decoding:
// quants.py of gguf-py.
#ifndef THERMOCLINE_KERNELS_QUANT_MXFP4_H_
#define THERMOCLINE_KERNELS_QUANT_MXFP4_H_

#include "kernels/dtype.h"
#include "kernels/quant/blocks.h"

namespace thermocline {

// Twice the FP4 values 0, 0.5, 1, 1.5, 2, 3, 4, 6, so that they are integers.
static constexpr int8_t kMxfp4Values[16] = {0, 1,  2,  3,  4,  6,  8,  12,
                                            0, -1, -2, -3, -4, -6, -8, -12};

struct FormatMxfp4 {
  static constexpr DType kDType = DType::kMXFP4;
  static constexpr const char* kName = "MXFP4";
  static constexpr int kBlockElems = kSmallBlockElems;
  static constexpr int kBlockBytes = 17;
  static constexpr bool kHasMin = false;
  static inline void Unpack(const uint8_t* block, SmallBlock* out) {
    const uint8_t* qs = block + 1;
    out->d = E8m0ToHalfFloat(block[0]);
    out->m = 0.0f;
    for (int i = 0; i < 16; ++i) {
      out->q[i] = kMxfp4Values[qs[i] & 0x0F];
      out->q[i + 16] = kMxfp4Values[qs[i] >> 4];
    }
  }

  // The panel form (kernels/quant/panels.h).
  static constexpr int kPlaneBits[] = {4};
  static constexpr CodePosition Position(int, int k) { return {1 + k % 16, 4 * (k / 16)}; }
  static constexpr PanelField kFields[] = {{0, 1, 1}};
};

}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_QUANT_MXFP4_H_
