#include "engine/formats/gguf.h"

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "kernels/quant/registry.h"

namespace thermocline {
namespace {

constexpr int64_t kMaxKeyBytes = 1 << 16;
constexpr int kMaxShards = 9999;

// The wire types of metadata values.
enum class ValueType : uint32_t {
  kU8,
  kI8,
  kU16,
  kI16,
  kU32,
  kI32,
  kF32,
  kBool,
  kString,
  kArray,
  kU64,
  kI64,
  kF64,
};

struct TypeName {
  uint32_t ggml_type;
  DType dtype;
};

// ggml_type numbers of ggml.h.
constexpr TypeName kTypes[] = {
    {0, DType::kF32},     {1, DType::kF16},     {2, DType::kQ4_0},  {3, DType::kQ4_1},
    {6, DType::kQ5_0},    {7, DType::kQ5_1},    {8, DType::kQ8_0},  {10, DType::kQ2_K},
    {11, DType::kQ3_K},   {12, DType::kQ4_K},   {13, DType::kQ5_K}, {14, DType::kQ6_K},
    {20, DType::kIQ4_NL}, {23, DType::kIQ4_XS}, {26, DType::kI32},  {30, DType::kBF16},
    {39, DType::kMXFP4},
};

absl::StatusOr<DType> DTypeOf(uint32_t ggml_type) {
  std::string supported;
  for (const TypeName& type : kTypes) {
    if (type.ggml_type == ggml_type) return type.dtype;
    absl::StrAppend(&supported, supported.empty() ? "" : ", ", GetFormat(type.dtype).name);
  }
  return absl::UnimplementedError(
      absl::StrCat("ggml type ", ggml_type, " is not supported; supported are ", supported));
}

// Reads the header part of one file through a growing window; every read is checked against the
// file's size.
class GgufReader {
 public:
  GgufReader(Checkpoint* checkpoint, int file_idx, int64_t file_bytes)
      : checkpoint_(checkpoint), file_idx_(file_idx), file_bytes_(file_bytes) {}

  absl::Status Parse(Metadata* metadata);

 private:
  absl::Status Fail(absl::string_view what) const {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", checkpoint_->files()[static_cast<size_t>(file_idx_)], "\" at byte ",
                     position_, ": ", what));
  }
  int64_t remaining() const { return file_bytes_ - position_; }

  absl::Status ReadBytes(void* out, int64_t bytes) {
    if (bytes > remaining()) return Fail(absl::StrCat("the file ends, ", bytes, " bytes expected"));
    if (position_ + bytes > kMaxMetadataBytes) return Fail("more than 1 GiB of metadata");
    if (bytes > window_end_ - position_ || position_ < window_begin_) {
      const int64_t size = std::min<int64_t>(remaining(), std::max<int64_t>(bytes, 1 << 20));
      window_.resize(static_cast<size_t>(size));
      absl::Status read = checkpoint_->ReadFile(file_idx_, position_, size, window_.data());
      if (!read.ok()) return read;
      window_begin_ = position_;
      window_end_ = position_ + size;
    }
    std::memcpy(out, window_.data() + (position_ - window_begin_), static_cast<size_t>(bytes));
    position_ += bytes;
    return absl::OkStatus();
  }

  template <class T>
  absl::Status ReadNumber(T* out) {
    return ReadBytes(out, sizeof(T));
  }

  absl::Status ReadString(int64_t max_bytes, std::string* out) {
    uint64_t length = 0;
    if (absl::Status s = ReadNumber(&length); !s.ok()) return s;
    if (length > static_cast<uint64_t>(std::min(max_bytes, remaining()))) {
      return Fail(absl::StrCat("a string of ", length, " bytes does not fit"));
    }
    out->resize(length);
    return ReadBytes(out->data(), static_cast<int64_t>(length));
  }

  template <class Wire, class Wide>
  absl::Status ReadScalar(MetadataValue* out) {
    Wire value{};
    if (absl::Status s = ReadNumber(&value); !s.ok()) return s;
    *out = static_cast<Wide>(value);
    return absl::OkStatus();
  }

