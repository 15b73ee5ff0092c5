// The list of weight formats: sizes, names and the reference decoder of every DType.
#ifndef THERMOCLINE_KERNELS_QUANT_REGISTRY_H_
#define THERMOCLINE_KERNELS_QUANT_REGISTRY_H_

#include <cstdint>
#include <vector>

#include "absl/strings/string_view.h"
#include "kernels/dtype.h"

namespace thermocline {

struct WeightFormat {
  DType dtype;
  absl::string_view name;  // as llama.cpp spells it: "Q4_K"
  int block_elems;         // weights a block; a row holds whole blocks
  int block_bytes;
  // Writes num_blocks * block_elems f32 values, each within 1 ulp of gguf-py's decoder. Null for
  // I32.
  void (*decode)(const uint8_t* blocks, int64_t num_blocks, float* out);
};

// Any thread; never fails: every DType has an entry.
const WeightFormat& GetFormat(DType dtype);

// All formats in DType order.
const std::vector<WeightFormat>& AllFormats();

// Bytes of `num_elems` consecutive weights, which must be whole blocks.
int64_t BytesOf(DType dtype, int64_t num_elems);

// True for the block formats, false for F32, F16, BF16 and I32.
bool IsQuantized(DType dtype);

}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_QUANT_REGISTRY_H_
