// Block decoding to f32, made from a format's Unpack. Internal linkage: see float_bits.h.
#ifndef THERMOCLINE_KERNELS_QUANT_DECODE_H_
#define THERMOCLINE_KERNELS_QUANT_DECODE_H_

#include "kernels/quant/blocks.h"

namespace thermocline {

static inline void DecodeBlock(const SmallBlock& block, float* out) {
  for (int i = 0; i < kSmallBlockElems; ++i) {
    out[i] = block.d * static_cast<float>(block.q[i]) + block.m;
  }
}

static inline void DecodeBlock(const SuperBlock& block, float* out) {
  for (int g = 0; g < kSubBlocks; ++g) {
    const float scale = block.d * static_cast<float>(block.scale[g]);
    const float min = block.dmin * static_cast<float>(block.min[g]);
    for (int i = g * kSubBlockElems; i < (g + 1) * kSubBlockElems; ++i) {
      out[i] = scale * static_cast<float>(block.q[i]) - min;
    }
  }
}

template <int kElems>
struct BlockOf {
  typedef SmallBlock Type;
};
template <>
struct BlockOf<kSuperBlockElems> {
  typedef SuperBlock Type;
};

// Unpack, kept apart from what reads the result: g++ 12 at -O3 -mavx2 drops the stores of Q2_K's
// Unpack when both are inlined into one loop.
template <class Format, class Block>
static inline void UnpackBlock(const uint8_t* block, Block* out) {
  Format::Unpack(block, out);
  asm volatile("" : : "r"(out) : "memory");
}

// Writes num_blocks * Format::kBlockElems values.
template <class Format>
static void DecodeBlocks(const uint8_t* blocks, int64_t num_blocks, float* out) {
  typename BlockOf<Format::kBlockElems>::Type unpacked;
  for (int64_t b = 0; b < num_blocks; ++b) {
    UnpackBlock<Format>(blocks + b * Format::kBlockBytes, &unpacked);
    DecodeBlock(unpacked, out + b * Format::kBlockElems);
  }
}

}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_QUANT_DECODE_H_
