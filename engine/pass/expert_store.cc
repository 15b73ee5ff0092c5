#include "engine/pass/expert_store.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"

namespace thermocline {
namespace {

// What O_DIRECT asks of a file where the system does not say: every block size divides it.
constexpr int64_t kDirectAlignment = 4096;

// The checkpoint's files, opened past the page cache where the file system allows it: the same
// files, whatever has become of their names.
std::vector<ReadFile> OpenForReading(const Checkpoint& checkpoint, bool page_cache) {
  std::vector<ReadFile> files;
  for (int i = 0; i < static_cast<int>(checkpoint.files().size()); ++i) {
    ReadFile file;
    file.path = checkpoint.files()[static_cast<size_t>(i)];
    file.fd = checkpoint.fd(i);
    const std::string link = absl::StrCat("/proc/self/fd/", file.fd);
    if (!page_cache) file.direct_fd = open(link.c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC);
    file.alignment = kDirectAlignment;
#ifdef STATX_DIOALIGN
    struct statx info = {};
    if (file.direct_fd >= 0 && statx(file.fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &info) == 0 &&
        (info.stx_mask & STATX_DIOALIGN) != 0 && info.stx_dio_offset_align > 0) {
      file.alignment = std::max(info.stx_dio_offset_align, info.stx_dio_mem_align);
    }
#endif
    files.push_back(std::move(file));
  }
  return files;
}

}  // namespace

absl::StatusOr<std::unique_ptr<ExpertStore>> ExpertStore::Create(const Options& options,
                                                                 ExpertFiles* files) {
  std::unique_ptr<ExpertStore> store(new ExpertStore(options));
  store->files_ = files;
  if (absl::Status s = store->Initialize(); !s.ok()) return s;
  return store;
}

ExpertStore::~ExpertStore() {
  runner_.reset();
  fetcher_.reset();
  for (const ReadFile& file : read_files_) {
    if (file.direct_fd >= 0) close(file.direct_fd);
  }
}

absl::Status ExpertStore::Initialize() {
  ExpertTier::Options tier;
  tier.device = options_.host->device.get();
  tier.layouts = files_->layouts();
  tier.num_experts = files_->num_experts();
  tier.slots = options_.host_slots;
  tier.policy = options_.policy;
  tier.placement = options_.placement;
  tier.seed = 1;
  tier.poison = options_.poison;
  absl::StatusOr<std::unique_ptr<ExpertTier>> host = ExpertTier::Create(tier);
  if (!host.ok()) return host.status();
  host_ = *std::move(host);
  absl::StatusOr<std::unique_ptr<ExpertBiases>> biases = ExpertBiases::Create(*files_, tier.device);
  if (!biases.ok()) return biases.status();
  host_biases_ = *std::move(biases);
  if (options_.device != nullptr && !DeviceExperts().empty()) {
    tier.device = options_.device->device.get();
    tier.here = Wanted::kDevice;
    tier.slots.clear();
    for (const SizeClass& size : SizeClassesOf(tier.layouts)) {
      size_t count = 0;
      for (const int l : size.layers) {
        count += options_.placement->Experts(l, Wanted::kDevice).size();
      }
      tier.slots.push_back(std::max(1, static_cast<int>(count)));
    }
    absl::StatusOr<std::unique_ptr<ExpertTier>> device = ExpertTier::Create(tier);
    if (!device.ok()) return device.status();
    device_ = *std::move(device);
    biases = ExpertBiases::Create(*files_, tier.device);
    if (!biases.ok()) return biases.status();
    device_biases_ = *std::move(biases);
  }
  read_files_ = OpenForReading(*options_.checkpoint, options_.page_cache);
  ExpertFetcher::Options fetcher;
  fetcher.tier = host_.get();
  fetcher.source = files_;
  fetcher.read_deadline = options_.read_deadline;
  fetcher.make_reader = [this](std::function<void(bool)> on_landed) {
    ReaderOptions reader;
    reader.files = read_files_;
    reader.depth = options_.read_depth;
    reader.keep_cached = options_.page_cache;
    reader.max_piece_bytes = std::max<int64_t>(1, files_->max_piece_bytes());
    reader.on_landed = std::move(on_landed);
    if (options_.make_reader) return options_.make_reader(reader);
    return MakeExpertReader(options_.reader, reader);
  };
  absl::StatusOr<std::unique_ptr<ExpertFetcher>> made = ExpertFetcher::Create(fetcher);
  if (!made.ok()) return made.status();
  fetcher_ = *std::move(made);
  runner_ = std::make_unique<ExpertRunner>(
      options_.dense, ExpertRunner::Tier{options_.host, host_.get(), host_biases_.get()},
      device_ != nullptr ? ExpertRunner::Tier{options_.device, device_.get(), device_biases_.get()}
                         : ExpertRunner::Tier{},
      fetcher_.get());
  return absl::OkStatus();
}

void ExpertStore::AddExperts(int layer, Wanted wanted, int most, std::vector<ExpertId>* ids) const {
  if (!host_->residency()->has_experts(layer)) return;
  for (const int32_t e : options_.placement->Experts(layer, wanted)) {
    if (most-- <= 0) return;
    ids->push_back({layer, e});
  }
}

std::vector<ExpertId> ExpertStore::HostExperts() const {
  std::vector<ExpertId> ids;
  for (int l = 0; l < host_->num_layers(); ++l) {
    AddExperts(l, Wanted::kHost, files_->num_experts(), &ids);
  }
  for (int l = 0; l < host_->num_layers(); ++l) {
    AddExperts(l, Wanted::kAnywhere, host_->residency()->quota(l), &ids);
  }
  return ids;
}

std::vector<ExpertId> ExpertStore::MissingExperts() const {
  std::vector<ExpertId> missing;
  for (int l = 0; l < host_->num_layers(); ++l) {
    AddExperts(l, Wanted::kHost, files_->num_experts(), &missing);
  }
  std::erase_if(missing,
                [&](ExpertId id) { return host_->residency()->StateOf(id) != SlotState::kFree; });
  return missing;
}

std::vector<ExpertId> ExpertStore::DeviceExperts() const {
  std::vector<ExpertId> ids;
  for (int l = 0; l < host_->num_layers(); ++l) {
    AddExperts(l, Wanted::kDevice, files_->num_experts(), &ids);
  }
  return ids;
}

int64_t ExpertStore::fill_bytes() const {
  int64_t bytes = 0;
  for (const ExpertId id : HostExperts()) bytes += host_->layout(id.layer).bytes;
  for (const ExpertId id : DeviceExperts()) bytes += host_->layout(id.layer).bytes;
  return bytes;
}

absl::Status ExpertStore::StartFill(const std::function<void(int64_t)>& progress) {
  if (device_ != nullptr) {
    if (absl::Status s = FillDevice(progress); !s.ok()) return s;
  }
  to_fill_ = HostExperts();
  num_begun_ = 0;
  num_missing_ = to_fill_.size() + 1;
  Tend();
  return absl::OkStatus();
}

bool ExpertStore::busy() { return num_begun_ < to_fill_.size() || !fetcher_->idle(); }

void ExpertStore::Tend() {
  constexpr int kAhead = 32;  // experts: more than can be under way at once
  fetcher_->Tend();
  if (num_begun_ == to_fill_.size()) {
    if (to_fill_.empty() || !fetcher_->idle()) return;
    // What gave way to a step's reads comes in after them, as long as that gets anywhere.
    to_fill_ = MissingExperts();
    num_begun_ = 0;
    if (to_fill_.size() >= std::exchange(num_missing_, to_fill_.size())) to_fill_.clear();
  }
  const int room = kAhead - fetcher_->num_filling();
  if (room <= kAhead / 2) return;
  const size_t count = std::min(to_fill_.size() - num_begun_, static_cast<size_t>(room));
  // Those that a step has brought in, or that could not be read, are left alone.
  fetcher_->Prefetch(absl::MakeConstSpan(to_fill_).subspan(num_begun_, count), Claimant::kFill);
  num_begun_ += count;
}

void ExpertStore::Fill(const std::function<void(int64_t)>& progress,
                       const std::function<bool()>& stop) {
  std::atomic<bool> over{false};
  const auto arrived = [&] {
    int64_t bytes = 0;
    for (int l = 0; l < host_->num_layers(); ++l) bytes += fetcher_->bytes_arrived(l);
    return bytes;
  };
  int64_t told = arrived();
  options_.pool->Together([&](int worker) {
    const bool tends = worker == 0;
    while (true) {
      const uint32_t seen = fetcher_->Epoch();  // before looking: what comes later moves it
      if (over.load()) return;
      if (tends) {
        Tend();
        if (const int64_t now = arrived(); progress && now > told) {
          progress(now - told);
          told = now;
        }
        if (!busy() || (stop && stop())) {
          over.store(true);
          fetcher_->Raise();
          return;
        }
      }
      if (!fetcher_->Help()) fetcher_->Sleep(seen, tends);
    }
  });
}

bool ExpertStore::Resize(int64_t bytes) {
  const int before = num_host_slots();
  host_->Resize(bytes);
  if (num_host_slots() > before) {
    to_fill_ = HostExperts();
    num_begun_ = 0;
    num_missing_ = to_fill_.size() + 1;
  }
  return num_host_slots() != before;
}

int ExpertStore::num_host_slots() const {
  int slots = 0;
  for (size_t c = 0; c < host_->size_classes().size(); ++c) {
    slots += host_->residency()->num_slots(static_cast<int>(c));
  }
  return slots;
}

absl::Status ExpertStore::FillDevice(const std::function<void(int64_t)>& progress) {
  Device* device = options_.device->device.get();
  std::vector<char> slot_bytes;
  for (const ExpertId id : DeviceExperts()) {
    const int64_t bytes = device_->layout(id.layer).bytes;
    slot_bytes.resize(static_cast<size_t>(bytes) + 64);
    char* host =
        slot_bytes.data() + (64 - reinterpret_cast<uintptr_t>(slot_bytes.data()) % 64) % 64;
    if (absl::Status read = files_->ReadWhole(id, host); !read.ok()) return read;
    const std::optional<SlotId> slot = device_->residency()->Claim(id, Claimant::kPrefetch);
    TC_CHECK(slot.has_value());
    device->Copy(Queue::kCopyIn, host, device_->Address(*slot), bytes);
    if (absl::Status s = device->Synchronize(Queue::kCopyIn); !s.ok()) return s;
    device_->residency()->Arrived(*slot, SlotState::kReady);
    progress(bytes);
  }
  return absl::OkStatus();
}

ExpertStats ExpertStore::stats(int layer) const {
  const ExpertRunner::Stats& used = runner_->stats(layer);
  return {used.hits, used.misses, host_->residency()->num_evictions(layer),
          fetcher_->bytes_arrived(layer)};
}

}  // namespace thermocline
