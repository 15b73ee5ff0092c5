// ExpertTier: the experts that lie in one device's memory: its slots, what has arrived in each, and
// the books.
#ifndef THERMOCLINE_CACHE_EXPERT_TIER_H_
#define THERMOCLINE_CACHE_EXPERT_TIER_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "cache/eviction_policy.h"
#include "cache/expert_layout.h"
#include "cache/residency.h"
#include "kernels/device.h"

namespace thermocline {

class ExpertTier {
 public:
  struct Options {
    Device* device = nullptr;           // owns the memory; outlives the tier
    std::vector<ExpertLayout> layouts;  // [layer]
    int num_experts = 0;                // of every layer
    // Of each of SizeClassesOf(layouts); at least 1, at most num_experts for each of its layers.
    std::vector<int> slots;
    std::string policy = "lru";
    uint64_t seed = 0;
    const Placement* placement = nullptr;  // as in Residency::Options
    Wanted here = Wanted::kHost;
    bool poison = false;  // fill slots with NaN patterns before they are filled (tests)
  };

  // INVALID_ARGUMENT for a number of slots out of range or an unknown policy; RESOURCE_EXHAUSTED
  // without memory.
  static absl::StatusOr<std::unique_ptr<ExpertTier>> Create(const Options& options);

  Device* device() const { return options_.device; }
  int num_layers() const { return static_cast<int>(options_.layouts.size()); }
  int num_experts() const { return options_.num_experts; }
  const ExpertLayout& layout(int layer) const {
    return options_.layouts[static_cast<size_t>(layer)];
  }
  Residency* residency() { return residency_.get(); }
  const Residency& residency() const { return *residency_; }

  // Of a slot, in the device's memory.
  char* Address(SlotId slot) const { return addresses_[static_cast<size_t>(slot)]; }
  Arrival* arrival(SlotId slot) { return &arrivals_[static_cast<size_t>(slot)]; }
  // The views of an expert's matrices in its slot.
  ExpertWeights Weights(SlotId slot) const;
  // A claimed slot, before anything is brought into it: `gate_up` and `down` pieces are to come.
  void Arm(SlotId slot, int gate_up, int down);
  // The tier is to take no more than so many bytes of the memory it was made with, but for one slot
  // of each size class; more again, if it is more. Slots go as they come free.
  void Resize(int64_t bytes);
  // Hands the memory of slots that the books have given up back to the system.
  void ReleaseMemory();

  // The slots that hold an expert, whole.
  std::vector<absl::Span<const char>> ReadyMemory() const;
  // Bytes of slots that hold an expert, whole.
  int64_t resident_bytes() const;
  int64_t allocated_bytes() const;
  // Of the slots that may be used now.
  int64_t allowed_bytes() const;
  const std::vector<SizeClass>& size_classes() const { return classes_; }
  bool IsResident(ExpertId id) const { return residency_->StateOf(id) == SlotState::kReady; }

 private:
  explicit ExpertTier(const Options& options)
      : options_(options), classes_(SizeClassesOf(options.layouts)) {}

  Options options_;
  std::vector<SizeClass> classes_;
  std::unique_ptr<EvictionPolicy> policy_;
  std::unique_ptr<Residency> residency_;
  std::vector<Buffer> memory_;       // of each size class
  std::vector<char*> addresses_;     // [slot]
  std::vector<int64_t> slot_bytes_;  // [slot], with what pads it to pages
  std::vector<bool> given_back_;     // [slot]
  std::unique_ptr<Arrival[]> arrivals_;
};

}  // namespace thermocline

#endif  // THERMOCLINE_CACHE_EXPERT_TIER_H_
