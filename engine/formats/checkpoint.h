// Checkpoint: an opened model file set, metadata in memory and tensors still on disk.
#ifndef THERMOCLINE_ENGINE_FORMATS_CHECKPOINT_H_
#define THERMOCLINE_ENGINE_FORMATS_CHECKPOINT_H_

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/dtype.h"
#include "nlohmann/json_fwd.hpp"

namespace thermocline {

// Limits on what a file may claim; far above real models.
inline constexpr int64_t kMaxTensors = 1 << 20;
inline constexpr int64_t kMaxMetadataBytes = int64_t{1} << 30;
inline constexpr int kMaxTensorRank = 4;

// How a tensor's bytes are found in the file.
enum class Storage : uint8_t {
  kPlain,      // as they are
  kMxfp4Pair,  // codes and scales in two tensors, as gpt-oss publishes them; read as MXFP4
  kFp8Blocks,  // F8_E4M3 with a scale for each block, as DeepSeek-V3 publishes them; read as BF16
};

// Where a tensor's bytes lie. Checked at open: they are inside the file, and `bytes` follows from
// dtype and shape.
struct TensorInfo {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;  // row-major, outermost first
  int file_idx = 0;
  int64_t offset = 0;
  int64_t bytes = 0;  // as read
  Storage storage = Storage::kPlain;
  // Of the scales, when the storage has them.
  int scales_file_idx = 0;
  int64_t scales_offset = 0;
  int64_t scale_block_rows = 0, scale_block_cols = 0;  // kFp8Blocks: weights that share a scale
  DType scales_dtype = DType::kF32;                    // kFp8Blocks

  int64_t num_elems() const;
};

// One value of GGUF metadata. Integers are widened; arrays hold one kind.
using MetadataValue =
    std::variant<int64_t, uint64_t, double, bool, std::string, std::vector<int64_t>,
                 std::vector<double>, std::vector<std::string>>;
using Metadata = std::map<std::string, MetadataValue>;

// The GGUF types (engine/formats/gguf_types.h) in which the values were stored: copies keep them.
struct MetadataType {
  uint32_t type = 0;
  uint32_t elem_type = 0;  // of arrays
};
using MetadataTypes = std::map<std::string, MetadataType>;

class Checkpoint {
 public:
  enum class Kind { kGguf, kHuggingFace };

  // Opens a .gguf file (any shard: the others are found beside it), a folder with config.json and
  // *.safetensors, or a folder with one GGUF model. NOT_FOUND, INVALID_ARGUMENT (malformed: says
  // where) or UNIMPLEMENTED (an unsupported tensor type).
  static absl::StatusOr<std::unique_ptr<Checkpoint>> Open(const std::string& path);

  Checkpoint(Kind kind, std::string path);
  ~Checkpoint();
  Checkpoint(const Checkpoint&) = delete;
  Checkpoint& operator=(const Checkpoint&) = delete;

  Kind kind() const { return kind_; }
  const std::string& path() const { return path_; }
  // GGUF metadata; empty for Hugging Face folders.
  const Metadata& metadata() const { return metadata_; }
  const MetadataTypes& metadata_types() const { return metadata_types_; }
  // config.json; null for GGUF.
  const nlohmann::json& config() const { return *config_; }
  const std::map<std::string, TensorInfo>& tensors() const { return tensors_; }
  const TensorInfo* Find(const std::string& name) const;
  int64_t total_bytes() const;
  const std::vector<std::string>& files() const { return files_; }

  // Reads bytes [offset, offset + bytes) of a tensor, whole blocks of its type. Any thread. I/O
  // errors name the file.
  absl::Status Read(const TensorInfo& tensor, int64_t offset, int64_t bytes,
                    void* destination) const;

  // From here on what Read has read does not stay in the page cache, which a memory limit counts;
  // what has been read is dropped now.
  void DropCached();

  // DATA_LOSS naming the file when it has been written to since it was opened. Any thread.
  absl::Status CheckUnchanged(int file_idx) const;
  // The open descriptor of a file.
  int fd(int file_idx) const { return fds_[static_cast<size_t>(file_idx)]; }

  // For the format readers. AddFile returns the file's index and size.
  absl::StatusOr<std::pair<int, int64_t>> AddFile(const std::string& file);
  absl::Status ReadFile(int file_idx, int64_t offset, int64_t bytes, void* destination) const;
  // Checks shape, type, bounds and uniqueness. For other storage than plain the reader has checked
  // the bounds.
  absl::Status AddTensor(TensorInfo tensor, int64_t file_bytes);
  Metadata* mutable_metadata() { return &metadata_; }
  MetadataTypes* mutable_metadata_types() { return &metadata_types_; }
  nlohmann::json* mutable_config() { return config_.get(); }

 private:
  Kind kind_;
  std::string path_;
  std::vector<std::string> files_;
  std::vector<int> fds_;
  bool drop_cached_ = false;
  mutable std::atomic<int64_t> cached_{0};  // bytes read since they were dropped last
  struct Stamp {
    int64_t bytes = 0, mtime_ns = 0;
  };
  std::vector<Stamp> stamps_;  // of each file, when it was opened
  Metadata metadata_;
  MetadataTypes metadata_types_;
  std::unique_ptr<nlohmann::json> config_;
  std::map<std::string, TensorInfo> tensors_;
};

// Bytes of a tensor, or INVALID_ARGUMENT when a dimension is out of range, the product overflows or
// rows are not whole blocks.
absl::StatusOr<int64_t> CheckedTensorBytes(DType dtype, const std::vector<int64_t>& shape);

// Whole small file into memory. INVALID_ARGUMENT above max_bytes.
absl::StatusOr<std::string> ReadWholeFile(const std::string& path, int64_t max_bytes);

}  // namespace thermocline

#endif  // THERMOCLINE_ENGINE_FORMATS_CHECKPOINT_H_
