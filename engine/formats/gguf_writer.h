// GgufWriter: writes a GGUF file of version 3, metadata first, then the tensors one after the
// other.
#ifndef THERMOCLINE_ENGINE_FORMATS_GGUF_WRITER_H_
#define THERMOCLINE_ENGINE_FORMATS_GGUF_WRITER_H_

#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/formats/checkpoint.h"

namespace thermocline {

// Writes to "<path>.partial" and renames at the end: an interrupted run leaves no half file under
// the name, and a failed one removes what it wrote.
class GgufWriter {
 public:
  // ALREADY_EXISTS when the file is there and `replace` is false.
  static absl::StatusOr<std::unique_ptr<GgufWriter>> Create(const std::string& path, bool replace);
  ~GgufWriter();
  GgufWriter(const GgufWriter&) = delete;
  GgufWriter& operator=(const GgufWriter&) = delete;

  // Before WriteHeader. Without a type: whole numbers become u32, others f32, lists i32, f32 or
  // strings, as llama.cpp reads them.
  void Add(const std::string& key, const MetadataValue& value);
  void Add(const std::string& key, const MetadataValue& value, MetadataType type);
  void AddTensor(const std::string& name, DType dtype, const std::vector<int64_t>& shape);

  absl::Status WriteHeader();
  // The next bytes of the tensors' data, in the order of AddTensor; padding is inserted between
  // them.
  absl::Status Write(const void* data, int64_t bytes);
  // Every tensor must be complete.
  absl::Status Finish();

 private:
  struct Tensor {
    std::string name;
    DType dtype = DType::kF32;
    std::vector<int64_t> shape;
    int64_t bytes = 0;
  };

  GgufWriter(std::string path, std::FILE* file) : path_(std::move(path)), file_(file) {}
  absl::Status WriteRaw(const void* data, int64_t bytes);

  std::string path_;
  std::FILE* file_;
  std::string metadata_;  // encoded
  uint64_t num_values_ = 0;
  std::vector<Tensor> tensors_;
  size_t current_ = 0;         // the tensor being written
  int64_t current_bytes_ = 0;  // of it, so far
};

}  // namespace thermocline

#endif  // THERMOCLINE_ENGINE_FORMATS_GGUF_WRITER_H_
