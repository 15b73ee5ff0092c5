#include "cache/plan_experts.h"

#include <algorithm>

#include "kernels/check.h"

namespace thermocline {
namespace {

// A smaller one starts earlier.
int OrderOf(const PlanInput& input, size_t e) {
  if (!input.on_device.empty() && input.on_device[e] == SlotState::kReady) return 0;
  const SlotState state = input.on_host.empty() ? SlotState::kFree : input.on_host[e];
  switch (state) {
    case SlotState::kReady:
      return 1;
    case SlotState::kHalf:
      return 2;
    case SlotState::kFilling:
    case SlotState::kFailed:
      return 3;
    case SlotState::kFree:
    case SlotState::kDraining:
      return 4;
  }
  TC_CHECK(false);
  return 4;
}

}  // namespace

std::vector<PlannedExpert> PlanExperts(const PlanInput& input) {
  const size_t num_experts = input.tokens_per_expert.size();
  TC_CHECK(input.on_device.empty() || input.on_device.size() == num_experts);
  TC_CHECK(input.on_host.empty() || input.on_host.size() == num_experts);
  std::vector<PlannedExpert> plan;
  for (int order = 0; order <= 4; ++order) {
    for (size_t e = 0; e < num_experts; ++e) {
      if (input.tokens_per_expert[e] == 0 || OrderOf(input, e) != order) continue;
      plan.push_back({static_cast<int32_t>(e), order == 0 ? Place::kDevice : Place::kHost,
                      /*fetch=*/order >= 2});
    }
  }
  return plan;
}

}  // namespace thermocline
