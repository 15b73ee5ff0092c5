// What all tiles of panels share: where their vectors lie and what they ask of memory.
//
// Include after a vec_<isa>.h.
#ifndef THERMOCLINE_KERNELS_CPU_PANEL_TILE_IMPL_H_
#define THERMOCLINE_KERNELS_CPU_PANEL_TILE_IMPL_H_

#include "kernels/cpu/kernels.h"
#include "kernels/quant/panel_layout.h"

namespace thermocline {
namespace {

// The processor's own prefetching does not keep the memory busy alone, so a tile asks for weights
// ahead of their use: while it is at block b of its panels, for `step` bytes at base + p *
// panel_stride + b * step, for each panel p of the tile; from wrap_block on, wrap_skip bytes
// further.
struct Ahead {
  const uint8_t* base;
  int64_t panel_stride;
  int64_t step;
  int64_t wrap_block;
  int64_t wrap_skip;

  const uint8_t* At(int panel, int64_t b) const {
    return base + panel * panel_stride + b * step + (b >= wrap_block ? wrap_skip : 0);
  }
};

// Asks for part `part` of `parts` of `bytes`.
inline void PrefetchPart(const uint8_t* p, int64_t bytes, int part, int parts) {
  const uint8_t* end = p + bytes * (part + 1) / parts;
  for (p += bytes * part / parts; p < end; p += 64) __builtin_prefetch(p);
}

// Row vector v of the tile: `panels` plus this gives its panel, then its first row.
inline int64_t VectorPanel(int v) { return v * I32::kLanes / kPanelRows; }
inline int VectorRow(int v) { return v * I32::kLanes % kPanelRows; }

}  // namespace
}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_CPU_PANEL_TILE_IMPL_H_
