// Random eviction with a fixed seed.
#include <random>

#include "cache/policies.h"

namespace thermocline {
namespace {

class RandomPolicy : public EvictionPolicy {
 public:
  explicit RandomPolicy(uint64_t seed) : random_(seed) {}

  void OnUse(ExpertId) override {}

  int32_t PickVictim(int32_t, absl::Span<const int32_t> candidates) override {
    return candidates[random_() % candidates.size()];
  }

 private:
  std::mt19937_64 random_;
};

}  // namespace

std::unique_ptr<EvictionPolicy> MakeRandomPolicy(const PolicyOptions& options) {
  return std::make_unique<RandomPolicy>(options.seed);
}

}  // namespace thermocline
