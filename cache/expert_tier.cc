#include "cache/expert_tier.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"

namespace thermocline {
namespace {

constexpr int64_t kPageBytes = 4096;

}  // namespace

absl::StatusOr<std::unique_ptr<ExpertTier>> ExpertTier::Create(const Options& options) {
  std::unique_ptr<ExpertTier> tier(new ExpertTier(options));
  const std::vector<SizeClass>& classes = tier->classes_;  // none: a tier without slots
  TC_CHECK(options.slots.size() == classes.size());
  for (size_t c = 0; c < classes.size(); ++c) {
    const int most = static_cast<int>(classes[c].layers.size()) * options.num_experts;
    if (options.slots[c] >= 1 && options.slots[c] <= most) continue;
    return absl::InvalidArgumentError(absl::StrCat(options.slots[c], " expert slots for ",
                                                   classes[c].layers.size(), " layers, but 1 to ",
                                                   most, " are allowed"));
  }
  absl::StatusOr<std::unique_ptr<EvictionPolicy>> policy = MakeEvictionPolicy(
      options.policy,
      {.num_layers = tier->num_layers(), .num_experts = options.num_experts, .seed = options.seed});
  if (!policy.ok()) return policy.status();
  tier->policy_ = *std::move(policy);
  Residency::Options books;
  books.num_experts = options.num_experts;
  books.policy = tier->policy_.get();
  books.placement = options.placement;
  books.here = options.here;
  books.size_class.assign(options.layouts.size(), -1);
  books.slots = options.slots;
  for (size_t c = 0; c < classes.size(); ++c) {
    for (const int layer : classes[c].layers) {
      books.size_class[static_cast<size_t>(layer)] = static_cast<int>(c);
    }
    const int64_t bytes = classes[c].slot_bytes;
    absl::StatusOr<Buffer> memory = options.device->Allocate(books.slots[c] * bytes);
    if (!memory.ok()) return memory.status();
    for (int i = 0; i < books.slots[c]; ++i) {
      tier->addresses_.push_back(static_cast<char*>(memory->data()) + i * bytes);
      tier->slot_bytes_.push_back(bytes);
    }
    tier->memory_.push_back(*std::move(memory));
  }
  tier->given_back_.assign(tier->addresses_.size(), false);
  tier->arrivals_ = std::make_unique<Arrival[]>(tier->addresses_.size());
  tier->residency_ = std::make_unique<Residency>(books);
  return tier;
}

ExpertWeights ExpertTier::Weights(SlotId slot) const {
  return WeightsIn(layout(residency_->ExpertIn(slot).layer), Address(slot));
}

void ExpertTier::Arm(SlotId slot, int gate_up, int down) {
  if (options_.poison && options_.device->memory_kind() == MemoryKind::kHost) {
    std::memset(Address(slot), 0xFF, static_cast<size_t>(slot_bytes_[static_cast<size_t>(slot)]));
  }
  given_back_[static_cast<size_t>(slot)] = false;
  Arrival* a = arrival(slot);
  a->failed.store(false, std::memory_order_relaxed);
  a->gate_up_left.store(gate_up, std::memory_order_relaxed);
  a->down_left.store(down, std::memory_order_relaxed);
}

void ExpertTier::Resize(int64_t bytes) {
  // What a placement keeps, and a slot for the others, as long as that fits.
  std::vector<int> least;
  for (const SizeClass& size : classes_) {
    int kept = 0;
    for (const int layer : size.layers) {
      if (options_.placement == nullptr) continue;
      kept += static_cast<int>(options_.placement->Experts(layer, options_.here).size());
    }
    least.push_back(std::min(kept + 1, options_.slots[least.size()]));
  }
  if (BytesOfSlots(classes_, least) > bytes) least.assign(classes_.size(), 1);
  const std::vector<int> slots = SlotsWithin(classes_, least, options_.slots, bytes);
  for (size_t c = 0; c < slots.size(); ++c) residency_->Resize(static_cast<int>(c), slots[c]);
  ReleaseMemory();
}

void ExpertTier::ReleaseMemory() {
  if (options_.device->memory_kind() == MemoryKind::kDevice) return;
  for (SlotId slot = 0; slot < residency_->num_slots(); ++slot) {
    const size_t s = static_cast<size_t>(slot);
    if (!residency_->IsGivenUp(slot) || given_back_[s]) continue;
    // The pages that are the slot's alone.
    const uintptr_t begin = reinterpret_cast<uintptr_t>(addresses_[s]), page = kPageBytes;
    const uintptr_t first = (begin + page - 1) / page * page,
                    end = (begin + static_cast<uintptr_t>(slot_bytes_[s])) / page * page;
    if (end > first) madvise(reinterpret_cast<void*>(first), end - first, MADV_DONTNEED);
    given_back_[s] = true;
  }
}

std::vector<absl::Span<const char>> ExpertTier::ReadyMemory() const {
  std::vector<absl::Span<const char>> memory;
  for (SlotId slot = 0; slot < residency_->num_slots(); ++slot) {
    if (residency_->StateOf(slot) != SlotState::kReady) continue;
    memory.emplace_back(Address(slot), static_cast<size_t>(slot_bytes_[static_cast<size_t>(slot)]));
  }
  return memory;
}

int64_t ExpertTier::resident_bytes() const {
  int64_t bytes = 0;
  for (SlotId slot = 0; slot < residency_->num_slots(); ++slot) {
    if (residency_->StateOf(slot) == SlotState::kReady) {
      bytes += layout(residency_->ExpertIn(slot).layer).bytes;
    }
  }
  return bytes;
}

int64_t ExpertTier::allowed_bytes() const {
  int64_t bytes = 0;
  for (size_t c = 0; c < classes_.size(); ++c) {
    bytes += residency_->num_slots(static_cast<int>(c)) * classes_[c].slot_bytes;
  }
  return bytes;
}

int64_t ExpertTier::allocated_bytes() const {
  int64_t bytes = 0;
  for (const Buffer& memory : memory_) bytes += memory.bytes();
  return bytes;
}

}  // namespace thermocline
