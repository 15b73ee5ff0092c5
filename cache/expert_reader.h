// ExpertReader: moves bytes from files into staging memory; knows no expert.
//
// A staging buffer belongs to its read from Start to GiveBack, retries included. cache/registry.cc
// lists the ways of reading.
#ifndef THERMOCLINE_CACHE_EXPERT_READER_H_
#define THERMOCLINE_CACHE_EXPERT_READER_H_

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "cache/expert_source.h"

namespace thermocline {

using ReadTicket = uint64_t;

struct Landed {
  ReadTicket ticket = 0;
  absl::Status status;                    // DATA_LOSS names the file
  std::array<const char*, 2> bytes = {};  // of each range, in staging memory
};

// A file as readers want it.
struct ReadFile {
  std::string path;       // for messages
  int fd = -1;            // buffered
  int direct_fd = -1;     // O_DIRECT; -1: refused or not wanted
  int64_t alignment = 1;  // of offsets, lengths and memory for direct_fd
};

struct ReaderOptions {
  std::vector<ReadFile> files;  // descriptors stay open while the reader lives
  int depth = 8;                // reads under way at once, and staging buffers
  int64_t max_piece_bytes = 1 << 20;
  bool keep_cached = false;  // what is not read directly stays in the page cache
  // Called after something has landed, or a Nudge, by the threads of the reader.
  std::function<void(bool landed)> on_landed;
};

class ExpertReader {
 public:
  virtual ~ExpertReader() = default;

  // A staging buffer is free.
  virtual bool CanStart() const = 0;
  virtual int num_free() const = 0;
  // Returns at once. CanStart() must be true.
  virtual void Start(const ReadPiece& piece, ReadTicket ticket) = 0;
  // Nobody wants it any more; what has begun lands as usual.
  virtual void Cancel(ReadTicket ticket) = 0;
  // Reads a landed piece once more into its staging buffer, before anything that waits.
  virtual void Again(ReadTicket ticket) = 0;
  // The staging buffer of a landed piece is free. Any thread.
  virtual void GiveBack(ReadTicket ticket) = 0;
  // Any thread.
  virtual std::optional<Landed> TakeLanded() = 0;
  // Has on_landed called: landed pieces were left behind.
  virtual void Nudge() = 0;
  // Nothing starts any more; returns when every read has landed, or, false, when some have not
  // within `seconds`: their memory is then left alone for good.
  virtual bool Stop(double seconds) = 0;

  // Since the start: with what O_DIRECT adds to whole blocks.
  virtual int64_t bytes_read() const = 0;
  virtual int64_t staging_bytes() const = 0;
  // For the log: how it reads.
  virtual std::string Describe() const = 0;
};

// By name: "threads" or "io_uring"; "auto" takes io_uring where the system allows it.
// INVALID_ARGUMENT names the known ones, UNAVAILABLE says why one does not work here,
// RESOURCE_EXHAUSTED without memory.
absl::StatusOr<std::unique_ptr<ExpertReader>> MakeExpertReader(absl::string_view name,
                                                               const ReaderOptions& options);

}  // namespace thermocline

#endif  // THERMOCLINE_CACHE_EXPERT_READER_H_
