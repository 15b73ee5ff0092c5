// Cuts a product of panels with tokens into tiles (panel_dot_impl.h, float_dot_impl.h).
//
// Include after a vec_<isa>.h.
#ifndef THERMOCLINE_KERNELS_CPU_PANEL_DRIVER_IMPL_H_
#define THERMOCLINE_KERNELS_CPU_PANEL_DRIVER_IMPL_H_

#include "kernels/cpu/float_dot_impl.h"
#include "kernels/cpu/panel_dot_impl.h"

namespace thermocline {
namespace {

// What the tiles of the same panels share.
template <class Format, int kVectors>
struct PanelScales {
  static constexpr int kMaxBlocks = 16;  // longer rows decode their scales in every tile

  static bool Fits(int64_t num_blocks) { return num_blocks <= kMaxBlocks; }
  void Read(const uint8_t* panels, int64_t num_blocks) {
    for (int64_t b = 0; b < num_blocks; ++b) {
      for (int v = 0; v < kVectors; ++v) {
        const uint8_t* block =
            panels + (VectorPanel(v) * num_blocks + b) * PanelBlockBytes<Format>();
        ScaleReader<Format>::Read(block, VectorRow(v), &of[b * kVectors + v]);
      }
    }
  }

  SuperScales<Format> of[kMaxBlocks * kVectors];
};

struct NoScales {};
template <class Format, int kVectors, bool kSuper = Format::kBlockElems == kSuperBlockElems>
struct ScratchOf {
  typedef PanelScales<Format, kVectors> Type;
};
template <class Format, int kVectors>
struct ScratchOf<Format, kVectors, false> {
  typedef NoScales Type;
};

template <class Format, int kVectors, int kTokens>
inline void Tile(const uint8_t* panels, int64_t k, const Ahead& ahead, const void* ready,
                 const void* const* x, float (*out)[kVectors * I32::kLanes]) {
  if constexpr (Format::kBlockElems == kSuperBlockElems) {
    SuperTile<Format, kVectors, kTokens>(panels, k, ahead, (const SuperScales<Format>*)ready, x,
                                         out);
  } else if constexpr (Format::kBlockElems == kSmallBlockElems) {
    SmallTile<Format, kVectors, kTokens>(panels, k, ahead, x, out);
  } else {
    FloatTile<Format, kVectors, kTokens>(panels, k, ahead, x, out);
  }
}

template <class Format, int kVectors, int kTokens>
void TileOf(int num_tokens, const uint8_t* panels, int64_t k, const Ahead& ahead, const void* ready,
            const void* const* x, float (*out)[kVectors * I32::kLanes]) {
  if constexpr (kTokens > 1) {
    if (num_tokens < kTokens) {
      return TileOf<Format, kVectors, kTokens - 1>(num_tokens, panels, k, ahead, ready, x, out);
    }
  }
  Tile<Format, kVectors, kTokens>(panels, k, ahead, ready, x, out);
}

// Rows [row, row + 16 kPanels) of the panels with all tokens, in tiles of kTokens.
template <class Format, int kPanels, int kTokens>
void DotTiles(const PanelDotArgs& a, int64_t row) {
  constexpr int kRows = kPanels * kPanelRows;
  // Blocks as the tiles take them.
  constexpr bool kFloats = Format::kBlockElems == 1;
  constexpr int kElems = kFloats ? kFloatBlock : Format::kBlockElems;
  constexpr int64_t kBlockBytes = kElems / Format::kBlockElems * PanelBlockBytes<Format>();
  const int64_t num_blocks = a.k / kElems;
  const int64_t panel_bytes = a.k / Format::kBlockElems * PanelBlockBytes<Format>();
  const uint8_t* panels = a.panels + row / kPanelRows * panel_bytes;
  const int64_t begin = row > a.first_row ? row : a.first_row;
  const int64_t stop = row + kRows < a.last_row ? row + kRows : a.last_row;
  const int num_tiles = (a.num_tokens + kTokens - 1) / kTokens;
  // What follows the tile's panels.
  const uint8_t* next = panels + kPanels * panel_bytes;
  if (row + kRows >= a.last_row && a.next != nullptr) next = a.next;
  const void* ready = nullptr;
  [[maybe_unused]] typename ScratchOf<Format, kRows / I32::kLanes>::Type scales;
  if constexpr (Format::kBlockElems == kSuperBlockElems) {
    if (num_tiles > 1 && scales.Fits(num_blocks)) {
      scales.Read(panels, num_blocks);
      ready = scales.of;
    }
  }
  for (int tile = 0, t = 0; tile < num_tiles; ++tile) {
    Ahead ahead;
    if (num_tiles == 1) {
      // A little ahead in the same panel, then in the one that takes its place.
      const int64_t blocks = (kPrefetchBytes + kBlockBytes - 1) / kBlockBytes;
      ahead = {panels + blocks * kBlockBytes, panel_bytes, kBlockBytes, num_blocks - blocks,
               next - (panels + panel_bytes)};
    } else {
      // Later tiles find the panels in the cache: each brings a part of the next ones.
      ahead = {next + tile * (panel_bytes / num_tiles), panel_bytes, kBlockBytes / num_tiles,
               num_blocks, 0};
    }
    // Tiles as even as can be: 7 tokens are 4 and 3.
    const int count = (a.num_tokens - t + num_tiles - tile - 1) / (num_tiles - tile);
    // The results' lines, which arrive while the tile is computed.
    for (int i = 0; i < count; ++i) {
      for (int64_t r = begin; r < stop; r += kPanelRows) {
        __builtin_prefetch(a.out[t + i] + (r - a.first_row), /*rw=*/1);
      }
    }
    float out[kTokens][kRows];
    if constexpr (kFloats) {
      memset(out, 0, sizeof(out));
      for (int i = 0; a.accumulate && i < count; ++i) {
        memcpy(out[i] + (begin - row), a.out[t + i] + (begin - a.first_row),
               (size_t)(stop - begin) * sizeof(float));
      }
    }
    TileOf<Format, kRows / I32::kLanes, kTokens>(count, panels, a.k, ahead, ready, a.x + t, out);
    for (int i = 0; i < count; ++i) {
      memcpy(a.out[t + i] + (begin - a.first_row), out[i] + (begin - row),
             (size_t)(stop - begin) * sizeof(float));
    }
    t += count;
  }
}

template <class Format>
void DotPanels(const PanelDotArgs* args) {
  const PanelDotArgs& a = *args;
  const int64_t end = (a.last_row + kPanelRows - 1) / kPanelRows * kPanelRows;
  int64_t row = a.first_row / kPanelRows * kPanelRows;
  // Few tokens take one panel at a time, one stream of memory; more share what is read of x.
  const int wide_from = a.wide_from > 0 ? a.wide_from : kPanelTokens + 1;
  if (a.num_tokens >= wide_from) {
    constexpr int kRows = kTilePanels * kPanelRows;
    for (; row + kRows <= end; row += kRows) DotTiles<Format, kTilePanels, kTileTokens>(a, row);
  }
  for (; row < end; row += kPanelRows) DotTiles<Format, 1, kPanelTokens>(a, row);
}

}  // namespace
}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_CPU_PANEL_DRIVER_IMPL_H_
