#include "kernels/quant/panels.h"

#include <algorithm>
#include <cstring>

#include "kernels/check.h"
#include "kernels/quant/float_formats.h"
#include "kernels/quant/iq4_nl.h"
#include "kernels/quant/iq4_xs.h"
#include "kernels/quant/mxfp4.h"
#include "kernels/quant/q2_k.h"
#include "kernels/quant/q3_k.h"
#include "kernels/quant/q4_0.h"
#include "kernels/quant/q4_1.h"
#include "kernels/quant/q4_k.h"
#include "kernels/quant/q5_0.h"
#include "kernels/quant/q5_1.h"
#include "kernels/quant/q5_k.h"
#include "kernels/quant/q6_k.h"
#include "kernels/quant/q8_0.h"
#include "kernels/quant/registry.h"

namespace thermocline {
namespace {

constexpr int kVectorBytes = kPanelRows * kStepWeights;

uint32_t LoadU32(const uint8_t* p) {
  uint32_t value;
  std::memcpy(&value, p, sizeof(value));
  return value;
}

void StoreU32(uint32_t value, uint8_t* p) { std::memcpy(p, &value, sizeof(value)); }

// `bits` low bits of each byte.
constexpr uint32_t ByteMask(int bits) { return ((1u << bits) - 1) * 0x01010101u; }

// The four codes at a position, one a byte.
inline uint32_t LoadCodes(const uint8_t* block, CodePosition at, int bits) {
  const uint32_t word = LoadU32(block + at.byte) >> at.shift;
  if (!at.packed_bits) return word & ByteMask(bits);
  return ((word & 0x0Fu) * 0x00204081u) & 0x01010101u;  // bit i to byte i
}

inline void OrCodes(uint32_t codes, CodePosition at, uint8_t* block) {
  const uint32_t word = at.packed_bits ? ((codes * 0x01020408u) >> 24) & 0x0Fu : codes;
  StoreU32(LoadU32(block + at.byte) | (word << at.shift), block + at.byte);
}

template <class Format>
void PackBlock(const uint8_t* block, int row, uint8_t* panel) {
  for (int plane = 0; plane < CountOf(Format::kPlaneBits); ++plane) {
    const int bits = Format::kPlaneBits[plane], steps = 8 / bits;
    uint8_t* out = panel + PlaneOffset<Format>(plane) + row * kStepWeights;
#pragma GCC unroll 64
    for (int v = 0; v < Format::kBlockElems / (kStepWeights * steps); ++v) {
      uint32_t word = 0;
#pragma GCC unroll 8
      for (int s = 0; s < steps; ++s) {
        const CodePosition at = Format::Position(plane, kStepWeights * (v * steps + s));
        word |= LoadCodes(block, at, bits) << (bits * s);
      }
      StoreU32(word, out + v * kVectorBytes);
    }
  }
  for (int f = 0; f < CountOf(Format::kFields); ++f) {
    const PanelField field = Format::kFields[f];
    uint8_t* out = panel + FieldOffset<Format>(f) + row * field.unit_bytes;
    for (int i = 0; i < field.count; ++i) {
      std::memcpy(out + i * kPanelRows * field.unit_bytes,
                  block + field.offset + i * field.unit_bytes,
                  static_cast<size_t>(field.unit_bytes));
    }
  }
}

template <class Format>
void UnpackBlockOf(const uint8_t* panel, int row, uint8_t* block) {
  std::memset(block, 0, Format::kBlockBytes);
  for (int plane = 0; plane < CountOf(Format::kPlaneBits); ++plane) {
    const int bits = Format::kPlaneBits[plane], steps = 8 / bits;
    const uint8_t* in = panel + PlaneOffset<Format>(plane) + row * kStepWeights;
    for (int v = 0; v < Format::kBlockElems / (kStepWeights * steps); ++v) {
      const uint32_t word = LoadU32(in + v * kVectorBytes);
      for (int s = 0; s < steps; ++s) {
        OrCodes((word >> (bits * s)) & ByteMask(bits),
                Format::Position(plane, kStepWeights * (v * steps + s)), block);
      }
    }
  }
  for (int f = 0; f < CountOf(Format::kFields); ++f) {
    const PanelField field = Format::kFields[f];
    const uint8_t* in = panel + FieldOffset<Format>(f) + row * field.unit_bytes;
    for (int i = 0; i < field.count; ++i) {
      std::memcpy(block + field.offset + i * field.unit_bytes,
                  in + i * kPanelRows * field.unit_bytes, static_cast<size_t>(field.unit_bytes));
    }
  }
}

template <class Format>
void PackBlocks(const uint8_t* rows, int num_rows, int64_t cols, uint8_t* panel) {
  const int64_t num_blocks = cols / Format::kBlockElems;
  for (int64_t b = 0; b < num_blocks; ++b) {
    for (int r = 0; r < num_rows; ++r) {
      PackBlock<Format>(rows + (r * num_blocks + b) * Format::kBlockBytes, r,
                        panel + b * PanelBlockBytes<Format>());
    }
  }
}

template <class Format>
void UnpackBlocks(const uint8_t* panel, int row, int64_t cols, uint8_t* out) {
  for (int64_t b = 0; b < cols / Format::kBlockElems; ++b) {
    UnpackBlockOf<Format>(panel + b * PanelBlockBytes<Format>(), row,
                          out + b * Format::kBlockBytes);
  }
}

// Where weight i of row 0 of floats lies in a panel, in weights; row r is r * together further.
struct FloatPlace {
  int64_t first;
  int together;
};
inline FloatPlace PlaceOf(int64_t i, int64_t cols, int together) {
  if (i >= cols / together * together) together = 1;
  return {i / together * together * kPanelRows + i % together, together};
}

template <class Format>
void PackFloats(const uint8_t* rows, int num_rows, int64_t cols, uint8_t* panel) {
  constexpr int kBytes = Format::kBlockBytes;
  for (int64_t i = 0; i < cols; ++i) {
    const FloatPlace place = PlaceOf(i, cols, Format::kTogether);
    for (int r = 0; r < num_rows; ++r) {
      std::memcpy(panel + kBytes * (place.first + r * place.together),
                  rows + kBytes * (r * cols + i), kBytes);
    }
  }
}

template <class Format>
void UnpackFloats(const uint8_t* panel, int row, int64_t cols, uint8_t* out) {
  constexpr int kBytes = Format::kBlockBytes;
  for (int64_t i = 0; i < cols; ++i) {
    const FloatPlace place = PlaceOf(i, cols, Format::kTogether);
    std::memcpy(out + kBytes * i, panel + kBytes * (place.first + row * place.together), kBytes);
  }
}

struct PanelFormat {
  void (*pack)(const uint8_t* rows, int num_rows, int64_t cols, uint8_t* panel) = nullptr;
  void (*unpack)(const uint8_t* panel, int row, int64_t cols, uint8_t* out) = nullptr;
};

template <class Format>
void Add(PanelFormat* formats) {
  static_assert(IsPermutation<Format>());
  formats[static_cast<int>(Format::kDType)] = {&PackBlocks<Format>, &UnpackBlocks<Format>};
}

template <class Format>
void AddFloats(PanelFormat* formats) {
  formats[static_cast<int>(Format::kDType)] = {&PackFloats<Format>, &UnpackFloats<Format>};
}

struct PanelFormats {
  PanelFormat of[kNumDTypes];
  PanelFormats() {
    Add<FormatQ4_0>(of);
    Add<FormatQ4_1>(of);
    Add<FormatQ5_0>(of);
    Add<FormatQ5_1>(of);
    Add<FormatQ8_0>(of);
    Add<FormatQ2K>(of);
    Add<FormatQ3K>(of);
    Add<FormatQ4K>(of);
    Add<FormatQ5K>(of);
    Add<FormatQ6K>(of);
    Add<FormatIq4Nl>(of);
    Add<FormatIq4Xs>(of);
    Add<FormatMxfp4>(of);
    AddFloats<FormatF32>(of);
    AddFloats<FormatF16>(of);
    AddFloats<FormatBf16>(of);
  }
};

const PanelFormat& FormatOf(DType dtype) {
  static const PanelFormats formats;
  return formats.of[static_cast<int>(dtype)];
}

}  // namespace

bool HasPanels(DType dtype) { return FormatOf(dtype).pack != nullptr; }

int64_t PackedBytes(DType dtype, int64_t rows, int64_t cols) {
  return (rows + kPanelRows - 1) / kPanelRows * kPanelRows * BytesOf(dtype, cols);
}

void PackPanel(DType dtype, const uint8_t* rows, int num_rows, int64_t cols, uint8_t* panel) {
  TC_CHECK(HasPanels(dtype) && num_rows >= 1 && num_rows <= kPanelRows);
  const int64_t panel_bytes = PackedBytes(dtype, kPanelRows, cols);
  if (num_rows < kPanelRows) std::memset(panel, 0, static_cast<size_t>(panel_bytes));
  FormatOf(dtype).pack(rows, num_rows, cols, panel);
}

void PackRows(DType dtype, const uint8_t* rows, int64_t num_rows, int64_t cols, uint8_t* panels) {
  const int64_t row_bytes = BytesOf(dtype, cols);
  for (int64_t r = 0; r < num_rows; r += kPanelRows) {
    PackPanel(dtype, rows + r * row_bytes,
              static_cast<int>(std::min<int64_t>(kPanelRows, num_rows - r)), cols,
              panels + r * row_bytes);
  }
}

void UnpackRow(DType dtype, const uint8_t* panel, int row, int64_t cols, uint8_t* out) {
  TC_CHECK(HasPanels(dtype) && row >= 0 && row < kPanelRows);
  FormatOf(dtype).unpack(panel, row, cols, out);
}

}  // namespace thermocline
