// EvictionPolicy: which resident expert of a layer to give up.
#ifndef THERMOCLINE_CACHE_EVICTION_POLICY_H_
#define THERMOCLINE_CACHE_EVICTION_POLICY_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "cache/expert_id.h"

namespace thermocline {

class EvictionPolicy {
 public:
  virtual ~EvictionPolicy() = default;
  // The expert was used (hit or freshly inserted).
  virtual void OnUse(ExpertId id) = 0;
  // One of `candidates`, experts of `layer` that are resident and unpinned; never empty.
  virtual int32_t PickVictim(int32_t layer, absl::Span<const int32_t> candidates) = 0;
};

struct PolicyOptions {
  int num_layers = 0;
  int num_experts = 0;
  uint64_t seed = 0;
};

// cache/registry.cc lists them. INVALID_ARGUMENT names the known ones.
absl::StatusOr<std::unique_ptr<EvictionPolicy>> MakeEvictionPolicy(absl::string_view name,
                                                                   const PolicyOptions& options);

}  // namespace thermocline

#endif  // THERMOCLINE_CACHE_EVICTION_POLICY_H_
