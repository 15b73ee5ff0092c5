#include "cache/residency.h"

#include <algorithm>

#include "kernels/check.h"

namespace thermocline {

Residency::Residency(const Options& options)
    : policy_(options.policy), placement_(options.placement), here_(options.here) {
  for (size_t c = 0; c < options.slots.size(); ++c) {
    const int count = options.slots[c];
    TC_CHECK(count >= 1);
    classes_.push_back({static_cast<SlotId>(slots_.size()), count, count, count, {}});
    for (int i = 0; i < count; ++i) {
      slots_.emplace_back();
      slots_.back().size_class = static_cast<int>(c);
    }
  }
  for (size_t l = 0; l < options.size_class.size(); ++l) {
    Layer layer;
    layer.size_class = options.size_class[l];
    if (layer.size_class >= 0) {
      layer.slot_of.assign(Index(options.num_experts), kNoSlot);
      layer.needed.assign(Index(options.num_experts), 0);
      layer.later.assign(Index(options.num_experts), 0);
      classes_[Index(layer.size_class)].layers.push_back(static_cast<int>(l));
    }
    layers_.push_back(std::move(layer));
  }
  for (const SizeClass& size : classes_) SpreadQuotas(size);
}

// Equal shares of what experts that may lie anywhere get, but no layer more than it has.
void Residency::SpreadQuotas(const SizeClass& size) {
  int left = size.target, at_once = 0;
  std::vector<int> layers = size.layers, most(layers_.size());
  for (const int layer : layers) {
    most[Index(layer)] = static_cast<int>(layers_[Index(layer)].slot_of.size());
    if (placement_ == nullptr) continue;
    const auto count = [&](Wanted wanted) {
      return static_cast<int>(placement_->Experts(layer, wanted).size());
    };
    most[Index(layer)] = count(Wanted::kAnywhere);
    left -= count(here_);
    at_once = std::max(at_once, count(Wanted::kDisk));
  }
  left = std::max(0, left - at_once);
  std::stable_sort(layers.begin(), layers.end(),
                   [&](int a, int b) { return most[Index(a)] < most[Index(b)]; });
  int num_layers = static_cast<int>(layers.size());
  for (const int layer : layers) {
    const int share = std::min(most[Index(layer)], (left + num_layers - 1) / num_layers);
    SetQuota(layer, std::max(1, share));
    left -= share;
    --num_layers;
  }
}

std::optional<SlotId> Residency::Find(ExpertId id) const {
  const SlotId slot = layers_[Index(id.layer)].slot_of[Index(id.expert)];
  if (slot == kNoSlot) return std::nullopt;
  return slot;
}

SlotState Residency::StateOf(ExpertId id) const {
  const std::optional<SlotId> slot = Find(id);
  return slot.has_value() ? StateOf(*slot) : SlotState::kFree;
}

bool Residency::InUse(SlotId slot) const {
  const Slot& s = slots_[Index(slot)];
  if (s.pins > 0) return true;
  return s.id.layer >= 0 && layers_[Index(s.id.layer)].needed[Index(s.id.expert)] > 0;
}

void Residency::SetNeeded(int layer, absl::Span<const int32_t> experts) {
  for (const int32_t expert : experts) ++layers_[Index(layer)].needed[Index(expert)];
}

void Residency::SetNeededLater(int layer, absl::Span<const int32_t> experts, bool on) {
  for (const int32_t expert : experts) layers_[Index(layer)].later[Index(expert)] = on;
}

std::optional<SlotId> Residency::FreeSlot(const SizeClass& size) const {
  for (SlotId s = size.first; s < size.first + size.count; ++s) {
    if (slots_[Index(s)].here && slots_[Index(s)].state == SlotState::kFree) return s;
  }
  return std::nullopt;
}

std::optional<SlotId> Residency::VictimOf(int layer, Claimant who, bool kept) const {
  const Layer& l = layers_[Index(layer)];
  std::vector<int32_t> candidates;
  for (const SlotId s : l.slots) {
    const Slot& slot = slots_[Index(s)];
    if (slot.state != SlotState::kReady || InUse(s) || IsKept(slot.id) != kept) continue;
    if (who == Claimant::kPrefetch && l.later[Index(slot.id.expert)] != 0) continue;
    candidates.push_back(slot.id.expert);
  }
  if (candidates.empty()) return std::nullopt;
  return l.slot_of[Index(policy_->PickVictim(layer, candidates))];
}

std::optional<SlotId> Residency::VictimBeyondQuota(const SizeClass& size, Claimant who) const {
  std::vector<int> layers;
  for (const int layer : size.layers) {
    if (num_held(layer) > quota(layer)) layers.push_back(layer);
  }
  std::stable_sort(layers.begin(), layers.end(),
                   [&](int a, int b) { return num_held(a) - quota(a) > num_held(b) - quota(b); });
  for (const int layer : layers) {
    if (std::optional<SlotId> slot = VictimOf(layer, who)) return slot;
  }
  return std::nullopt;
}

std::optional<SlotId> Residency::AnyVictim(const SizeClass& size, Claimant who) const {
  std::vector<int> layers = size.layers;
  std::stable_sort(layers.begin(), layers.end(),
                   [&](int a, int b) { return num_held(a) > num_held(b); });
  for (const bool kept : {false, true}) {
    for (const int layer : layers) {
      if (std::optional<SlotId> slot = VictimOf(layer, who, kept)) return slot;
    }
  }
  return std::nullopt;
}

std::optional<SlotId> Residency::Claim(ExpertId id, Claimant who) {
  Layer& layer = layers_[Index(id.layer)];
  SizeClass& size = classes_[Index(layer.size_class)];
  TC_CHECK(layer.slot_of[Index(id.expert)] == kNoSlot);
  Shrink(&size);
  const bool kept = IsKept(id), passing = IsPassing(id);
  const bool within = kept || passing || num_held(id.layer) < layer.quota;
  const bool has_none = kept || (passing ? layer.num_passing : num_held(id.layer)) == 0;
  std::optional<SlotId> slot;
  if (within || has_none) slot = FreeSlot(size);
  if (!slot && who == Claimant::kFill && !kept) return std::nullopt;
  if (!slot && within) slot = VictimBeyondQuota(size, who);
  if (!slot && (!passing || has_none)) slot = VictimOf(id.layer, who);
  if (!slot && has_none && who == Claimant::kStep) slot = AnyVictim(size, who);
  if (!slot) return std::nullopt;
  if (StateOf(*slot) == SlotState::kReady) Evict(*slot);
  Slot& s = slots_[Index(*slot)];
  TC_CHECK(s.state == SlotState::kFree && s.pins == 0);
  s.state = SlotState::kFilling;
  s.id = id;
  layer.slot_of[Index(id.expert)] = *slot;
  layer.slots.push_back(*slot);
  Count(id, 1);
  return slot;
}

void Residency::Pin(SlotId slot) {
  Slot& s = slots_[Index(slot)];
  TC_CHECK(s.id.layer >= 0);
  ++s.pins;
  policy_->OnUse(s.id);
}

void Residency::Release(ExpertId id) {
  Layer& layer = layers_[Index(id.layer)];
  TC_CHECK(--layer.needed[Index(id.expert)] >= 0);
  const SlotId slot = layer.slot_of[Index(id.expert)];
  if (slot == kNoSlot) return;
  if (slots_[Index(slot)].pins > 0) --slots_[Index(slot)].pins;
  FreeIfUnused(slot);
}

void Residency::Arrived(SlotId slot, SlotState state) {
  Slot& s = slots_[Index(slot)];
  const SlotState was = s.state;
  if (state == SlotState::kFree) {
    TC_CHECK(!InUse(slot) && (was == SlotState::kDraining || was == SlotState::kFailed));
    Free(slot);
    Shrink(&classes_[Index(s.size_class)]);
    return;
  }
  TC_CHECK(was == SlotState::kFilling || (was == SlotState::kHalf && state != SlotState::kHalf));
  s.state = state;
  FreeIfUnused(slot);
}

void Residency::Cancel(SlotId slot) {
  Slot& s = slots_[Index(slot)];
  TC_CHECK(!InUse(slot) && (s.state == SlotState::kFilling || s.state == SlotState::kHalf));
  Free(slot);
  s.state = SlotState::kDraining;
}

void Residency::Resize(int size_class, int num_slots) {
  SizeClass& size = classes_[Index(size_class)];
  TC_CHECK(num_slots >= 1 && num_slots <= size.count);
  size.target = num_slots;
  for (SlotId s = size.first; s < size.first + size.count && size.here < size.target; ++s) {
    if (slots_[Index(s)].here) continue;
    slots_[Index(s)].here = true;
    ++size.here;
  }
  SpreadQuotas(size);
  Shrink(&size);
}

void Residency::SetQuota(int layer, int num_slots) {
  TC_CHECK(num_slots >= 1);
  layers_[Index(layer)].quota = num_slots;
}

void Residency::Free(SlotId slot) {
  Slot& s = slots_[Index(slot)];
  if (s.id.layer >= 0) {
    Layer& layer = layers_[Index(s.id.layer)];
    layer.slot_of[Index(s.id.expert)] = kNoSlot;
    layer.slots.erase(std::find(layer.slots.begin(), layer.slots.end(), slot));
    Count(s.id, -1);
    s.id = {-1, -1};
  }
  s.state = SlotState::kFree;
}

void Residency::Count(ExpertId id, int by) {
  Layer& layer = layers_[Index(id.layer)];
  if (IsKept(id)) layer.num_kept += by;
  if (IsPassing(id)) layer.num_passing += by;
}

void Residency::FreeIfUnused(SlotId slot) {
  const Slot& s = slots_[Index(slot)];
  if (s.state == SlotState::kReady && IsPassing(s.id) && !InUse(slot)) Free(slot);
}

void Residency::Evict(SlotId slot) {
  ++layers_[Index(slots_[Index(slot)].id.layer)].evictions;
  Free(slot);
}

// Free slots first, then those of layers far above their quota; the rest as they come free.
void Residency::Shrink(SizeClass* size) {
  while (size->here > size->target) {
    std::optional<SlotId> slot = FreeSlot(*size);
    if (!slot) slot = VictimBeyondQuota(*size, Claimant::kStep);
    if (!slot) slot = AnyVictim(*size, Claimant::kStep);
    if (!slot) return;
    if (StateOf(*slot) == SlotState::kReady) Evict(*slot);
    slots_[Index(*slot)].here = false;
    --size->here;
  }
}

}  // namespace thermocline
