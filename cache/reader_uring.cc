// Reads with io_uring: one thread owns the ring, submits what others queue, and waits for what
// comes back.
#include <fcntl.h>
#include <liburing.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <thread>

#include "absl/strings/str_cat.h"
#include "cache/reader_staging.h"

namespace thermocline {
namespace {

// User data of the read of the eventfd; others are tickets and ranges.
constexpr uint64_t kWake = 0;

class UringReader : public StagedReader {
 public:
  UringReader(ReaderOptions options, std::unique_ptr<ReaderStaging> staging, const io_uring& ring,
              int wake_fd)
      : StagedReader(std::move(options), std::move(staging)), ring_(ring), wake_fd_(wake_fd) {
    thread_ = std::thread([this] { Loop(); });
  }
  ~UringReader() override {
    (void)Stop(3600.0);
    io_uring_queue_exit(&ring_);
    close(wake_fd_);
  }

  void Start(const ReadPiece& piece, ReadTicket ticket) override {
    staging_->Take(piece, ticket);
    Post(ticket);
  }
  // What is queued here has been submitted, or is about to be.
  void Cancel(ReadTicket) override {}
  void Again(ReadTicket ticket) override { Post(ticket); }
  void Nudge() override {
    const MutexLock lock(&mutex_);
    nudged_ = true;
    Wake();
  }

  bool Stop(double seconds) override {
    {
      const MutexLock lock(&mutex_);
      stop_ = true;
      Wake();
      const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
      while (!stopped_) {
        const auto left = std::chrono::duration_cast<std::chrono::nanoseconds>(
            end - std::chrono::steady_clock::now());
        if (left.count() <= 0 || !idle_.WaitFor(&mutex_, left)) break;
      }
      if (!stopped_) return false;
    }
    if (thread_.joinable()) thread_.join();
    return true;
  }

  std::string Describe() const override { return DescribeAs("io_uring"); }

 private:
  // Reads under way, by the thread.
  struct InFlight {
    StagedRead* read = nullptr;
    int open_ranges = 0;
    bool buffered = false;
    absl::Status status;
    bool refused = false;  // O_DIRECT was taken at open and is refused now
  };

  void Post(ReadTicket ticket) {
    const MutexLock lock(&mutex_);
    queue_.push_back(ticket);
    Wake();
  }
  void Wake() {
    const uint64_t one = 1;
    (void)!write(wake_fd_, &one, sizeof(one));
  }

  void ArmWake() {
    io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
    io_uring_prep_read(sqe, wake_fd_, &wake_value_, sizeof(wake_value_), 0);
    io_uring_sqe_set_data64(sqe, kWake);
  }

  void Submit(ReadTicket ticket, size_t range_idx) {
    RangeRead& range = in_flight_[ticket].read->ranges[range_idx];
    io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
    io_uring_prep_read(sqe, range.fd, range.buffer + range.done,
                       static_cast<unsigned>(range.bytes - range.done),
                       static_cast<uint64_t>(range.offset + range.done));
    io_uring_sqe_set_data64(sqe, ticket * 2 + range_idx + 1);
  }

  void Begin(ReadTicket ticket, bool buffered) {
    InFlight& flight = in_flight_[ticket];
    flight = {};
    flight.read = staging_->Find(ticket);
    flight.buffered = buffered;
    staging_->Plan(flight.read, buffered);
    flight.open_ranges = static_cast<int>(flight.read->ranges.size());
    for (size_t i = 0; i < flight.read->ranges.size(); ++i) Submit(ticket, i);
  }

  // True when the piece has landed.
  bool Complete(ReadTicket ticket, size_t range_idx, int result) {
    InFlight& flight = in_flight_[ticket];
    RangeRead& range = flight.read->ranges[range_idx];
    if (result == -EINTR || result == -EAGAIN) {
      Submit(ticket, range_idx);
      return false;
    }
    if (result > 0) {
      range.done += result;
      bytes_read_.fetch_add(result, std::memory_order_relaxed);
      if (!range.finished()) {
        Submit(ticket, range_idx);
        return false;
      }
      if (!range.direct && !options_.keep_cached)
        posix_fadvise(range.fd, range.offset, range.bytes, POSIX_FADV_DONTNEED);
    } else if (result == -EINVAL && range.direct) {
      flight.refused = true;
    } else {
      flight.status = staging_->Error(*flight.read, range, -result);
    }
    if (--flight.open_ranges > 0) return false;
    if (flight.refused && !flight.buffered) {
      Begin(ticket, /*buffered=*/true);
      return false;
    }
    staging_->PushLanded(ticket, flight.status);
    in_flight_.erase(ticket);
    return true;
  }

  void Loop() {
    ArmWake();
    while (true) {
      bool nudged = false, landed = false, stop = false;
      {
        const MutexLock lock(&mutex_);
        for (; !queue_.empty(); queue_.pop_front()) Begin(queue_.front(), /*buffered=*/false);
        std::swap(nudged, nudged_);
        stop = stop_;
      }
      if (stop && in_flight_.empty()) break;
      if (nudged) options_.on_landed(false);
      io_uring_submit_and_wait(&ring_, 1);
      io_uring_cqe* cqe = nullptr;
      while (io_uring_peek_cqe(&ring_, &cqe) == 0) {
        const uint64_t data = io_uring_cqe_get_data64(cqe);
        const int result = cqe->res;
        io_uring_cqe_seen(&ring_, cqe);
        if (data == kWake) {
          ArmWake();
        } else {
          landed |= Complete((data - 1) / 2, (data - 1) % 2, result);
        }
      }
      io_uring_submit(&ring_);  // the next reads go on while pieces are permuted
      if (landed) options_.on_landed(true);
    }
    const MutexLock lock(&mutex_);
    stopped_ = true;
    idle_.NotifyAll();
  }

  // The thread's.
  io_uring ring_;
  const int wake_fd_;
  uint64_t wake_value_ = 0;
  std::map<ReadTicket, InFlight> in_flight_;

  Mutex mutex_;
  CondVar idle_;
  std::deque<ReadTicket> queue_ ABSL_GUARDED_BY(mutex_);
  bool nudged_ ABSL_GUARDED_BY(mutex_) = false;
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<ExpertReader>> MakeUringReader(ReaderOptions options) {
  io_uring ring;
  const int made = io_uring_queue_init(static_cast<unsigned>(4 * options.depth + 8), &ring, 0);
  if (made < 0) {
    return absl::UnavailableError(absl::StrCat("io_uring is refused: ", std::strerror(-made)));
  }
  const int wake_fd = eventfd(0, EFD_CLOEXEC);
  absl::StatusOr<std::unique_ptr<ReaderStaging>> staging = ReaderStaging::Create(options);
  if (wake_fd < 0 || !staging.ok()) {
    io_uring_queue_exit(&ring);
    if (wake_fd >= 0) close(wake_fd);
    return staging.ok() ? absl::UnavailableError("no file descriptor is left") : staging.status();
  }
  return std::unique_ptr<ExpertReader>(
      new UringReader(std::move(options), *std::move(staging), ring, wake_fd));
}

}  // namespace thermocline
