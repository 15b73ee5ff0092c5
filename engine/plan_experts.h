// PlanExperts: where each active expert of one layer runs in this step.
#ifndef THERMOCLINE_ENGINE_PLAN_EXPERTS_H_
#define THERMOCLINE_ENGINE_PLAN_EXPERTS_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace thermocline {

enum class Placement : uint8_t {
  kNone,    // no token chose it
  kDevice,  // computed on the device, where it is resident
  kHost,    // computed on the CPU, where it lies in memory
  kFetch,   // read from disk first, then computed on the CPU
};

// A pure function of [num_experts] arrays: tokens that chose the expert, and whether it is resident
// in device and host memory. An expert is computed where it lies; the device wins when both hold
// it. (Weighing the two against each other needs the cost model, which comes with the first real
// device.)
std::vector<Placement> PlanExperts(absl::Span<const int32_t> tokens_per_expert,
                                   const std::vector<bool>& on_device,
                                   const std::vector<bool>& on_host);

}  // namespace thermocline

#endif  // THERMOCLINE_ENGINE_PLAN_EXPERTS_H_
