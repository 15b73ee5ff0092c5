// Least frequently used, with decay: what was used long ago counts less.
#include <algorithm>
#include <cmath>

#include "cache/policies.h"

namespace thermocline {
namespace {

// Uses of a layer's experts after which a use counts half.
constexpr double kHalfLife = 512.0;

class LfuPolicy : public EvictionPolicy {
 public:
  explicit LfuPolicy(const PolicyOptions& options)
      : num_experts_(options.num_experts),
        entries_(static_cast<size_t>(options.num_layers * options.num_experts)),
        clock_(static_cast<size_t>(options.num_layers), 0) {}

  void OnUse(ExpertId id) override {
    const int64_t now = ++clock_[static_cast<size_t>(id.layer)];
    Entry& entry = At(id.layer, id.expert);
    entry.count = CountAt(entry, now) + 1.0;
    entry.last = now;
  }

  // The smallest count; of equals the one used longest ago.
  int32_t PickVictim(int32_t layer, absl::Span<const int32_t> candidates) override {
    const int64_t now = clock_[static_cast<size_t>(layer)];
    return *std::min_element(candidates.begin(), candidates.end(), [&](int32_t a, int32_t b) {
      const Entry &x = At(layer, a), &y = At(layer, b);
      const double count_x = CountAt(x, now), count_y = CountAt(y, now);
      return count_x != count_y ? count_x < count_y : x.last < y.last;
    });
  }

 private:
  struct Entry {
    double count = 0.0;  // as of `last`
    int64_t last = 0;
  };

  Entry& At(int32_t layer, int32_t expert) {
    return entries_[static_cast<size_t>(layer * num_experts_ + expert)];
  }
  static double CountAt(const Entry& entry, int64_t now) {
    return entry.count * std::exp2(-static_cast<double>(now - entry.last) / kHalfLife);
  }

  int num_experts_;
  std::vector<Entry> entries_;
  std::vector<int64_t> clock_;  // uses, by layer
};

}  // namespace

std::unique_ptr<EvictionPolicy> MakeLfuPolicy(const PolicyOptions& options) {
  return std::make_unique<LfuPolicy>(options);
}

}  // namespace thermocline
