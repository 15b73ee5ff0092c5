// Panels of the block formats decoded to F32 panels, for products with f32 activations. Every
// weight is the number that the decoder of kernels/quant/decode.h gives.
//
// Include after a vec_<isa>.h.
#ifndef THERMOCLINE_KERNELS_CPU_PANEL_DECODE_IMPL_H_
#define THERMOCLINE_KERNELS_CPU_PANEL_DECODE_IMPL_H_

#include "kernels/cpu/panel_dot_impl.h"

namespace thermocline {
namespace {

// Weights kByte of four: scale * (code - offset) + plus.
template <class Format, int kByte>
inline void DecodeWeights(I32 codes, RowF32 scale, RowF32 plus, float* out) {
  constexpr int kOffset =
      Codes<Format>::kOffsetBits < 0 ? 0 : 1 << (Codes<Format>::kOffsetBits & 31);
  const RowF32 q = I32::Add(ByteOf<kByte>(codes), I32::Set(-kOffset)).ToFloat();
  RowF32 w = RowF32::Mul(scale, q);
  if constexpr (Format::kHasMin) w = RowF32::Add(w, plus);
  w.Store(out + kByte * kPanelRows);
}

// Rows [row, row + lanes), a part of one chunk of a block.
template <class Format, int kFirstStep, int kSteps>
inline __attribute__((always_inline)) void DecodeSteps(const uint8_t* block, int row, int chunk,
                                                       RowF32 scale, RowF32 plus, float* out) {
#pragma GCC unroll 8
  for (int step = kFirstStep; step < kFirstStep + kSteps; ++step) {
    const I32 codes = StepWeights<Format>(block + kStepWeights * row, chunk, step);
    float* four = out + (kChunkWeights * chunk + kStepWeights * step) * kPanelRows;
    DecodeWeights<Format, 0>(codes, scale, plus, four);
    DecodeWeights<Format, 1>(codes, scale, plus, four);
    DecodeWeights<Format, 2>(codes, scale, plus, four);
    DecodeWeights<Format, 3>(codes, scale, plus, four);
  }
}

template <class Format>
inline void DecodeSuper(const uint8_t* block, int row, float* out) {
  constexpr int kGroup = SubGroup<Format>(), kField = ScaleField<Format>();
  const RowF32 d = HalfField<Format, kField>(block, 0, row);
  SuperScales<Format> scales;
  ScaleReader<Format>::Read(block, row, &scales);
  RowF32 minus_dmin = RowF32::Zero();
  if constexpr (Format::kHasMin) {
    minus_dmin = RowF32::Mul(HalfField<Format, kField>(block, 1, row), RowF32::Set(-1.0f));
  }
  const auto scale = [&](int g) { return RowF32::Mul(d, I32::Load(scales.scale[g]).ToFloat()); };
  const auto plus = [&](int g) {
    if constexpr (!Format::kHasMin) return RowF32::Zero();
    const I32 pair = I32::Load(scales.min_pair[g / 2]);
    const I32 min =
        g % 2 == 0 ? I32::And(pair, I32::Set(0xFFFF)) : I32::template ShiftRight<16>(pair);
    return RowF32::Mul(minus_dmin, min.ToFloat());
  };
  for (int chunk = 0; chunk < kSuperBlockElems / kChunkWeights; ++chunk) {
    if constexpr (kGroup == kChunkWeights) {
      DecodeSteps<Format, 0, 8>(block, row, chunk, scale(chunk), plus(chunk), out);
    } else {
      DecodeSteps<Format, 0, 4>(block, row, chunk, scale(2 * chunk), plus(2 * chunk), out);
      DecodeSteps<Format, 4, 4>(block, row, chunk, scale(2 * chunk + 1), plus(2 * chunk + 1), out);
    }
  }
}

template <class Format>
void DecodePanel(const uint8_t* panel, int64_t k, float* out) {
  constexpr int kElems = Format::kBlockElems;
  for (int64_t b = 0; b < k / kElems; ++b) {
    const uint8_t* block = panel + b * PanelBlockBytes<Format>();
    for (int row = 0; row < kPanelRows; row += I32::kLanes) {
      float* first = out + b * kElems * kPanelRows + row;
      if constexpr (kElems == kSuperBlockElems) {
        DecodeSuper<Format>(block, row, first);
      } else {
        RowF32 plus = RowF32::Zero();
        if constexpr (Format::kHasMin) plus = HalfField<Format, 0>(block, 1, row);
        DecodeSteps<Format, 0, 8>(block, row, 0, SmallScale<Format>(block, row), plus, first);
      }
    }
  }
}

}  // namespace
}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_CPU_PANEL_DECODE_IMPL_H_
