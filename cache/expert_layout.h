// ExpertLayout: how an expert's matrices lie in a slot.
#ifndef THERMOCLINE_CACHE_EXPERT_LAYOUT_H_
#define THERMOCLINE_CACHE_EXPERT_LAYOUT_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "kernels/expert_ops.h"

namespace thermocline {

// Of all experts of a layer. Matrices are in panels, as MakeWeightView sees them, each at a 64-byte
// boundary; biases are no part of a slot.
struct ExpertLayout {
  struct Matrix {
    DType dtype = DType::kF32;
    int64_t rows = 0;
    int64_t cols = 0;
    int64_t offset = 0;  // in the slot

    int64_t bytes() const { return PackedBytes(dtype, rows, cols); }
  };
  Matrix gate, up, down;
  int64_t bytes = 0;  // 0: the layer has no experts
};

// The three matrices in a slot; null: their shapes alone.
inline ExpertWeights WeightsIn(const ExpertLayout& layout, void* slot) {
  const auto view = [slot](const ExpertLayout::Matrix& m) {
    void* data = slot != nullptr ? static_cast<char*>(slot) + m.offset : nullptr;
    return MakeWeightView(data, m.dtype, m.rows, m.cols);
  };
  ExpertWeights weights;
  weights.gate = view(layout.gate);
  weights.up = view(layout.up);
  weights.down = view(layout.down);
  return weights;
}

// Layers whose experts are equally large: their slots are interchangeable.
struct SizeClass {
  int64_t slot_bytes = 0;
  std::vector<int> layers;
};
// By ascending size; layers without experts are in none.
std::vector<SizeClass> SizeClassesOf(absl::Span<const ExpertLayout> layouts);

// Of so many slots of each class.
int64_t BytesOfSlots(absl::Span<const SizeClass> classes, absl::Span<const int> slots);

// The same number of slots for each layer, by size class.
std::vector<int> SlotsForEachLayer(absl::Span<const SizeClass> classes, int per_layer);

// As many slots as fit into `bytes`: of each class `least`, whether they fit or not, at most
// `most`, and the same share of what is between.
std::vector<int> SlotsWithin(absl::Span<const SizeClass> classes, absl::Span<const int> least,
                             absl::Span<const int> most, int64_t bytes);

}  // namespace thermocline

#endif  // THERMOCLINE_CACHE_EXPERT_LAYOUT_H_
