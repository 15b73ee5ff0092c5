// ExpertStore: a model's experts, wherever they are: their files, the tiers above them, and who
// computes them.
#ifndef THERMOCLINE_ENGINE_PASS_EXPERT_STORE_H_
#define THERMOCLINE_ENGINE_PASS_EXPERT_STORE_H_

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cache/expert_fetcher.h"
#include "cache/expert_tier.h"
#include "cache/placement.h"
#include "engine/pass/expert_runner.h"
#include "engine/weights/expert_files.h"
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
  static constexpr int kReadDepth = 8;  // reads at once
  using MakeReader =
      std::function<absl::StatusOr<std::unique_ptr<ExpertReader>>(const ReaderOptions&)>;

  struct Options {
    const Checkpoint* checkpoint = nullptr;
    Backend* dense = nullptr;  // holds what experts are applied to
    Backend* host = nullptr;
    Backend* device = nullptr;  // null: none
    WorkerPool* pool = nullptr;
    std::vector<int> host_slots;           // of each size class (SizeClassesOf)
    const Placement* placement = nullptr;  // outlives the store
    std::string policy = "lru";
    std::string reader = "auto";
    int read_depth = kReadDepth;
    // Files are read through the page cache, which keeps them: for when there is room for it.
    bool page_cache = false;
    bool poison = false;
    MakeReader make_reader;  // unset: MakeExpertReader with `reader`
    std::chrono::nanoseconds read_deadline = std::chrono::seconds(30);
  };

  // Makes room; reads only the biases. All outlive the store. INVALID_ARGUMENT for an unknown
  // policy or number of slots; RESOURCE_EXHAUSTED without memory.
  static absl::StatusOr<std::unique_ptr<ExpertStore>> Create(const Options& options,
                                                             ExpertFiles* files);
  ~ExpertStore();

  // Bytes that will be read to fill the tiers.
  int64_t fill_bytes() const;
  // Reads the device's experts. From then on the host's slots fill with the next ones, as far as
  // they hold them, whenever Tend or Fill is called. `progress` is called with bytes done.
  // DATA_LOSS names the file.
  absl::Status StartFill(const std::function<void(int64_t bytes)>& progress);
  // Whether anything is on its way, or to be.
  bool busy();
  // Between steps: what has arrived is entered in the books, what is next begins.
  void Tend();
  // Fills the tiers with the pool's threads until all is there or `stop` says so; it is asked
  // whenever something has arrived, and after Raise.
  void Fill(const std::function<void(int64_t bytes)>& progress, const std::function<bool()>& stop);
  void Raise() { fetcher_->Raise(); }  // any thread
  // Of an expert that could not be read; the first one since the start.
  absl::Status first_failure() { return fetcher_->first_failure(); }
  // The host's slots are to take no more than so many bytes, or more again, which are filled.
  // Between steps. Whether that changes anything.
  bool Resize(int64_t bytes);

  ExpertRunner& runner() { return *runner_; }
  const ExpertRunner& runner() const { return *runner_; }
  const ExpertFiles& files() const { return *files_; }
  const ExpertTier& host() const { return *host_; }
  // Slots of all layers that may be used now.
  int num_host_slots() const;
  ExpertFetcher& fetcher() { return *fetcher_; }
  const ExpertFetcher& fetcher() const { return *fetcher_; }
  ExpertStats stats(int layer) const;

 private:
  explicit ExpertStore(const Options& options) : options_(options) {}

  absl::Status Initialize();
  absl::Status FillDevice(const std::function<void(int64_t)>& progress);
  // The experts that the host's slots begin with: those that the placement wants there, then the
  // first others of every layer, layer by layer.
  std::vector<ExpertId> HostExperts() const;
  // Those of them that a placement wants there and that are not.
  std::vector<ExpertId> MissingExperts() const;
  // Those that the device holds.
  std::vector<ExpertId> DeviceExperts() const;
  void AddExperts(int layer, Wanted wanted, int most, std::vector<ExpertId>* ids) const;

  Options options_;
  ExpertFiles* files_ = nullptr;
  std::vector<ReadFile> read_files_;  // their direct descriptors are the store's
  // In construction order: later ones refer to earlier ones.
  std::unique_ptr<ExpertTier> host_, device_;
  std::unique_ptr<ExpertBiases> host_biases_, device_biases_;
  std::unique_ptr<ExpertFetcher> fetcher_;
  std::unique_ptr<ExpertRunner> runner_;
  std::vector<ExpertId> to_fill_;
  size_t num_begun_ = 0;    // of to_fill_
  size_t num_missing_ = 0;  // kept ones that steps held up when all had begun
};

}  // namespace thermocline

#endif  // THERMOCLINE_ENGINE_PASS_EXPERT_STORE_H_
