// ExpertStore: a model's experts, wherever they are: their files, the tiers above them, and who
// computes them.
#ifndef THERMOCLINE_ENGINE_EXPERT_STORE_H_
#define THERMOCLINE_ENGINE_EXPERT_STORE_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cache/expert_fetcher.h"
#include "cache/expert_tier.h"
#include "engine/expert_files.h"
#include "engine/expert_runner.h"
#include "kernels/backend.h"

namespace thermocline {

// Of a layer's experts, since the start.
struct ExpertStats {
  int64_t hits = 0;  // needed by a step and there
  int64_t misses = 0;
  int64_t evictions = 0;
  int64_t bytes_read = 0;  // of experts that came in whole
};

class ExpertStore {
 public:
  struct Options {
    const Checkpoint* checkpoint = nullptr;
    Backend* dense = nullptr;  // holds what experts are applied to
    Backend* host = nullptr;
    Backend* device = nullptr;  // null: none
    WorkerPool* pool = nullptr;
    int host_slots = 0;      // for each layer
    int device_experts = 0;  // of each layer, the first ones
    std::string policy = "lru";
    std::string reader = "auto";
    int read_depth = 8;
    bool poison = false;
  };

  // Makes room; reads only the biases. All outlive the store. INVALID_ARGUMENT for an unknown
  // policy or number of slots; RESOURCE_EXHAUSTED without memory.
  static absl::StatusOr<std::unique_ptr<ExpertStore>> Create(const Options& options,
                                                             ExpertFiles* files);
  ~ExpertStore();

  // Bytes that Fill will read.
  int64_t fill_bytes() const;
  // Reads the device's experts, and into the host's slots the next ones, as far as they hold them.
  // `progress` is called with bytes done. DATA_LOSS names the file.
  absl::Status Fill(const std::function<void(int64_t bytes)>& progress);

  ExpertRunner& runner() { return *runner_; }
  const ExpertRunner& runner() const { return *runner_; }
  const ExpertFiles& files() const { return *files_; }
  const ExpertTier& host() const { return *host_; }
  int host_slots() const { return options_.host_slots; }  // for each layer
  ExpertFetcher& fetcher() { return *fetcher_; }
  const ExpertFetcher& fetcher() const { return *fetcher_; }
  ExpertStats stats(int layer) const;

 private:
  explicit ExpertStore(const Options& options) : options_(options) {}

  absl::Status Initialize();
  absl::Status FillDevice(const std::function<void(int64_t)>& progress);
  // The experts that the host's slots begin with.
  std::vector<ExpertId> HostExperts() const;

  Options options_;
  ExpertFiles* files_ = nullptr;
  std::vector<ReadFile> read_files_;  // their direct descriptors are the store's
  // In construction order: later ones refer to earlier ones.
  std::unique_ptr<ExpertTier> host_, device_;
  std::unique_ptr<ExpertBiases> host_biases_, device_biases_;
  std::unique_ptr<ExpertFetcher> fetcher_;
  std::unique_ptr<ExpertRunner> runner_;
};

}  // namespace thermocline

#endif  // THERMOCLINE_ENGINE_EXPERT_STORE_H_