  template <class Wire, class Wide>
  absl::Status ReadArrayOf(uint64_t count, MetadataValue* out) {
    if (count > static_cast<uint64_t>(std::min(remaining(), kMaxMetadataBytes - position_)) /
                    sizeof(Wire)) {
      return Fail(absl::StrCat("an array of ", count, " elements does not fit"));
    }
    std::vector<Wide> values;
    values.reserve(count);
    for (uint64_t i = 0; i < count; ++i) {
      Wire value{};
      if (absl::Status s = ReadNumber(&value); !s.ok()) return s;
      values.push_back(static_cast<Wide>(value));
    }
    *out = std::move(values);
    return absl::OkStatus();
  }

  absl::Status ReadValue(MetadataValue* out);
  absl::Status ReadArray(MetadataValue* out);
  absl::Status ReadTensors(uint64_t num_tensors, int64_t alignment);

  Checkpoint* checkpoint_;
  int file_idx_;
  int64_t file_bytes_;
  int64_t position_ = 0;
  std::vector<char> window_;
  int64_t window_begin_ = 0;
  int64_t window_end_ = 0;
};

absl::Status GgufReader::ReadValue(MetadataValue* out) {
  uint32_t type = 0;
  if (absl::Status s = ReadNumber(&type); !s.ok()) return s;
  switch (static_cast<ValueType>(type)) {
    case ValueType::kU8:
      return ReadScalar<uint8_t, int64_t>(out);
    case ValueType::kI8:
      return ReadScalar<int8_t, int64_t>(out);
    case ValueType::kU16:
      return ReadScalar<uint16_t, int64_t>(out);
    case ValueType::kI16:
      return ReadScalar<int16_t, int64_t>(out);
    case ValueType::kU32:
      return ReadScalar<uint32_t, int64_t>(out);
    case ValueType::kI32:
      return ReadScalar<int32_t, int64_t>(out);
    case ValueType::kI64:
      return ReadScalar<int64_t, int64_t>(out);
    case ValueType::kU64:
      return ReadScalar<uint64_t, uint64_t>(out);
    case ValueType::kF32:
      return ReadScalar<float, double>(out);
    case ValueType::kF64:
      return ReadScalar<double, double>(out);
    case ValueType::kBool: {
      uint8_t value = 0;
      if (absl::Status s = ReadNumber(&value); !s.ok()) return s;
      if (value > 1) return Fail(absl::StrCat("a boolean of value ", value));
      *out = value == 1;
      return absl::OkStatus();
    }
    case ValueType::kString: {
      std::string text;
      if (absl::Status s = ReadString(kMaxMetadataBytes, &text); !s.ok()) return s;
      *out = std::move(text);
      return absl::OkStatus();
    }
    case ValueType::kArray:
      return ReadArray(out);
  }
  return Fail(absl::StrCat("unknown metadata type ", type));
}

absl::Status GgufReader::ReadArray(MetadataValue* out) {
  uint32_t type = 0;
  uint64_t count = 0;
  if (absl::Status s = ReadNumber(&type); !s.ok()) return s;
  if (absl::Status s = ReadNumber(&count); !s.ok()) return s;
  switch (static_cast<ValueType>(type)) {
    case ValueType::kU8:
      return ReadArrayOf<uint8_t, int64_t>(count, out);
    case ValueType::kI8:
      return ReadArrayOf<int8_t, int64_t>(count, out);
    case ValueType::kU16:
      return ReadArrayOf<uint16_t, int64_t>(count, out);
    case ValueType::kI16:
      return ReadArrayOf<int16_t, int64_t>(count, out);
    case ValueType::kU32:
      return ReadArrayOf<uint32_t, int64_t>(count, out);
    case ValueType::kI32:
      return ReadArrayOf<int32_t, int64_t>(count, out);
    case ValueType::kI64:
      return ReadArrayOf<int64_t, int64_t>(count, out);
    case ValueType::kU64:
      return ReadArrayOf<uint64_t, int64_t>(count, out);
    case ValueType::kF32:
      return ReadArrayOf<float, double>(count, out);
    case ValueType::kF64:
      return ReadArrayOf<double, double>(count, out);
    case ValueType::kBool:
      return ReadArrayOf<uint8_t, int64_t>(count, out);
    case ValueType::kString: {
      if (count > static_cast<uint64_t>(std::min(remaining(), kMaxMetadataBytes - position_)) / 8) {
        return Fail(absl::StrCat("an array of ", count, " strings does not fit"));
      }
      std::vector<std::string> texts(count);
      for (std::string& text : texts) {
        if (absl::Status s = ReadString(kMaxMetadataBytes, &text); !s.ok()) return s;
      }
      *out = std::move(texts);
      return absl::OkStatus();
    }
    case ValueType::kArray:
      break;
  }
  return Fail(absl::StrCat("arrays of type ", type, " are not supported"));
}

