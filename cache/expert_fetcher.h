// ExpertFetcher: experts in flight. It brings missing experts from the tier below into a tier's
// slots while the step goes on, and is the feed of the parallel region that computes them.
//
// An expert is read in pieces (cache/expert_source.h). A piece is *wanted* until a staging buffer
// is free, then a *flight*: it is being read, has landed, and is permuted into its slot by whoever
// has nothing to compute (Help; outside a region by the reader's threads). The rules, each of which
// keeps something from standing still or going wrong:
//
//   * Reads of a step start strictly in the plan's order, also before their expert has a slot:
//     staging then always holds pieces of those who have one, or will have the next.
//   * Slots are claimed in the plan's order. If there is none, one prefetch after the other is
//   given
//     up, until a slot is free or one is about to be.
//   * A piece is counted down once: by who permuted it, or by the failure if nobody had begun to.
//     `failed` is set before a count reaches 0.
//   * A slot is left only when nobody permutes into it or uses it. A read that hangs keeps its
//     staging buffer, never a slot; when such reads hold all of staging, what waits behind them
//     fails.
//   * A retry reads into the buffer that the piece has; it never queues again.
//   * The epoch is read before looking for work. Landing, a piece permuted or retried, an expert
//     armed, failed or done raise it; who tends also wakes when a read is late.
//   * Prefetches take at most half of staging, and one piece beside the step's.
#ifndef THERMOCLINE_CACHE_EXPERT_FETCHER_H_
#define THERMOCLINE_CACHE_EXPERT_FETCHER_H_

#include <atomic>
#include <chrono>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cache/bell.h"
#include "cache/expert_reader.h"
#include "cache/expert_source.h"
#include "cache/expert_tier.h"
#include "kernels/mutex.h"

namespace thermocline {

class ExpertFetcher : public ExpertFeed {
 public:
  using Clock = std::chrono::steady_clock;
  struct Options {
    ExpertTier* tier = nullptr;  // in host memory; this and the source outlive the fetcher
    ExpertSource* source = nullptr;
    // Makes the reader, whose on_landed is given.
    std::function<absl::StatusOr<std::unique_ptr<ExpertReader>>(std::function<void(bool)>)>
        make_reader;
    std::chrono::nanoseconds read_deadline = std::chrono::seconds(30);
    std::chrono::nanoseconds retry_failed_after = std::chrono::seconds(10);
    int max_tries = 3;  // of a piece
    std::chrono::nanoseconds stop_deadline = std::chrono::seconds(10);
  };
  // An expert that could not be read: its rows are zeros.
  struct Failure {
    size_t work = 0;      // index among the layer's
    absl::Status status;  // DATA_LOSS naming expert and file
  };

  static absl::StatusOr<std::unique_ptr<ExpertFetcher>> Create(const Options& options);
  ~ExpertFetcher() override;

  // ---- the engine's thread ----

  // A layer's experts, in the plan's order: those that hold a slot first. Fills in weights and
  // arrival of those that are here or on their way; the others' reads begin. `works` stay until
  // End.
  void Begin(int layer, absl::Span<const int32_t> experts, absl::Span<ExpertWork> works);
  // Every expert of the layer is here, whole: nobody needs to tend.
  bool all_here() const { return all_here_; }
  // Threads of a region help from here on; End: no more, and the slots may be evicted.
  void EnterRegion() { in_region_.store(true); }
  std::vector<Failure> End();
  // Reads experts ahead into slots that the step does not need (kFill: that are free), first ones
  // first, as long as there are any. Those that are here are left alone.
  void Prefetch(absl::Span<const ExpertId> ids, Claimant who = Claimant::kPrefetch);
  void CancelPrefetches();
  // Of an expert that could not be read; the first one since the start.
  absl::Status first_failure();
  // Nothing is on its way.
  bool idle() const { return !busy_; }
  // Experts on their way, those that wait for a slot not counted.
  int num_filling() {
    const MutexLock lock(&mutex_);
    return static_cast<int>(filling_.size());
  }
  // Experts that came in whole since the start.
  int64_t bytes_arrived(int layer) const { return bytes_arrived_[static_cast<size_t>(layer)]; }

  // ---- ExpertFeed ----

