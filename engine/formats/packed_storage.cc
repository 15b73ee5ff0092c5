#include "engine/formats/packed_storage.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/quant/float_bits.h"
#include "kernels/quant/registry.h"

namespace thermocline {
namespace {

constexpr int64_t kBlockBytes = 17;
constexpr int64_t kChunkBlocks = 1 << 16;  // read at a time
constexpr int64_t kChunkElems = 1 << 20;

absl::Status Unaligned(const TensorInfo& tensor) {
  return absl::InternalError(absl::StrCat("read of part of a block of tensor ", tensor.name));
}

}  // namespace

absl::Status ReadMxfp4Pair(const Checkpoint& checkpoint, const TensorInfo& tensor, int64_t offset,
                           int64_t bytes, uint8_t* destination) {
  if (offset % kBlockBytes != 0 || bytes % kBlockBytes != 0) return Unaligned(tensor);
  const int64_t end = (offset + bytes) / kBlockBytes;
  std::vector<uint8_t> codes, scales;
  for (int64_t first = offset / kBlockBytes; first < end; first += kChunkBlocks) {
    const int64_t count = std::min(kChunkBlocks, end - first);
    codes.resize(static_cast<size_t>(count * kMxfp4CodeBytes));
    scales.resize(static_cast<size_t>(count));
    absl::Status read =
        checkpoint.ReadFile(tensor.file_idx, tensor.offset + first * kMxfp4CodeBytes,
                            count * kMxfp4CodeBytes, codes.data());
    if (read.ok()) {
      read = checkpoint.ReadFile(tensor.scales_file_idx, tensor.scales_offset + first, count,
                                 scales.data());
    }
    if (!read.ok()) return read;
    JoinMxfp4(codes.data(), scales.data(), count, destination);
    destination += count * kBlockBytes;
  }
  return absl::OkStatus();
}

void JoinMxfp4(const uint8_t* codes, const uint8_t* scales, int64_t num_blocks, uint8_t* out) {
  for (int64_t b = 0; b < num_blocks; ++b) {
    const uint8_t* in = codes + b * kMxfp4CodeBytes;
    *out++ = scales[b];
    const auto code = [in](int64_t i) { return in[i / 2] >> (i % 2 * 4) & 0xF; };
    // Byte i of the block holds elements i and i + 16.
    for (int64_t i = 0; i < kMxfp4CodeBytes; ++i) {
      *out++ = static_cast<uint8_t>(code(i) | code(i + 16) << 4);
    }
  }
}

ByteRange Fp8ScaleRange(const TensorInfo& tensor, int64_t first, int64_t count) {
  const int64_t blocks = (tensor.shape[1] + tensor.scale_block_cols - 1) / tensor.scale_block_cols;
  const int64_t row_bytes = BytesOf(tensor.scales_dtype, blocks);
  const int64_t begin = first / tensor.scale_block_rows,
                end = (first + count - 1) / tensor.scale_block_rows + 1;
  return {tensor.scales_offset + begin * row_bytes, (end - begin) * row_bytes};
}

void DecodeFp8Rows(const TensorInfo& tensor, int64_t first, int64_t count, const uint8_t* codes,
                   const uint8_t* scales, uint16_t* out) {
  float values[256];
  for (int c = 0; c < 256; ++c) values[c] = Fp8ToFloat(static_cast<uint8_t>(c));
  const int64_t cols = tensor.shape[1], block_cols = tensor.scale_block_cols;
  const int64_t blocks = (cols + block_cols - 1) / block_cols;
  const int64_t row_bytes = BytesOf(tensor.scales_dtype, blocks);
  std::vector<float> scale(static_cast<size_t>(blocks));
  int64_t scale_row = -1;
  for (int64_t row = first; row < first + count; ++row) {
    if (row / tensor.scale_block_rows != scale_row) {
      scale_row = row / tensor.scale_block_rows;
      GetFormat(tensor.scales_dtype)
          .decode(scales + (scale_row - first / tensor.scale_block_rows) * row_bytes, blocks,
                  scale.data());
    }
    for (int64_t col = 0; col < cols; ++col) {
      *out++ = FloatToBfloat16(values[*codes++] * scale[static_cast<size_t>(col / block_cols)]);
    }
  }
}

float Fp8ToFloat(uint8_t code) {
  const int exponent = code >> 3 & 0xF, mantissa = code & 0x7;
  float value = exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -9)
                              : std::ldexp(static_cast<float>(8 + mantissa), exponent - 10);
  if (exponent == 15 && mantissa == 7) value = std::numeric_limits<float>::quiet_NaN();
  return code & 0x80 ? -value : value;
}

absl::Status ReadFp8Blocks(const Checkpoint& checkpoint, const TensorInfo& tensor, int64_t offset,
                           int64_t bytes, uint16_t* destination) {
  if (offset % 2 != 0 || bytes % 2 != 0) return Unaligned(tensor);
  float values[256];
  for (int c = 0; c < 256; ++c) values[c] = Fp8ToFloat(static_cast<uint8_t>(c));
  const int64_t cols = tensor.shape[1], block_cols = tensor.scale_block_cols;
  const int64_t blocks_per_row = (cols + block_cols - 1) / block_cols;
  const int64_t end = (offset + bytes) / 2;
  const WeightFormat& scale_format = GetFormat(tensor.scales_dtype);
  const int64_t scale_row_bytes = BytesOf(tensor.scales_dtype, blocks_per_row);
  std::vector<uint8_t> codes, stored_scales(static_cast<size_t>(scale_row_bytes));
  std::vector<float> scales(static_cast<size_t>(blocks_per_row));
  int64_t scale_row = -1;
  for (int64_t first = offset / 2; first < end; first += kChunkElems) {
    const int64_t count = std::min(kChunkElems, end - first);
    codes.resize(static_cast<size_t>(count));
    absl::Status read =
        checkpoint.ReadFile(tensor.file_idx, tensor.offset + first, count, codes.data());
    if (!read.ok()) return read;
    // Runs of weights in one block and row.
    for (int64_t i = 0; i < count;) {
      const int64_t row = (first + i) / cols, col = (first + i) % cols;
      if (row / tensor.scale_block_rows != scale_row) {
        scale_row = row / tensor.scale_block_rows;
        read = checkpoint.ReadFile(tensor.scales_file_idx,
                                   tensor.scales_offset + scale_row * scale_row_bytes,
                                   scale_row_bytes, stored_scales.data());
        if (!read.ok()) return read;
        scale_format.decode(stored_scales.data(), blocks_per_row, scales.data());
      }
      const int64_t block = col / block_cols;
      const int64_t run = std::min((block + 1) * block_cols, cols) - col;
      const float scale = scales[static_cast<size_t>(block)];
      for (const int64_t stop = std::min(i + run, count); i < stop; ++i)
        *destination++ = FloatToBfloat16(values[codes[static_cast<size_t>(i)]] * scale);
    }
  }
  return absl::OkStatus();
}

}  // namespace thermocline
