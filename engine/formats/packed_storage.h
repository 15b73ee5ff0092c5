// Weights that a Hugging Face folder stores in two tensors, codes and scales, read as one.
#ifndef THERMOCLINE_ENGINE_FORMATS_PACKED_STORAGE_H_
#define THERMOCLINE_ENGINE_FORMATS_PACKED_STORAGE_H_

#include <cstdint>

#include "absl/status/status.h"
#include "engine/formats/checkpoint.h"

namespace thermocline {

inline constexpr int64_t kMxfp4BlockElems = 32;
inline constexpr int64_t kMxfp4CodeBytes = 16;  // of a block

// Codes and scales of `num_blocks` blocks, as the file holds them, to MXFP4 blocks of 17 bytes.
void JoinMxfp4(const uint8_t* codes, const uint8_t* scales, int64_t num_blocks, uint8_t* out);

struct ByteRange {
  int64_t offset = 0;
  int64_t bytes = 0;
};
// Where the scales of rows [first, first + count) lie in their file: those of whole rows of blocks.
ByteRange Fp8ScaleRange(const TensorInfo& tensor, int64_t first, int64_t count);
// Codes of rows [first, first + count), with the scales of Fp8ScaleRange, to BF16.
void DecodeFp8Rows(const TensorInfo& tensor, int64_t first, int64_t count, const uint8_t* codes,
                   const uint8_t* scales, uint16_t* out);

// Bytes [offset, offset + bytes) of the tensor as MXFP4 blocks of 17 bytes (kernels/quant/mxfp4.h).
// The file holds 16 bytes of codes a block, element 2i in the low and 2i + 1 in the high half of
// byte i, and the scales apart. Source: OCP Microscaling Formats 1.0; gpt-oss's checkpoints.
absl::Status ReadMxfp4Pair(const Checkpoint& checkpoint, const TensorInfo& tensor, int64_t offset,
                           int64_t bytes, uint8_t* destination);

// Bytes [offset, offset + bytes) of the tensor as BF16: code * scale of its block. Source:
// DeepSeek-V3's fp8_cast_bf16.py; OFP8 E4M3 (Micikevicius et al. 2022).
absl::Status ReadFp8Blocks(const Checkpoint& checkpoint, const TensorInfo& tensor, int64_t offset,
                           int64_t bytes, uint16_t* destination);

// The value of an OFP8 E4M3 code: no infinities, 0x7F and 0xFF are NaN.
float Fp8ToFloat(uint8_t code);

}  // namespace thermocline

#endif  // THERMOCLINE_ENGINE_FORMATS_PACKED_STORAGE_H_