absl::Status GgufReader::Parse(Metadata* metadata) {
  char magic[4] = {};
  uint32_t version = 0;
  uint64_t num_tensors = 0, num_values = 0;
  if (absl::Status s = ReadBytes(magic, 4); !s.ok()) return s;
  if (std::memcmp(magic, "GGUF", 4) != 0) return Fail("no GGUF magic: not a GGUF file");
  if (absl::Status s = ReadNumber(&version); !s.ok()) return s;
  if (version != 2 && version != 3) {
    return Fail(absl::StrCat("GGUF version ", version, ", but 2 and 3 are supported"));
  }
  if (absl::Status s = ReadNumber(&num_tensors); !s.ok()) return s;
  if (absl::Status s = ReadNumber(&num_values); !s.ok()) return s;
  if (num_tensors > static_cast<uint64_t>(kMaxTensors)) {
    return Fail(absl::StrCat(num_tensors, " tensors, but at most ", kMaxTensors, " are allowed"));
  }
  if (num_values > static_cast<uint64_t>(remaining()) / 12) {
    return Fail(absl::StrCat(num_values, " metadata entries do not fit"));
  }
  for (uint64_t i = 0; i < num_values; ++i) {
    std::string key;
    MetadataValue value;
    if (absl::Status s = ReadString(kMaxKeyBytes, &key); !s.ok()) return s;
    if (absl::Status s = ReadValue(&value); !s.ok()) return s;
    if (!metadata->emplace(key, std::move(value)).second) {
      return Fail(absl::StrCat("metadata key \"", key, "\" is there twice"));
    }
  }
  int64_t alignment = 32;
  if (const auto it = metadata->find("general.alignment"); it != metadata->end()) {
    const int64_t* given = std::get_if<int64_t>(&it->second);
    if (given == nullptr || *given < 1 || *given > (1 << 20) || (*given & (*given - 1)) != 0) {
      return Fail("general.alignment is not a power of two up to 1 MiB");
    }
    alignment = *given;
  }
  return ReadTensors(num_tensors, alignment);
}

