// IQ4_NL: 32 weights in 18 bytes: w = d * table[q], a non-linear 4-bit code.
//
// [f16 d][16 bytes: low nibbles are weights 0..15, high nibbles 16..31]
// Layout: ggml-common.h of llama.cpp; decoding: quants.py of gguf-py.
#ifndef THERMOCLINE_KERNELS_QUANT_IQ4_NL_H_
#define THERMOCLINE_KERNELS_QUANT_IQ4_NL_H_

#include "kernels/dtype.h"
#include "kernels/quant/blocks.h"

namespace thermocline {

// The 16 code values (kvalues_iq4nl of ggml-common.h), shared with IQ4_XS.
static constexpr int8_t kIq4NlValues[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                            1,    13,   25,  38,  53,  69,  89,  113};

struct FormatIq4Nl {
  static constexpr DType kDType = DType::kIQ4_NL;
  static constexpr const char* kName = "IQ4_NL";
  static constexpr int kBlockElems = kSmallBlockElems;
  static constexpr int kBlockBytes = 18;
  static constexpr bool kHasMin = false;
  static inline void Unpack(const uint8_t* block, SmallBlock* out) {
    const uint8_t* qs = block + 2;
    out->d = HalfToFloat(LoadU16(block));
    out->m = 0.0f;
    for (int i = 0; i < 16; ++i) {
      out->q[i] = kIq4NlValues[qs[i] & 0x0F];
      out->q[i + 16] = kIq4NlValues[qs[i] >> 4];
    }
  }

  // The panel form (kernels/quant/panels.h).
  static constexpr int kPlaneBits[] = {4};
  static constexpr CodePosition Position(int, int k) { return {2 + k % 16, 4 * (k / 16)}; }
  static constexpr PanelField kFields[] = {{0, 1, 2}};
};

}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_QUANT_IQ4_NL_H_
