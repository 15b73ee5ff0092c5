#include "cache/expert_tier.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <map>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"

namespace thermocline {
namespace {

constexpr int64_t kPageBytes = 4096;
constexpr int64_t kLineBytes = 64;

// Large slots begin at pages, so that the memory of one can go back to the system.
int64_t SlotBytes(int64_t expert_bytes) {
  const int64_t unit = expert_bytes >= 16 * kPageBytes ? kPageBytes : kLineBytes;
  return (expert_bytes + unit - 1) / unit * unit;
}

}  // namespace

absl::StatusOr<std::unique_ptr<ExpertTier>> ExpertTier::Create(const Options& options) {
  std::unique_ptr<ExpertTier> tier(new ExpertTier(options));
  const bool has_experts = std::any_of(options.layouts.begin(), options.layouts.end(),
                                       [](const ExpertLayout& layout) { return layout.bytes > 0; });
  if (!has_experts) {
    // A dense model: a tier without slots.
  } else if (options.slots_per_layer < 1 || options.slots_per_layer > options.num_experts) {
    return absl::InvalidArgumentError(absl::StrCat(options.slots_per_layer,
                                                   " expert slots a layer, but 1 to ",
                                                   options.num_experts, " are allowed"));
  }
  absl::StatusOr<std::unique_ptr<EvictionPolicy>> policy = MakeEvictionPolicy(
      options.policy,
      {.num_layers = tier->num_layers(), .num_experts = options.num_experts, .seed = options.seed});
  if (!policy.ok()) return policy.status();
  tier->policy_ = *std::move(policy);
  Residency::Options books;
  books.num_experts = options.num_experts;
  books.policy = tier->policy_.get();
  std::map<int64_t, int> class_of;  // by bytes of an expert
  for (const ExpertLayout& layout : options.layouts) {
    if (layout.bytes == 0) {
      books.size_class.push_back(-1);
      continue;
    }
    const auto [it, is_new] = class_of.emplace(layout.bytes, static_cast<int>(class_of.size()));
    if (is_new) books.slots.push_back(0);
    books.size_class.push_back(it->second);
    books.slots[static_cast<size_t>(it->second)] += options.slots_per_layer;
  }
  std::vector<int64_t> bytes(class_of.size());
  for (const auto& [expert_bytes, size_class] : class_of) {
    bytes[static_cast<size_t>(size_class)] = SlotBytes(expert_bytes);
  }
  for (size_t c = 0; c < bytes.size(); ++c) {
    absl::StatusOr<Buffer> memory = options.device->Allocate(books.slots[c] * bytes[c]);
    if (!memory.ok()) return memory.status();
    for (int i = 0; i < books.slots[c]; ++i) {
      tier->addresses_.push_back(static_cast<char*>(memory->data()) + i * bytes[c]);
      tier->slot_bytes_.push_back(bytes[c]);
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

int64_t ExpertTier::resident_bytes() const {
  int64_t bytes = 0;
  for (SlotId slot = 0; slot < residency_->num_slots(); ++slot) {
    if (residency_->StateOf(slot) == SlotState::kReady) {
      bytes += layout(residency_->ExpertIn(slot).layer).bytes;
    }
  }
  return bytes;
}

int64_t ExpertTier::allocated_bytes() const {
  int64_t bytes = 0;
  for (const Buffer& memory : memory_) bytes += memory.bytes();
  return bytes;
}

}  // namespace thermocline
