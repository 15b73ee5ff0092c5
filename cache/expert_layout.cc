#include "cache/expert_layout.h"

#include <algorithm>
#include <map>

namespace thermocline {
namespace {

constexpr int64_t kPageBytes = 4096;
constexpr int64_t kLineBytes = 64;

// Large slots begin at pages, so that the memory of one can go back to the system.
int64_t SlotBytes(int64_t expert_bytes) {
  const int64_t unit = expert_bytes >= 16 * kPageBytes ? kPageBytes : kLineBytes;
  return (expert_bytes + unit - 1) / unit * unit;
}

}  // namespace

std::vector<SizeClass> SizeClassesOf(absl::Span<const ExpertLayout> layouts) {
  std::map<int64_t, SizeClass> by_bytes;
  for (size_t l = 0; l < layouts.size(); ++l) {
    if (layouts[l].bytes == 0) continue;
    SizeClass& size = by_bytes[SlotBytes(layouts[l].bytes)];
    size.slot_bytes = SlotBytes(layouts[l].bytes);
    size.layers.push_back(static_cast<int>(l));
  }
  std::vector<SizeClass> classes;
  for (auto& [bytes, size] : by_bytes) classes.push_back(std::move(size));
  return classes;
}

int64_t BytesOfSlots(absl::Span<const SizeClass> classes, absl::Span<const int> slots) {
  int64_t bytes = 0;
  for (size_t c = 0; c < classes.size(); ++c) bytes += slots[c] * classes[c].slot_bytes;
  return bytes;
}

std::vector<int> SlotsForEachLayer(absl::Span<const SizeClass> classes, int per_layer) {
  std::vector<int> slots;
  for (const SizeClass& size : classes) {
    slots.push_back(static_cast<int>(size.layers.size()) * per_layer);
  }
  return slots;
}

std::vector<int> SlotsWithin(absl::Span<const SizeClass> classes, absl::Span<const int> least,
                             absl::Span<const int> most, int64_t bytes) {
  std::vector<int> slots(least.begin(), least.end());
  int64_t left = bytes - BytesOfSlots(classes, slots);
  const int64_t between = BytesOfSlots(classes, most) - BytesOfSlots(classes, slots);
  if (left <= 0 || between <= 0) return slots;
  const double share = std::min(1.0, static_cast<double>(left) / static_cast<double>(between));
  for (size_t c = 0; c < classes.size(); ++c) {
    const int more = static_cast<int>(share * (most[c] - least[c]));
    slots[c] += more;
    left -= more * classes[c].slot_bytes;
  }
  // What is left over is less than one of each, unless rounding was unkind: largest first.
  for (size_t c = classes.size(); c-- > 0;) {
    while (slots[c] < most[c] && left >= classes[c].slot_bytes) {
      ++slots[c];
      left -= classes[c].slot_bytes;
    }
  }
  return slots;
}

}  // namespace thermocline
