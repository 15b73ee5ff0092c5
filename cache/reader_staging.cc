#include "cache/reader_staging.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"
#include "kernels/host_memory.h"

namespace thermocline {
namespace {

// Buffers begin at pages, which every block size divides or is a multiple of.
constexpr int64_t kPageBytes = 4096;

int64_t RoundUp(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

}  // namespace

absl::StatusOr<std::unique_ptr<ReaderStaging>> ReaderStaging::Create(const ReaderOptions& options) {
  int64_t alignment = kPageBytes;
  for (const ReadFile& file : options.files) alignment = std::max(alignment, file.alignment);
  // Two blocks for each of two ranges: one before and one behind it.
  const int64_t buffer_bytes = RoundUp(options.max_piece_bytes, alignment) + 4 * alignment;
  // AllocateHost aligns large memory to 2 MiB and small one to 64 bytes; a page more covers both.
  absl::StatusOr<Buffer> memory = AllocateHost(options.depth * buffer_bytes + alignment);
  if (!memory.ok()) return memory.status();
  std::unique_ptr<ReaderStaging> staging(
      new ReaderStaging(options, buffer_bytes, *std::move(memory)));
  const MutexLock lock(&staging->mutex_);
  for (int i = options.depth; i > 0; --i) staging->free_.push_back(i - 1);
  return staging;
}

int ReaderStaging::num_free() const {
  const MutexLock lock(&mutex_);
  return static_cast<int>(free_.size());
}

StagedRead* ReaderStaging::Take(const ReadPiece& piece, ReadTicket ticket) {
  const MutexLock lock(&mutex_);
  TC_CHECK(!free_.empty()) << "no staging buffer is free";
  StagedRead* read = &reads_[ticket];
  read->piece = piece;
  read->buffer = free_.back();
  free_.pop_back();
  return read;
}

void ReaderStaging::Plan(StagedRead* read, bool buffered) const {
  const int64_t begin = RoundUp(reinterpret_cast<intptr_t>(memory_.data()), kPageBytes);
  char* buffer = reinterpret_cast<char*>(begin) + read->buffer * buffer_bytes_;
  read->ranges.clear();
  for (int i = 0; i < read->piece.num_ranges; ++i) {
    const FileRange& range = read->piece.ranges[static_cast<size_t>(i)];
    const ReadFile& file = files_[static_cast<size_t>(range.file)];
    RangeRead ask;
    ask.direct = !buffered && file.direct_fd >= 0;
    ask.fd = ask.direct ? file.direct_fd : file.fd;
    const int64_t unit = ask.direct ? file.alignment : 1;
    ask.offset = range.offset / unit * unit;
    ask.needed = range.offset - ask.offset + range.bytes;
    ask.bytes = RoundUp(ask.needed, unit);
    ask.buffer = buffer;
    ask.data = buffer + (range.offset - ask.offset);
    buffer += RoundUp(ask.bytes, std::max(unit, kPageBytes));
    read->ranges.push_back(ask);
  }
}

StagedRead* ReaderStaging::Find(ReadTicket ticket) {
  const MutexLock lock(&mutex_);
  const auto it = reads_.find(ticket);
  return it == reads_.end() ? nullptr : &it->second;
}

void ReaderStaging::GiveBack(ReadTicket ticket) {
  const MutexLock lock(&mutex_);
  const auto it = reads_.find(ticket);
  TC_CHECK(it != reads_.end());
  free_.push_back(it->second.buffer);
  reads_.erase(it);
}

void ReaderStaging::PushLanded(ReadTicket ticket, const absl::Status& status) {
  const MutexLock lock(&mutex_);
  const StagedRead& read = reads_.at(ticket);
  Landed landed;
  landed.ticket = ticket;
  landed.status = status;
  for (size_t i = 0; i < read.ranges.size(); ++i) landed.bytes[i] = read.ranges[i].data;
  landed_.push_back(std::move(landed));
}

std::optional<Landed> ReaderStaging::TakeLanded() {
  const MutexLock lock(&mutex_);
  if (landed_.empty()) return std::nullopt;
  Landed landed = std::move(landed_.front());
  landed_.pop_front();
  return landed;
}

std::string StagedReader::DescribeAs(absl::string_view how) const {
  bool direct = true;
  for (const ReadFile& file : options_.files) direct &= file.direct_fd >= 0;
  return absl::StrCat(how, ", ", options_.depth, " reads at once, ",
                      direct                 ? "past the page cache"
                      : options_.keep_cached ? "through the page cache"
                                             : "through the page cache, since the file system "
                                               "refuses O_DIRECT");
}

absl::Status ReaderStaging::Error(const StagedRead& read, const RangeRead& range, int error) const {
  const size_t i = static_cast<size_t>(&range - read.ranges.data());
  const FileRange& wanted = read.piece.ranges[i];
  return absl::DataLossError(absl::StrCat(
      "reading ", wanted.bytes, " bytes at ", wanted.offset, " of \"",
      files_[static_cast<size_t>(wanted.file)].path, "\" failed: ",
      error == 0 ? "the file is shorter than when it was opened" : std::strerror(error)));
}

}  // namespace thermocline
