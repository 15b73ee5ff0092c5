// FakeReader: lands pieces of files that exist only as a function, in seeded order: at once, late,
// short, with an error, with wrong bytes, or never until it is stopped.
#ifndef THERMOCLINE_TESTS_SUPPORT_FAKE_READER_H_
#define THERMOCLINE_TESTS_SUPPORT_FAKE_READER_H_

#include <chrono>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <random>
#include <thread>
#include <vector>

#include "cache/expert_reader.h"
#include "kernels/check.h"
#include "kernels/mutex.h"

namespace thermocline {

struct FakeReaderOptions {
  uint64_t seed = 1;
  int depth = 4;
  int errors = 0;   // of a thousand reads: errors, and a share of them wrong bytes and hung reads
  int never = 150;  // of a thousand late reads: those that do not land before they are stopped
  bool wrong_bytes = true;             // among the errors
  std::chrono::microseconds delay{0};  // of every read, at least
  int64_t buffer_bytes = 0;
  // Writes the stored bytes of a range.
  std::function<void(const FileRange&, char*)> read;
};

class FakeReader : public ExpertReader {
 public:
  FakeReader(FakeReaderOptions options, std::function<void(bool)> on_landed)
      : options_(std::move(options)), on_landed_(std::move(on_landed)), random_(options_.seed) {
    for (int i = 0; i < options_.depth; ++i) {
      memory_.emplace_back(static_cast<size_t>(options_.buffer_bytes));
      free_.push_back(i);
    }
    thread_ = std::thread([this] { Loop(); });
  }
  ~FakeReader() override {
    (void)Stop(60.0);
    const MutexLock lock(&mutex_);
    // Every buffer came back.
    TC_CHECK(free_.size() == memory_.size() && reads_.empty());
  }

  bool CanStart() const override { return num_free() > 0; }
  int num_free() const override {
    const MutexLock lock(&mutex_);
    return static_cast<int>(free_.size());
  }
  void Start(const ReadPiece& piece, ReadTicket ticket) override {
    const MutexLock lock(&mutex_);
    TC_CHECK(!free_.empty() && !stop_);
    Read& read = reads_[ticket];
    read.piece = piece;
    read.buffer = free_.back();
    read.due = Due();
    free_.pop_back();
    wake_.NotifyAll();
  }
  void Cancel(ReadTicket ticket) override {  // some land at once, others as usual
    const MutexLock lock(&mutex_);
    if (random_() % 2 == 0) reads_.at(ticket).due = Now();
    wake_.NotifyAll();
  }
  void Again(ReadTicket ticket) override {
    const MutexLock lock(&mutex_);
    Read& read = reads_.at(ticket);
    TC_CHECK(!read.open);
    read.open = true;
    read.due = Due();
    wake_.NotifyAll();
  }
  void GiveBack(ReadTicket ticket) override {
    const MutexLock lock(&mutex_);
    const Read& read = reads_.at(ticket);
    TC_CHECK(!read.open);
    free_.push_back(read.buffer);
    reads_.erase(ticket);
  }
  std::optional<Landed> TakeLanded() override {
    const MutexLock lock(&mutex_);
    if (landed_.empty()) return std::nullopt;
    Landed landed = landed_.front();
    landed_.pop_front();
    return landed;
  }
  void Nudge() override {
    const MutexLock lock(&mutex_);
    nudged_ = true;
    wake_.NotifyAll();
  }
  // What hangs lands now.
  bool Stop(double) override {
    {
      const MutexLock lock(&mutex_);
      stop_ = true;
      wake_.NotifyAll();
    }
    if (thread_.joinable()) thread_.join();
    return true;
  }
  int64_t bytes_read() const override { return 0; }
  int64_t staging_bytes() const override { return options_.depth * options_.buffer_bytes; }
  std::string Describe() const override { return "fake"; }

 private:
  using Clock = std::chrono::steady_clock;
  struct Read {
    ReadPiece piece;
    int buffer = 0;
    bool open = true;
    bool hung = false;
    Clock::time_point due;
  };

  static Clock::time_point Now() { return Clock::now(); }
  Clock::time_point Due() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return Now() + options_.delay +
           std::chrono::microseconds(random_() % 3 == 0 ? random_() % 200 : random_() % 15);
  }
  bool Chance(int of_a_thousand) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return static_cast<int>(random_() % 1000) < of_a_thousand;
  }

  void Loop() {
    while (true) {
      bool landed = false, nudged = false;
      {
        const MutexLock lock(&mutex_);
        std::vector<ReadTicket> ripe;
        bool open = false;
        Clock::time_point next = Now() + std::chrono::hours(1);
        for (const auto& [ticket, read] : reads_) {
          if (!read.open) continue;
          open = true;
          if (read.due <= Now() || stop_) {
            ripe.push_back(ticket);
          } else {
            next = std::min(next, read.due);
          }
        }
        if (stop_ && !open) return;
        std::swap(nudged, nudged_);
        if (!ripe.empty()) {
          landed = Complete(ripe[random_() % ripe.size()]);
        } else if (!nudged) {
          (void)wake_.WaitFor(&mutex_, next - Now());
          continue;
        }
      }
      if (landed || nudged) on_landed_(landed);
    }
  }

  // True when it has landed.
  bool Complete(ReadTicket ticket) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    Read& read = reads_.at(ticket);
    const int errors = stop_ ? 0 : options_.errors;
    if (errors > 0 && !read.hung && Chance(1 + errors / 8)) {  // late, or never until Stop
      read.hung = true;
      read.due = Now() + (Chance(options_.never) ? std::chrono::microseconds(3'600'000'000)
                                                 : std::chrono::microseconds(random_() % 12000));
      return false;
    }
    Landed landed;
    landed.ticket = ticket;
    std::vector<char>& buffer = memory_[static_cast<size_t>(read.buffer)];
    if (Chance(errors)) {
      landed.status = absl::DataLossError("EIO");
    } else {
      char* at = buffer.data();
      for (int i = 0; i < read.piece.num_ranges; ++i) {
        const FileRange& range = read.piece.ranges[static_cast<size_t>(i)];
        options_.read(range, at);
        landed.bytes[static_cast<size_t>(i)] = at;
        at += range.bytes;
      }
      if (options_.wrong_bytes && Chance(errors / 2))
        buffer[random_() % 8] ^= 0x55;  // a checksum will not hold
    }
    read.open = false;
    landed_.push_back(landed);
    return true;
  }

  const FakeReaderOptions options_;
  const std::function<void(bool)> on_landed_;
  mutable Mutex mutex_;
  CondVar wake_;
  std::mt19937_64 random_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::vector<char>> memory_;
  std::vector<int> free_ ABSL_GUARDED_BY(mutex_);
  std::map<ReadTicket, Read> reads_ ABSL_GUARDED_BY(mutex_);
  std::deque<Landed> landed_ ABSL_GUARDED_BY(mutex_);
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  bool nudged_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace thermocline

#endif  // THERMOCLINE_TESTS_SUPPORT_FAKE_READER_H_
