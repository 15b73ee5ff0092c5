// Reads with pread, one thread for each read under way: where io_uring is refused, as in many
// containers.
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <thread>

#include "cache/reader_staging.h"

namespace thermocline {
namespace {

class ThreadsReader : public StagedReader {
 public:
  ThreadsReader(ReaderOptions options, std::unique_ptr<ReaderStaging> staging)
      : StagedReader(std::move(options), std::move(staging)) {
    for (int i = 0; i < options_.depth; ++i) threads_.emplace_back([this] { Loop(); });
  }
  ~ThreadsReader() override { (void)Stop(3600.0); }

  void Start(const ReadPiece& piece, ReadTicket ticket) override {
    staging_->Take(piece, ticket);
    const MutexLock lock(&mutex_);
    queue_.push_back(ticket);
    work_.NotifyOne();
  }
  void Cancel(ReadTicket ticket) override {
    const MutexLock lock(&mutex_);
    if (StagedRead* read = staging_->Find(ticket)) read->cancelled = true;
  }
  void Again(ReadTicket ticket) override {
    const MutexLock lock(&mutex_);
    queue_.push_front(ticket);
    work_.NotifyOne();
  }
  void Nudge() override {
    const MutexLock lock(&mutex_);
    nudged_ = true;
    work_.NotifyOne();
  }

  bool Stop(double seconds) override {
    {
      const MutexLock lock(&mutex_);
      stop_ = true;
      work_.NotifyAll();
      const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
      while (num_running_ > 0 || !queue_.empty()) {
        const auto left = std::chrono::duration_cast<std::chrono::nanoseconds>(
            end - std::chrono::steady_clock::now());
        if (left.count() <= 0 || !idle_.WaitFor(&mutex_, left)) break;
      }
      if (num_running_ > 0 || !queue_.empty()) return false;
    }
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
    return true;
  }

  std::string Describe() const override { return DescribeAs("threads with pread"); }

 private:
  void Loop() {
    while (true) {
      ReadTicket ticket = 0;
      bool nudged = false, cancelled = false;
      {
        const MutexLock lock(&mutex_);
        while (queue_.empty() && !nudged_ && !stop_) work_.Wait(&mutex_);
        if (!queue_.empty()) {
          ticket = queue_.front();
          queue_.pop_front();
          cancelled = staging_->Find(ticket)->cancelled;
        } else if (nudged_) {
          nudged = true;
          nudged_ = false;
        } else {
          return;
        }
        ++num_running_;
      }
      if (!nudged) {
        staging_->PushLanded(ticket, cancelled ? absl::CancelledError("cancelled") : Read(ticket));
      }
      options_.on_landed(!nudged);
      const MutexLock lock(&mutex_);
      --num_running_;
      idle_.NotifyAll();
    }
  }

  absl::Status Read(ReadTicket ticket) {
    StagedRead* read = staging_->Find(ticket);
    absl::Status status = ReadRanges(read, /*buffered=*/false);
    // A file system may take O_DIRECT when a file is opened and refuse the read.
    if (absl::IsUnimplemented(status)) status = ReadRanges(read, /*buffered=*/true);
    return status;
  }

  absl::Status ReadRanges(StagedRead* read, bool buffered) {
    staging_->Plan(read, buffered);
    for (RangeRead& range : read->ranges) {
      while (!range.finished()) {
        const ssize_t got =
            pread(range.fd, range.buffer + range.done,
                  static_cast<size_t>(range.bytes - range.done), range.offset + range.done);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0 && errno == EINVAL && range.direct) return absl::UnimplementedError("");
        if (got <= 0) return staging_->Error(*read, range, got == 0 ? 0 : errno);
        range.done += got;
        bytes_read_.fetch_add(got, std::memory_order_relaxed);
      }
      if (!range.direct && !options_.keep_cached)
        posix_fadvise(range.fd, range.offset, range.bytes, POSIX_FADV_DONTNEED);
    }
    return absl::OkStatus();
  }

  Mutex mutex_;
  CondVar work_, idle_;
  std::deque<ReadTicket> queue_ ABSL_GUARDED_BY(mutex_);
  bool nudged_ ABSL_GUARDED_BY(mutex_) = false;
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  int num_running_ ABSL_GUARDED_BY(mutex_) = 0;
  std::vector<std::thread> threads_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<ExpertReader>> MakeThreadsReader(ReaderOptions options) {
  absl::StatusOr<std::unique_ptr<ReaderStaging>> staging = ReaderStaging::Create(options);
  if (!staging.ok()) return staging.status();
  return std::unique_ptr<ExpertReader>(new ThreadsReader(std::move(options), *std::move(staging)));
}

}  // namespace thermocline
