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

// Rounds n values, whole blocks, for a KV cache: d = max|x| / 127 as f16, q = x / d to nearest
// even. (kernels/quant/quantize.h searches for better scales, at a price.)
static inline void EncodeQ8_0(const float* x, int64_t n, uint8_t* out) {
  for (int64_t b = 0; b < n / kSmallBlockElems; ++b, out += FormatQ8_0::kBlockBytes) {
    const float* in = x + b * kSmallBlockElems;
    float max = 0.0f;
    for (int i = 0; i < kSmallBlockElems; ++i) {
      const float magnitude = in[i] < 0.0f ? -in[i] : in[i];
      max = magnitude > max || magnitude != magnitude ? magnitude : max;  // NaN stays
    }
    const uint16_t half = FloatToHalf(max / 127.0f);
    const float d = HalfToFloat(half), inverse = d > 0.0f ? 1.0f / d : 0.0f;
    memcpy(out, &half, sizeof(half));
    for (int i = 0; i < kSmallBlockElems; ++i) {
      // Adding 1.5 * 2^23 leaves the rounded integer in the low mantissa bits.
      const uint32_t bits = FloatToBits(in[i] * inverse + 12582912.0f);
      const int q = static_cast<int>(bits & 0x7FFFFFu) - 0x400000;
      out[2 + i] = static_cast<uint8_t>(static_cast<int8_t>(q > 127 ? 127 : q < -127 ? -127 : q));
    }
  }
}

}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_QUANT_Q8_0_H_
