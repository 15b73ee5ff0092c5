#include "engine/plan_experts.h"

#include "kernels/check.h"

namespace thermocline {

std::vector<Placement> PlanExperts(absl::Span<const int32_t> tokens_per_expert,
                                   const std::vector<bool>& on_device,
                                   const std::vector<bool>& on_host) {
  TC_CHECK(on_device.size() == tokens_per_expert.size() &&
           on_host.size() == tokens_per_expert.size());
  std::vector<Placement> plan(tokens_per_expert.size(), Placement::kNone);
  for (size_t e = 0; e < plan.size(); ++e) {
    if (tokens_per_expert[e] == 0) continue;
    plan[e] = on_device[e] ? Placement::kDevice : on_host[e] ? Placement::kHost : Placement::kFetch;
  }
  return plan;
}

}  // namespace thermocline
