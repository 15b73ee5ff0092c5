// PlanExperts: where this step runs each of a layer's experts, and in which order they start.
#ifndef THERMOCLINE_CACHE_PLAN_EXPERTS_H_
#define THERMOCLINE_CACHE_PLAN_EXPERTS_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "cache/residency.h"

namespace thermocline {

enum class Place : uint8_t {
  kDevice,  // computed on the device, where it lies
  kHost,    // computed by the CPU, where it lies or when it has been read
};

inline constexpr int kNumPlaces = 2;

struct PlannedExpert {
  int32_t expert = 0;
  Place place = Place::kHost;
  bool fetch = false;  // it has to be read first
};

struct PlanInput {
  absl::Span<const int32_t> tokens_per_expert;  // [num_experts]
  // [num_experts]: kFree where it is not; empty: there is no such tier.
  absl::Span<const SlotState> on_device, on_host;
};

// Experts with tokens, in the order in which they start: those on the device; those that the host
// holds whole; those on their way, which hold a slot already; those that have none yet. An expert
// is computed where it lies. Pure.
std::vector<PlannedExpert> PlanExperts(const PlanInput& input);

}  // namespace thermocline

#endif  // THERMOCLINE_CACHE_PLAN_EXPERTS_H_
