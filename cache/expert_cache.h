// ExpertCache: where the weights of an expert are now, in one tier.
//
// Each layer has `capacity` slots of that layer's expert size in the memory of one device. An
// expert is used through a pinned handle; eviction touches only unpinned slots. The same class
// serves device memory over host RAM and host RAM over disk: the device says where the slots lie,
// the ExpertSource where the bytes come from.
#ifndef THERMOCLINE_CACHE_EXPERT_CACHE_H_
#define THERMOCLINE_CACHE_EXPERT_CACHE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cache/eviction_policy.h"
#include "kernels/device.h"

namespace thermocline {

// The tier below: reads one expert's packed bytes.
class ExpertSource {
 public:
  virtual ~ExpertSource() = default;
  // Fills destination, `bytes` long, with the expert. Any thread. I/O errors name the file.
  virtual absl::Status Read(ExpertId id, char* destination, int64_t bytes) = 0;
};

class ExpertCache;

// Keeps one expert in its slot. Move-only; hold it only while the expert is used. Engine thread
// only.
class PinnedExpert {
 public:
  PinnedExpert() = default;
  PinnedExpert(PinnedExpert&& other) noexcept { *this = std::move(other); }
  PinnedExpert& operator=(PinnedExpert&& other) noexcept;
  ~PinnedExpert();

  explicit operator bool() const { return cache_ != nullptr; }
  // Address in the memory of the cache's device.
  void* data() const { return data_; }

 private:
  friend class ExpertCache;
  PinnedExpert(ExpertCache* cache, int32_t layer, int32_t slot, void* data)
      : cache_(cache), layer_(layer), slot_(slot), data_(data) {}

  ExpertCache* cache_ = nullptr;
  int32_t layer_ = 0;
  int32_t slot_ = 0;
  void* data_ = nullptr;
};

struct ExpertCacheStats {
  int64_t hits = 0;
  int64_t misses = 0;
  int64_t evictions = 0;
  int64_t bytes_read = 0;
};

class ExpertCache {
 public:
  struct Options {
    Device* device = nullptr;           // owns the slots' memory; outlives the cache
    ExpertSource* source = nullptr;     // outlives the cache
    int num_experts = 0;                // per layer
    std::vector<int64_t> expert_bytes;  // one entry a layer; 0: the layer has no experts
    int capacity = 0;                   // slots a layer, at most num_experts; 0 makes an empty tier
    std::string policy = "lru";
    uint64_t seed = 0;
    bool poison_evicted = false;  // overwrite given-up slots with NaN patterns (tests)
  };

  // INVALID_ARGUMENT for a capacity below 0 or above num_experts, or an unknown policy;
  // RESOURCE_EXHAUSTED without memory.
  static absl::StatusOr<std::unique_ptr<ExpertCache>> Create(const Options& options);
  ~ExpertCache();

  int capacity() const { return options_.capacity; }
  int num_layers() const { return static_cast<int>(options_.expert_bytes.size()); }
  int num_experts() const { return options_.num_experts; }
  bool IsResident(ExpertId id) const { return SlotOf(id) >= 0; }
  int64_t resident_bytes() const;

  // The expert if it is resident, else an empty handle. Counts a hit or a miss.
  PinnedExpert Lookup(ExpertId id);
  // Reads the expert into a free or evicted slot. The expert must not be resident.
  // RESOURCE_EXHAUSTED when every slot of the layer is pinned; the source's error when reading
  // fails (the slot is then free again).
  absl::StatusOr<PinnedExpert> Insert(ExpertId id);
  // Reads the listed experts into free slots with `num_threads` threads; `progress` is called with
  // bytes done, from any of them, one at a time.
  absl::Status Preload(const std::vector<ExpertId>& ids, int num_threads,
                       const std::function<void(int64_t bytes)>& progress);

  const ExpertCacheStats& stats(int layer) const { return stats_[static_cast<size_t>(layer)]; }

 private:
  friend class PinnedExpert;
  struct Slot {
    int32_t expert = -1;  // -1: free
    int pins = 0;
  };

  explicit ExpertCache(const Options& options) : options_(options) {}

  int32_t SlotOf(ExpertId id) const;
  void* Address(int32_t layer, int32_t slot) const;
  // A slot to fill, its previous expert gone; -1 when all are pinned.
  int32_t TakeSlot(int32_t layer);
  absl::Status ReadInto(ExpertId id, int32_t slot);
  void Poison(int32_t layer, int32_t slot);
  void Unpin(int32_t layer, int32_t slot);

  Options options_;
  std::unique_ptr<EvictionPolicy> policy_;
  std::vector<Buffer> memory_;               // per layer
  std::vector<std::vector<Slot>> slots_;     // [layer][slot]
  std::vector<std::vector<int32_t>> where_;  // [layer][expert] -> slot or -1
  std::vector<ExpertCacheStats> stats_;
};

}  // namespace thermocline

#endif  // THERMOCLINE_CACHE_EXPERT_CACHE_H_