absl::Status GgufReader::ReadTensors(uint64_t num_tensors, int64_t alignment) {
  std::vector<TensorInfo> tensors;
  for (uint64_t i = 0; i < num_tensors; ++i) {
    TensorInfo tensor;
    tensor.file_idx = file_idx_;
    uint32_t rank = 0, type = 0;
    uint64_t offset = 0;
    if (absl::Status s = ReadString(kMaxKeyBytes, &tensor.name); !s.ok()) return s;
    if (absl::Status s = ReadNumber(&rank); !s.ok()) return s;
    if (rank < 1 || rank > kMaxTensorRank) {
      return Fail(absl::StrCat("tensor \"", tensor.name, "\" has rank ", rank, ", but 1 to ",
                               kMaxTensorRank, " are allowed"));
    }
    for (uint32_t d = 0; d < rank; ++d) {
      uint64_t dim = 0;
      if (absl::Status s = ReadNumber(&dim); !s.ok()) return s;
      if (dim < 1 || dim > (uint64_t{1} << 48)) {
        return Fail(absl::StrCat("tensor \"", tensor.name, "\" has a dimension of ", dim));
      }
      tensor.shape.insert(tensor.shape.begin(),
                          static_cast<int64_t>(dim));  // innermost first on disk
    }
    if (absl::Status s = ReadNumber(&type); !s.ok()) return s;
    if (absl::Status s = ReadNumber(&offset); !s.ok()) return s;
    absl::StatusOr<DType> dtype = DTypeOf(type);
    if (!dtype.ok()) {
      return absl::UnimplementedError(
          absl::StrCat("tensor \"", tensor.name, "\": ", dtype.status().message()));
    }
    tensor.dtype = *dtype;
    if (offset > static_cast<uint64_t>(file_bytes_) || offset % alignment != 0) {
      return Fail(absl::StrCat("tensor \"", tensor.name, "\" has offset ", offset,
                               ", outside the file or not aligned to ", alignment));
    }
    tensor.offset = static_cast<int64_t>(offset);
    tensors.push_back(std::move(tensor));
  }
  const int64_t data_begin = (position_ + alignment - 1) / alignment * alignment;
  int64_t previous_end = 0;
  std::vector<std::pair<int64_t, int64_t>> extents;
  for (TensorInfo& tensor : tensors) {
    tensor.offset += data_begin;
    const std::string name = tensor.name;
    if (absl::Status s = checkpoint_->AddTensor(std::move(tensor), file_bytes_); !s.ok()) return s;
    const TensorInfo* added = checkpoint_->Find(name);
    extents.emplace_back(added->offset, added->offset + added->bytes);
  }
  std::sort(extents.begin(), extents.end());
  for (const auto& [begin, end] : extents) {
    if (begin < previous_end) return Fail(absl::StrCat("tensors overlap at byte ", begin));
    previous_end = end;
  }
  return absl::OkStatus();
}

// The shards of a split model, in order; one entry for a whole one. Named *-00001-of-00005.gguf.
absl::StatusOr<std::vector<std::string>> ShardPaths(const std::string& path) {
  constexpr size_t kSuffix = sizeof("-00001-of-00001.gguf") - 1;
  int index = 0, count = 0;
  char end = 0;
  if (path.size() < kSuffix ||
      std::sscanf(path.c_str() + path.size() - kSuffix, "-%5d-of-%5d.ggu%c", &index, &count,
                  &end) != 3 ||
      end != 'f') {
    return std::vector<std::string>{path};
  }
  if (count < 1 || count > kMaxShards || index < 1 || index > count) {
    return absl::InvalidArgumentError(absl::StrCat("\"", path, "\" names an impossible shard"));
  }
  std::vector<std::string> paths;
  const std::string prefix = path.substr(0, path.size() - kSuffix);
  for (int i = 1; i <= count; ++i) {
    paths.push_back(absl::StrFormat("%s-%05d-of-%05d.gguf", prefix, i, count));
  }
  return paths;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Checkpoint>> OpenGguf(const std::string& path) {
  absl::StatusOr<std::vector<std::string>> shards = ShardPaths(path);
  if (!shards.ok()) return shards.status();
  auto checkpoint = std::make_unique<Checkpoint>(Checkpoint::Kind::kGguf, path);
  for (size_t i = 0; i < shards->size(); ++i) {
    absl::StatusOr<std::pair<int, int64_t>> file = checkpoint->AddFile((*shards)[i]);
    if (!file.ok()) return file.status();
    Metadata later;
    GgufReader reader(checkpoint.get(), file->first, file->second);
    absl::Status parsed = reader.Parse(i == 0 ? checkpoint->mutable_metadata() : &later);
    if (!parsed.ok()) return parsed;
  }
  const auto expected = checkpoint->metadata().find("split.tensors.count");
  if (expected != checkpoint->metadata().end()) {
    const int64_t* count = std::get_if<int64_t>(&expected->second);
    if (count == nullptr || *count != static_cast<int64_t>(checkpoint->tensors().size())) {
      return absl::InvalidArgumentError(absl::StrCat(
          "the shards of \"", path, "\" hold ", checkpoint->tensors().size(),
          " tensors, but split.tensors.count says otherwise: a shard is missing or foreign"));
    }
  }
  return checkpoint;
}

}  // namespace thermocline
