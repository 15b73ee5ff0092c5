// Where things lie in a packed panel of one format (kernels/quant/panels.h), computed at compile
// time. Internal linkage: see float_bits.h.
#ifndef THERMOCLINE_KERNELS_QUANT_PANEL_LAYOUT_H_
#define THERMOCLINE_KERNELS_QUANT_PANEL_LAYOUT_H_

#include <stdint.h>

#include "kernels/quant/blocks.h"

namespace thermocline {

static constexpr int kPanelRows = 16;   // rows of a panel
static constexpr int kStepWeights = 4;  // weights of a row in a 32-bit word

template <class T, int kCount>
static constexpr int CountOf(const T (&)[kCount]) {
  return kCount;
}

// Offset of bit plane `plane` in a panel's block.
template <class Format>
static constexpr int PlaneOffset(int plane) {
  int bits = 0;
  for (int i = 0; i < plane; ++i) bits += Format::kPlaneBits[i];
  return bits * Format::kBlockElems / 8 * kPanelRows;
}

// Offset of field `field`: fields follow the planes, each as [count][16 rows].
template <class Format>
static constexpr int FieldOffset(int field) {
  int offset = PlaneOffset<Format>(CountOf(Format::kPlaneBits));
  for (int i = 0; i < field; ++i) {
    offset += Format::kFields[i].count * Format::kFields[i].unit_bytes * kPanelRows;
  }
  return offset;
}

template <class Format>
static constexpr int PanelBlockBytes() {
  return kPanelRows * Format::kBlockBytes;
}

// A panel's block holds what the 16 blocks of the file hold, no more and no less.
template <class Format>
static constexpr bool IsPermutation() {
  return FieldOffset<Format>(CountOf(Format::kFields)) == PanelBlockBytes<Format>();
}

}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_QUANT_PANEL_LAYOUT_H_
