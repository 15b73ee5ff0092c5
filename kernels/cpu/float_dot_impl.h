// Products of F32, F16 and BF16 panels with f32 activations, written once over the vectors of
// vec_<isa>.h.
//
//   y[r] = sum over blocks of 32 weights: (sum of even w x) + (sum of odd w x)
//
// Weights become f32 exactly; each of the two sums takes one fused multiply-add a weight, in
// ascending k, and blocks follow in ascending k: the same bits in every tile and at every level.
//
// Include after a vec_<isa>.h.
#ifndef THERMOCLINE_KERNELS_CPU_FLOAT_DOT_IMPL_H_
#define THERMOCLINE_KERNELS_CPU_FLOAT_DOT_IMPL_H_

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/panel_tile_impl.h"
#include "kernels/quant/float_formats.h"

namespace thermocline {
namespace {

constexpr int kFloatBlock = 32;  // weights

// Weights 2 i and 2 i + 1 of the rows of one vector. `panel` is the panel's address plus that of
// the vector's first row in a group of kTogether.
template <class Format>
inline void LoadPair(const uint8_t* panel, int64_t i, RowF32* even, RowF32* odd);

template <>
inline void LoadPair<FormatF32>(const uint8_t* panel, int64_t i, RowF32* even, RowF32* odd) {
  const float* w = (const float*)panel + 2 * kPanelRows * i;
  *even = RowF32::Load(w);
  *odd = RowF32::Load(w + kPanelRows);
}

template <>
inline void LoadPair<FormatF16>(const uint8_t* panel, int64_t i, RowF32* even, RowF32* odd) {
  *even = RowF32::LoadHalf(panel + 4 * kPanelRows * i);
  *odd = RowF32::LoadHalf(panel + 4 * kPanelRows * i + 2 * kPanelRows);
}

template <>
inline void LoadPair<FormatBf16>(const uint8_t* panel, int64_t i, RowF32* even, RowF32* odd) {
  const I32 both = I32::Load(panel + 4 * kPanelRows * i);
  *even = I32::template ShiftLeft<16>(both).BitsAsFloat();
  *odd = I32::And(both, I32::Set((int32_t)0xFFFF0000u)).BitsAsFloat();
}

// The last weight of an odd k.
template <class Format>
inline RowF32 LoadLast(const uint8_t* panels, int64_t k, int row) {
  const uint8_t* last = panels + Format::kBlockBytes * (kPanelRows * (k - 1) + row);
  if constexpr (Format::kDType == DType::kF32) {
    return RowF32::Load((const float*)last);
  } else if constexpr (Format::kDType == DType::kF16) {
    return RowF32::LoadHalf(last);
  } else {
    return I32::template ShiftLeft<16>(I32::LoadUint16(last)).BitsAsFloat();
  }
}

// Adds to `out`.
template <class Format, int kVectors, int kTokens>
void FloatTile(const uint8_t* panels, int64_t k, const Ahead& ahead, const void* const* x,
               float (*out)[kVectors * I32::kLanes]) {
  constexpr int kPanels = kVectors * I32::kLanes / kPanelRows;
  const uint8_t *panel[kVectors], *vector[kVectors];
#pragma GCC unroll 2
  for (int v = 0; v < kVectors; ++v) {
    panel[v] = panels + VectorPanel(v) * Format::kBlockBytes * kPanelRows * k;
    vector[v] = panel[v] + Format::kBlockBytes * Format::kTogether * VectorRow(v);
  }
  for (int64_t begin = 0; begin < k; begin += kFloatBlock) {
    const int64_t end = begin + kFloatBlock < k ? begin + kFloatBlock : k;
    for (int p = 0; p < kPanels; ++p) {
      PrefetchPart(ahead.At(p, begin / kFloatBlock), ahead.step, 0, 1);
    }
    RowF32 even[kTokens][kVectors], odd[kTokens][kVectors];
#pragma GCC unroll 12
    for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) even[t][v] = odd[t][v] = RowF32::Zero();
    }
#pragma GCC unroll 2
    for (int64_t i = begin / 2; i < end / 2; ++i) {
      RowF32 w0[kVectors], w1[kVectors];
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) LoadPair<Format>(vector[v], i, &w0[v], &w1[v]);
#pragma GCC unroll 12
      for (int t = 0; t < kTokens; ++t) {
        const float* pair = (const float*)x[t] + 2 * i;
        const RowF32 x0 = RowF32::Set(pair[0]), x1 = RowF32::Set(pair[1]);
#pragma GCC unroll 2
        for (int v = 0; v < kVectors; ++v) {
          even[t][v] = RowF32::Fma(w0[v], x0, even[t][v]);
          odd[t][v] = RowF32::Fma(w1[v], x1, odd[t][v]);
        }
      }
    }
    if (end % 2 != 0) {
      for (int v = 0; v < kVectors; ++v) {
        const RowF32 w = LoadLast<Format>(panel[v], k, VectorRow(v));
        for (int t = 0; t < kTokens; ++t) {
          even[t][v] = RowF32::Fma(w, RowF32::Set(((const float*)x[t])[k - 1]), even[t][v]);
        }
      }
    }
#pragma GCC unroll 12
    for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) {
        float* sum = &out[t][v * I32::kLanes];
        RowF32::Add(RowF32::Load(sum), RowF32::Add(even[t][v], odd[t][v])).Store(sum);
      }
    }
  }
}

}  // namespace
}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_CPU_FLOAT_DOT_IMPL_H_
