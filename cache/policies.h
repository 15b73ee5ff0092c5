// Constructors of the eviction policies, for cache/registry.cc.
#ifndef THERMOCLINE_CACHE_POLICIES_H_
#define THERMOCLINE_CACHE_POLICIES_H_

#include <memory>

#include "cache/eviction_policy.h"

namespace thermocline {

// Evicts the expert unused for longest.
std::unique_ptr<EvictionPolicy> MakeLruPolicy(const PolicyOptions& options);
// Evicts the expert used least, old uses counting less (halved every 512 uses of its layer).
std::unique_ptr<EvictionPolicy> MakeLfuPolicy(const PolicyOptions& options);
// Evicts any, by a seeded generator: the harshest test of the pins.
std::unique_ptr<EvictionPolicy> MakeRandomPolicy(const PolicyOptions& options);

}  // namespace thermocline

#endif  // THERMOCLINE_CACHE_POLICIES_H_
