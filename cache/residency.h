// Residency: the books of one tier: which expert has which slot, who needs it, and who gives way.
//
// Integers only: no memory, no I/O, no clock. A slot goes through these states (pinned by its users
// from Claim for a step on):
//
//            Claim             gate and up landed        down landed
//   FREE ------------> FILLING -----------------> HALF ------------> READY
//    ^                  |   |                       |                  |
//    |  Cancel (HALF too)|  | read error            | read error       | Claim for another expert,
//    or |                  v   '-------> FAILED <------'                  | Resize: neither pinned
//    nor |               DRAINING            |                             | needed
//    '-- nobody permutes into it or uses it any more -------------------'
//
// Slots belong to size classes, the layers whose experts are equally large. A layer has a quota of
// its class's slots; it takes beyond it only if it holds none, and gives way first when it holds
// more. What this step needs is never evicted; what a later layer in flight needs keeps prefetches
// away, but not the claims of an earlier layer, which would wait for that layer.
//
// Experts of which a placement says something count towards no quota. One that it wants in this
// tier gives way only where nothing else would let a step go on; one that it wants on disk leaves
// its slot when nobody uses it any more, and drives out others only if its layer has none like it
// in flight.
#ifndef THERMOCLINE_CACHE_RESIDENCY_H_
#define THERMOCLINE_CACHE_RESIDENCY_H_

#include <memory>
#include <optional>
#include <vector>

#include "absl/types/span.h"
#include "cache/eviction_policy.h"
#include "cache/expert_id.h"
#include "cache/placement.h"

namespace thermocline {

enum class SlotState : uint8_t { kFree, kFilling, kHalf, kReady, kDraining, kFailed };
// kFill takes only what is free.
enum class Claimant : uint8_t { kStep, kPrefetch, kFill };

class Residency {
 public:
  struct Options {
    int num_experts = 0;                   // of every layer
    std::vector<int> size_class;           // of each layer; -1: it has no experts
    std::vector<int> slots;                // of each size class, at most
    EvictionPolicy* policy = nullptr;      // outlives the books
    const Placement* placement = nullptr;  // null: anything anywhere; outlives the books
    Wanted here = Wanted::kHost;           // what a placement calls this tier
  };

  explicit Residency(const Options& options);

  int num_slots() const { return static_cast<int>(slots_.size()); }
  // Slots of a class that may be used; fewer than there are after a Resize.
  int num_slots(int size_class) const { return classes_[Index(size_class)].here; }
  int quota(int layer) const { return layers_[Index(layer)].quota; }
  // Slots that hold one of the layer's experts that may lie anywhere, in any state.
  int num_held(int layer) const {
    const Layer& l = layers_[Index(layer)];
    return static_cast<int>(l.slots.size()) - l.num_kept - l.num_passing;
  }

  std::optional<SlotId> Find(ExpertId id) const;
  // kFree: not here.
  SlotState StateOf(ExpertId id) const;
  SlotState StateOf(SlotId slot) const { return slots_[Index(slot)].state; }
  ExpertId ExpertIn(SlotId slot) const { return slots_[Index(slot)].id; }
  bool InUse(SlotId slot) const;
  // Neither here nor on its way out.
  bool IsGivenUp(SlotId slot) const { return !slots_[Index(slot)].here; }

  // This step needs these, each once more: not evicted before Release.
  void SetNeeded(int layer, absl::Span<const int32_t> experts);
  // A later layer that is in flight behind this one needs these, until `on` is false.
  void SetNeededLater(int layer, absl::Span<const int32_t> experts, bool on);
  // A slot for an expert that has none: a free one, else one of an expert that gives way. Nothing
  // while all are in use or on their way.
  std::optional<SlotId> Claim(ExpertId id, Claimant who);
  // A computation uses the slot.
  void Pin(SlotId slot);
  // The expert is no longer needed by this step and, if it has a slot, no longer pinned.
  void Release(ExpertId id);
  // kHalf, kReady or kFailed; kFree when a failed or draining slot is left.
  void Arrived(SlotId slot, SlotState state);
  // A slot that is being filled for nobody any more: its expert is not here from now on.
  void Cancel(SlotId slot);
  // Fewer slots of a class, or more again, up to what there are; at least 1. Slots go as they come
  // free; quotas become equal shares.
  void Resize(int size_class, int num_slots);
  // At least 1 of its class's slots. The sum over a class's layers may exceed its slots.
  void SetQuota(int layer, int num_slots);

  // Experts that gave way to another, by layer.
  int64_t num_evictions(int layer) const { return layers_[Index(layer)].evictions; }
  bool has_experts(int layer) const { return layers_[Index(layer)].size_class >= 0; }
  int size_class(int layer) const { return layers_[Index(layer)].size_class; }

 private:
  struct Slot {
    SlotState state = SlotState::kFree;
    bool here = true;  // false: given up
    int size_class = 0;
    ExpertId id = {-1, -1};  // layer -1: none
    int pins = 0;
  };
  struct Layer {
    int size_class = -1;
    int quota = 1;
    std::vector<SlotId> slots;    // that hold its experts
    std::vector<SlotId> slot_of;  // [expert]
    std::vector<int> needed;      // [expert]
    std::vector<uint8_t> later;   // [expert]
    int num_kept = 0;             // of slots
    int num_passing = 0;          // of slots: on disk by placement
    int64_t evictions = 0;
  };
  struct SizeClass {
    SlotId first = 0;
    int count = 0;   // of slots
    int here = 0;    // not given up
    int target = 0;  // what `here` is to become
    std::vector<int> layers;
  };

  template <class Int>
  static size_t Index(Int i) {
    return static_cast<size_t>(i);
  }
  std::optional<SlotId> FreeSlot(const SizeClass& size) const;
  // Whether a placement wants it so.
  bool IsWanted(ExpertId id, Wanted wanted) const {
    return placement_ != nullptr && id.layer >= 0 && placement_->Of(id) == wanted;
  }
  bool IsKept(ExpertId id) const { return IsWanted(id, here_); }
  bool IsPassing(ExpertId id) const { return IsWanted(id, Wanted::kDisk); }
  void Count(ExpertId id, int by);  // of a layer's kept and passing ones
  // The slot of the layer's expert that gives way, of the kept ones or of the others; nothing if
  // all are in use.
  std::optional<SlotId> VictimOf(int layer, Claimant who, bool kept = false) const;
  // One of a layer that holds more than its quota, the one furthest above it first.
  std::optional<SlotId> VictimBeyondQuota(const SizeClass& size, Claimant who) const;
  // One of any layer, the one that holds most first; a kept one if there is no other.
  std::optional<SlotId> AnyVictim(const SizeClass& size, Claimant who) const;
  void SpreadQuotas(const SizeClass& size);
  void Free(SlotId slot);
  // Of an expert that is to be on disk.
  void FreeIfUnused(SlotId slot);
  void Evict(SlotId slot);
  void Shrink(SizeClass* size);

  EvictionPolicy* policy_;
  const Placement* placement_;
  Wanted here_;
  std::vector<Slot> slots_;
  std::vector<Layer> layers_;
  std::vector<SizeClass> classes_;
};

}  // namespace thermocline

#endif  // THERMOCLINE_CACHE_RESIDENCY_H_
