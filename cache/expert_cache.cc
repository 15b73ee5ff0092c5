#include "cache/expert_cache.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <thread>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"
#include "kernels/mutex.h"

namespace thermocline {

PinnedExpert& PinnedExpert::operator=(PinnedExpert&& other) noexcept {
  std::swap(cache_, other.cache_);
  std::swap(layer_, other.layer_);
  std::swap(slot_, other.slot_);
  std::swap(data_, other.data_);
  return *this;
}

PinnedExpert::~PinnedExpert() {
  if (cache_ != nullptr) cache_->Unpin(layer_, slot_);
}

absl::StatusOr<std::unique_ptr<ExpertCache>> ExpertCache::Create(const Options& options) {
  if (options.capacity < 0 || options.capacity > options.num_experts) {
    return absl::InvalidArgumentError(
        absl::StrCat("expert capacity = ", options.capacity,
                     " per layer, but 0 to num_experts = ", options.num_experts, " are allowed"));
  }
  std::unique_ptr<ExpertCache> cache(new ExpertCache(options));
  const int num_layers = cache->num_layers();
  absl::StatusOr<std::unique_ptr<EvictionPolicy>> policy = MakeEvictionPolicy(
      options.policy,
      {.num_layers = num_layers, .num_experts = options.num_experts, .seed = options.seed});
  if (!policy.ok()) return policy.status();
  cache->policy_ = *std::move(policy);
  cache->stats_.resize(static_cast<size_t>(num_layers));
  for (int layer = 0; layer < num_layers; ++layer) {
    const int64_t expert_bytes = options.expert_bytes[static_cast<size_t>(layer)];
    const int capacity = expert_bytes > 0 ? options.capacity : 0;
    Buffer memory;
    if (capacity > 0) {
      absl::StatusOr<Buffer> allocated = options.device->Allocate(capacity * expert_bytes);
      if (!allocated.ok()) return allocated.status();
      memory = *std::move(allocated);
    }
    cache->memory_.push_back(std::move(memory));
    cache->slots_.emplace_back(static_cast<size_t>(capacity));
    cache->where_.emplace_back(static_cast<size_t>(options.num_experts), -1);
  }
  return cache;
}

ExpertCache::~ExpertCache() {
  for (const std::vector<Slot>& layer : slots_) {
    for (const Slot& slot : layer)
      TC_CHECK(slot.pins == 0) << "expert cache destroyed while pinned";
  }
}

int64_t ExpertCache::resident_bytes() const {
  int64_t bytes = 0;
  for (size_t layer = 0; layer < slots_.size(); ++layer) {
    for (const Slot& slot : slots_[layer]) {
      if (slot.expert >= 0) bytes += options_.expert_bytes[layer];
    }
  }
  return bytes;
}

int32_t ExpertCache::SlotOf(ExpertId id) const {
  return where_[static_cast<size_t>(id.layer)][static_cast<size_t>(id.expert)];
}

void* ExpertCache::Address(int32_t layer, int32_t slot) const {
  const size_t l = static_cast<size_t>(layer);
  return static_cast<char*>(memory_[l].data()) + slot * options_.expert_bytes[l];
}

PinnedExpert ExpertCache::Lookup(ExpertId id) {
  ExpertCacheStats& stats = stats_[static_cast<size_t>(id.layer)];
  const int32_t slot = SlotOf(id);
  if (slot < 0) {
    ++stats.misses;
    return PinnedExpert();
  }
  ++stats.hits;
  policy_->OnUse(id);
  ++slots_[static_cast<size_t>(id.layer)][static_cast<size_t>(slot)].pins;
  return PinnedExpert(this, id.layer, slot, Address(id.layer, slot));
}

int32_t ExpertCache::TakeSlot(int32_t layer) {
  std::vector<Slot>& slots = slots_[static_cast<size_t>(layer)];
  std::vector<int32_t> candidates;
  for (size_t s = 0; s < slots.size(); ++s) {
    if (slots[s].expert < 0 && slots[s].pins == 0) return static_cast<int32_t>(s);
    if (slots[s].pins == 0) candidates.push_back(slots[s].expert);
  }
  if (candidates.empty()) return -1;
  const int32_t victim = policy_->PickVictim(layer, candidates);
  int32_t& where = where_[static_cast<size_t>(layer)][static_cast<size_t>(victim)];
  const int32_t slot = where;
  where = -1;
  slots[static_cast<size_t>(slot)].expert = -1;
  ++stats_[static_cast<size_t>(layer)].evictions;
  if (options_.poison_evicted) Poison(layer, slot);
  return slot;
}

absl::StatusOr<PinnedExpert> ExpertCache::Insert(ExpertId id) {
  TC_CHECK(SlotOf(id) < 0) << "expert " << id.expert << " of layer " << id.layer << " is resident";
  const int32_t slot = TakeSlot(id.layer);
  if (slot < 0) {
    return absl::ResourceExhaustedError(
        absl::StrCat("all ", slots_[static_cast<size_t>(id.layer)].size(),
                     " expert slots of layer ", id.layer, " are pinned"));
  }
  if (absl::Status read = ReadInto(id, slot); !read.ok()) return read;
  Slot& entry = slots_[static_cast<size_t>(id.layer)][static_cast<size_t>(slot)];
  entry = {.expert = id.expert, .pins = 1};
  where_[static_cast<size_t>(id.layer)][static_cast<size_t>(id.expert)] = slot;
  stats_[static_cast<size_t>(id.layer)].bytes_read +=
      options_.expert_bytes[static_cast<size_t>(id.layer)];
  policy_->OnUse(id);
  return PinnedExpert(this, id.layer, slot, Address(id.layer, slot));
}

absl::Status ExpertCache::ReadInto(ExpertId id, int32_t slot) {
  const int64_t bytes = options_.expert_bytes[static_cast<size_t>(id.layer)];
  void* address = Address(id.layer, slot);
  if (options_.device->memory_kind() == MemoryKind::kHost) {
    return options_.source->Read(id, static_cast<char*>(address), bytes);
  }
  std::vector<char> staging(static_cast<size_t>(bytes));
  if (absl::Status read = options_.source->Read(id, staging.data(), bytes); !read.ok()) return read;
  options_.device->Copy(Queue::kCompute, staging.data(), address, bytes);
  return options_.device->Synchronize();  // the staging copy dies here
}

absl::Status ExpertCache::Preload(const std::vector<ExpertId>& ids, int num_threads,
                                  const std::function<void(int64_t)>& progress) {
  std::vector<int32_t> slots;
  for (ExpertId id : ids) {
    TC_CHECK(SlotOf(id) < 0);
    const int32_t slot = TakeSlot(id.layer);
    TC_CHECK(slot >= 0) << "more experts to preload than slots";
    slots_[static_cast<size_t>(id.layer)][static_cast<size_t>(slot)].expert = id.expert;
    where_[static_cast<size_t>(id.layer)][static_cast<size_t>(id.expert)] = slot;
    stats_[static_cast<size_t>(id.layer)].bytes_read +=
        options_.expert_bytes[static_cast<size_t>(id.layer)];
    slots.push_back(slot);
  }
  // A device's queue belongs to the engine thread, so only host slots are filled in parallel.
  if (options_.device->memory_kind() != MemoryKind::kHost) num_threads = 1;
  std::atomic<size_t> next{0};
  struct {
    Mutex mutex;  // progress is called with it
    absl::Status error ABSL_GUARDED_BY(mutex);
  } shared;
  const auto work = [&] {
    for (size_t i = next.fetch_add(1); i < ids.size(); i = next.fetch_add(1)) {
      const absl::Status status = ReadInto(ids[i], slots[i]);
      const MutexLock lock(&shared.mutex);
      if (shared.error.ok()) shared.error = status;
      if (!shared.error.ok()) return;
      if (progress) progress(options_.expert_bytes[static_cast<size_t>(ids[i].layer)]);
    }
  };
  std::vector<std::thread> helpers;
  for (int t = 1; t < num_threads; ++t) helpers.emplace_back(work);
  work();
  for (std::thread& helper : helpers) helper.join();
  const MutexLock lock(&shared.mutex);
  return shared.error;
}

void ExpertCache::Poison(int32_t layer, int32_t slot) {
  const int64_t bytes = options_.expert_bytes[static_cast<size_t>(layer)];
  const std::vector<char> pattern(static_cast<size_t>(bytes), '\xFF');
  options_.device->Copy(Queue::kCompute, pattern.data(), Address(layer, slot), bytes);
  const absl::Status done = options_.device->Synchronize();
  TC_CHECK(done.ok()) << done;
}

void ExpertCache::Unpin(int32_t layer, int32_t slot) {
  Slot& entry = slots_[static_cast<size_t>(layer)][static_cast<size_t>(slot)];
  TC_CHECK(entry.pins > 0);
  --entry.pins;
}

}  // namespace thermocline
