// PlanMemory: one budget for everything that a model takes of host memory.
//
// Dense weights and the fixed-size state of sequences come first, then a KV cache, then what one
// step computes in, then experts. Where not all experts fit, a larger step reads the missing ones
// less often, but leaves room for fewer: the plan takes the size with which a typical request
// (2,048 tokens of prompt, 256 generated ones) reads least.
#ifndef THERMOCLINE_ENGINE_MEMORY_PLAN_H_
#define THERMOCLINE_ENGINE_MEMORY_PLAN_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "cache/expert_layout.h"

namespace thermocline {

// "2.2 MB", as people are told of memory.
std::string Megabytes(int64_t bytes);

// Of a number of bytes that a process may hold, what it leaves alone: room for what cannot be
// counted beforehand, and for 3 % that a limit is never to be approached by.
int64_t MemoryReserve(int64_t bytes);

// Bytes, where nothing else is said.
struct MemoryNeeds {
  int64_t limit = 0;  // that the process may hold in all
  int64_t held = 0;   // that it holds already
  int64_t dense = 0;  // weights but the experts'
  int64_t staging = 0;
  int64_t states = 0;  // of sequences that run at once
  // KV cache.
  int64_t kv_token = 0;
  int block_tokens = 1;
  std::optional<int64_t> kv_tokens;  // unset: chosen
  int64_t most_kv_tokens = 0;        // if chosen: more is of no use,
  int64_t least_kv_tokens = 0;       // less is too short for a conversation
  // A step.
  std::function<int64_t(int tokens)> step;
  std::optional<int> step_tokens;  // unset: chosen
  // Experts.
  std::vector<SizeClass> classes;
  std::vector<int> least_slots, most_slots;  // [class]; more than the most are of no use
  int64_t expert_bytes = 0;                  // of all that are not on a device
  bool some_on_disk = false;                 // whatever the memory
  int num_experts = 0;                       // of a layer
  int experts_per_token = 0;                 // of a layer
  std::optional<int> layer_slots;            // unset: as many as fit
};

struct MemoryPlan {
  int64_t kv_tokens = 0;  // whole blocks
  int step_tokens = 0;
  std::vector<int> slots;    // [size class]
  int64_t expert_bytes = 0;  // of the slots
  int64_t step_bytes = 0;
  int64_t spare = 0;         // of the limit, beyond the reserve
  bool all_resident = true;  // no expert is read again

  int64_t kv_bytes(const MemoryNeeds& needs) const { return kv_tokens * needs.kv_token; }
};

// RESOURCE_EXHAUSTED with what each part needs when they do not fit.
absl::StatusOr<MemoryPlan> PlanMemory(const MemoryNeeds& needs);

}  // namespace thermocline

#endif  // THERMOCLINE_ENGINE_MEMORY_PLAN_H_
