// ExpertSource: what the tier below the host's memory, the model's files, holds of every expert,
// cut into the pieces in which it is read.
#ifndef THERMOCLINE_CACHE_EXPERT_SOURCE_H_
#define THERMOCLINE_CACHE_EXPERT_SOURCE_H_

#include <array>
#include <cstdint>

#include "absl/status/status.h"
#include "cache/expert_id.h"

namespace thermocline {

// Which count of an Arrival a piece belongs to.
enum class ExpertPart : uint8_t { kGateUp, kDown };

// Bytes that lie together in one file.
struct FileRange {
  int32_t file = 0;
  int64_t offset = 0;
  int64_t bytes = 0;
};

// Some rows of an expert as a file stores them, about a mebibyte, each read once even where gate
// and up lie in turns. Codes and scales that are stored apart are two ranges.
struct ReadPiece {
  ExpertId expert;
  int32_t index = 0;  // among the expert's pieces: gate and up first, then down
  ExpertPart part = ExpertPart::kGateUp;
  int num_ranges = 1;
  std::array<FileRange, 2> ranges;
};

class ExpertSource {
 public:
  virtual ~ExpertSource() = default;

  virtual int NumPieces(ExpertId id, ExpertPart part) const = 0;
  virtual ReadPiece PieceOf(ExpertId id, int32_t index) const = 0;
  // Stored bytes into their place in the slot of an expert. `bytes` holds one address a range. Any
  // thread; pieces of an expert in any order. DATA_LOSS, naming the file, when the bytes are not
  // those that were there when the piece was first read, or the file has changed since it was
  // opened.
  virtual absl::Status Arrive(const ReadPiece& piece, const std::array<const char*, 2>& bytes,
                              char* slot) = 0;
};

}  // namespace thermocline

#endif  // THERMOCLINE_CACHE_EXPERT_SOURCE_H_
