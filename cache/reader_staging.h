// ReaderStaging: the staging buffers of a reader, and what is in them.
#ifndef THERMOCLINE_CACHE_READER_STAGING_H_
#define THERMOCLINE_CACHE_READER_STAGING_H_

#include <atomic>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "cache/expert_reader.h"
#include "kernels/buffer.h"
#include "kernels/mutex.h"

namespace thermocline {

// What to ask of a file so that a range lands in a buffer: whole blocks where O_DIRECT wants them.
struct RangeRead {
  int fd = -1;
  bool direct = false;
  int64_t offset = 0;  // in the file
  int64_t bytes = 0;   // to ask for
  int64_t needed = 0;  // that must come; a file may end inside its last block
  char* buffer = nullptr;
  const char* data = nullptr;  // where the range begins in the buffer
  int64_t done = 0;            // that have come

  bool finished() const { return done >= needed; }
};

// A read from Start to GiveBack.
struct StagedRead {
  ReadPiece piece;
  int buffer = 0;
  bool cancelled = false;
  std::vector<RangeRead> ranges;
};

class ReaderStaging {
 public:
  // RESOURCE_EXHAUSTED without memory.
  static absl::StatusOr<std::unique_ptr<ReaderStaging>> Create(const ReaderOptions& options);

  int64_t bytes() const { return memory_.bytes(); }
  int num_free() const;
  // Takes a buffer for the piece; there must be one. The read stays where it is until GiveBack.
  StagedRead* Take(const ReadPiece& piece, ReadTicket ticket);
  // Asks for the ranges of the read from their beginning. `buffered`: without O_DIRECT.
  void Plan(StagedRead* read, bool buffered) const;
  StagedRead* Find(ReadTicket ticket);
  void GiveBack(ReadTicket ticket);

  void PushLanded(ReadTicket ticket, const absl::Status& status);
  std::optional<Landed> TakeLanded();
  // What happened to a range: an errno, or 0 for a file that has ended.
  absl::Status Error(const StagedRead& read, const RangeRead& range, int error) const;

 private:
  ReaderStaging(const ReaderOptions& options, int64_t buffer_bytes, Buffer memory)
      : files_(options.files), buffer_bytes_(buffer_bytes), memory_(std::move(memory)) {}

  const std::vector<ReadFile> files_;
  const int64_t buffer_bytes_;
  Buffer memory_;
  mutable Mutex mutex_;
  std::vector<int> free_ ABSL_GUARDED_BY(mutex_);
  std::map<ReadTicket, StagedRead> reads_ ABSL_GUARDED_BY(mutex_);
  std::deque<Landed> landed_ ABSL_GUARDED_BY(mutex_);
};

// What readers with staging buffers have in common.
class StagedReader : public ExpertReader {
 public:
  bool CanStart() const override { return num_free() > 0; }
  int num_free() const override { return staging_->num_free(); }
  void GiveBack(ReadTicket ticket) override { staging_->GiveBack(ticket); }
  std::optional<Landed> TakeLanded() override { return staging_->TakeLanded(); }
  int64_t bytes_read() const override { return bytes_read_.load(); }
  int64_t staging_bytes() const override { return staging_->bytes(); }

 protected:
  StagedReader(ReaderOptions options, std::unique_ptr<ReaderStaging> staging)
      : options_(std::move(options)), staging_(std::move(staging)) {}
  std::string DescribeAs(absl::string_view how) const;

  const ReaderOptions options_;
  std::unique_ptr<ReaderStaging> staging_;
  std::atomic<int64_t> bytes_read_{0};
};

// Constructors, for cache/registry.cc.
absl::StatusOr<std::unique_ptr<ExpertReader>> MakeThreadsReader(ReaderOptions options);
absl::StatusOr<std::unique_ptr<ExpertReader>> MakeUringReader(ReaderOptions options);

}  // namespace thermocline

#endif  // THERMOCLINE_CACHE_READER_STAGING_H_
