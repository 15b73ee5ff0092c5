// Least recently used, per layer.
#include <algorithm>

#include "cache/policies.h"

namespace thermocline {
namespace {

class LruPolicy : public EvictionPolicy {
 public:
  explicit LruPolicy(const PolicyOptions& options)
      : num_experts_(options.num_experts),
        last_use_(static_cast<size_t>(options.num_layers * options.num_experts), 0) {}

  void OnUse(ExpertId id) override { LastUse(id.layer, id.expert) = ++clock_; }

  int32_t PickVictim(int32_t layer, absl::Span<const int32_t> candidates) override {
    return *std::min_element(candidates.begin(), candidates.end(), [&](int32_t a, int32_t b) {
      return LastUse(layer, a) < LastUse(layer, b);
    });
  }

 private:
  uint64_t& LastUse(int32_t layer, int32_t expert) {
    return last_use_[static_cast<size_t>(layer * num_experts_ + expert)];
  }

  int num_experts_;
  uint64_t clock_ = 0;
  std::vector<uint64_t> last_use_;
};

}  // namespace

std::unique_ptr<EvictionPolicy> MakeLruPolicy(const PolicyOptions& options) {
  return std::make_unique<LruPolicy>(options);
}

}  // namespace thermocline