  void Tend() override;
  bool Help() override;
  uint32_t Epoch() override { return bell_.Epoch(); }
  void Raise() override { bell_.Raise(); }
  void Sleep(uint32_t seen, bool tends) override;

  const ExpertReader& reader() const { return *reader_; }

 private:
  // A work of the layer at hand.
  struct Use {
    ExpertId id;
    ExpertWork* work = nullptr;
    bool released = false;
    absl::Status error;
  };
  // One expert on its way. Without a use: a prefetch.
  struct Fetch {
    ExpertId id;
    Use* use = nullptr;
    int plan = 0;  // its place in the layer's order
    SlotId slot = kNoSlot;
    int permuting = 0;       // pieces somebody is permuting
    int unpermuted[2] = {};  // pieces nobody has begun to permute, by ExpertPart
    bool over = false;       // failed or cancelled: its pieces are thrown away
  };
  using FetchPtr = std::shared_ptr<Fetch>;  // flights outlive the slot's claim
  struct Wish {
    FetchPtr fetch;
    int32_t piece = 0;
  };
  // One piece from Start until its staging buffer is given back.
  struct Flight {
    enum class State : uint8_t { kReading, kLanded, kPermuting };
    FetchPtr fetch;
    ReadPiece piece;
    Clock::time_point deadline;
    bool for_step = false;
    State state = State::kReading;
    bool abandoned = false;  // it was late: its landing is thrown away
    int tries = 1;
    std::array<const char*, 2> bytes = {};

    int64_t Order() const;
  };
  struct FailedExpert {
    Clock::time_point until;
    absl::Status status;
  };

  explicit ExpertFetcher(const Options& options);

  FetchPtr NewFetch(ExpertId id, Use* use, int plan) const;
  // The fetch's pieces that have not begun, at the plan's place.
  void Want(const FetchPtr& fetch) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The fetch has got a slot.
  void Arm(const FetchPtr& fetch, SlotId slot) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The use may read the slot, as far as it has arrived.
  void Publish(Use* use, SlotId slot);
  // Takes what has landed from the reader.
  void Sort() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Fail(Fetch* fetch, const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void FailLateReads() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Drop(ReadTicket ticket) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Landed pieces of a fetch that is over now, those being read when they land.
  void DropPieces(const Fetch* fetch) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // What has happened in the slot, into the books.
  void UpdateBooks(SlotId slot) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Nothing is on its way into the slot any more.
  void Leave(SlotId slot) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ReleaseUse(Use* use) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ClaimSlots() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void CancelPrefetch(Fetch* fetch) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool CancelOnePrefetch() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void StartReads() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Begin(std::deque<Wish>* queue, bool for_step) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Options options_;
  ExpertTier& tier_;
  Bell bell_;
  std::atomic<bool> in_region_{false};
  // The engine's thread only.
  std::vector<Use> uses_;
  bool busy_ = false;
  bool all_here_ = false;
  Clock::time_point next_deadline_ = Clock::time_point::max();
  std::vector<int64_t> bytes_arrived_;  // [layer]

  Mutex mutex_;  // taken once a piece, not once a task
  std::map<ReadTicket, Flight> flights_ ABSL_GUARDED_BY(mutex_);
  std::vector<FetchPtr> fetch_of_ ABSL_GUARDED_BY(mutex_);  // [slot]
  std::vector<SlotId> filling_ ABSL_GUARDED_BY(mutex_);     // slots with a fetch
  std::deque<FetchPtr> missing_ ABSL_GUARDED_BY(mutex_);    // the step's, without a slot
  std::deque<Wish> wanted_ ABSL_GUARDED_BY(mutex_);         // the step's, in the plan's order
  std::deque<Wish> prefetch_ ABSL_GUARDED_BY(mutex_);
  std::map<std::pair<int32_t, int32_t>, FailedExpert> failed_ ABSL_GUARDED_BY(mutex_);
  absl::Status first_failure_ ABSL_GUARDED_BY(mutex_);
  ReadTicket last_ticket_ ABSL_GUARDED_BY(mutex_) = 0;
  int num_abandoned_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t last_start_ ABSL_GUARDED_BY(mutex_) = -1;  // Order of the step's last read

  std::unique_ptr<ExpertReader> reader_;
};

}  // namespace thermocline

#endif  // THERMOCLINE_CACHE_EXPERT_FETCHER_H_
