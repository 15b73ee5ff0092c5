#include "engine/formats/gguf.h"

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/formats/gguf_types.h"
#include "kernels/quant/registry.h"

namespace thermocline {
namespace {

constexpr int64_t kMaxKeyBytes = 1 << 16;
constexpr int kMaxShards = 9999;

// Reads the header part of one file through a growing window; every read is checked against the
// file's size.
class GgufReader {
 public:
  GgufReader(Checkpoint* checkpoint, int file_idx, int64_t file_bytes)
      : checkpoint_(checkpoint), file_idx_(file_idx), file_bytes_(file_bytes) {}

  absl::Status Parse(Metadata* metadata, MetadataTypes* types);

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

  absl::Status ReadValue(MetadataValue* out, MetadataType* type);
  absl::Status ReadArray(MetadataValue* out, MetadataType* type);
  absl::Status ReadTensors(uint64_t num_tensors, int64_t alignment);

  Checkpoint* checkpoint_;
  int file_idx_;
  int64_t file_bytes_;
  int64_t position_ = 0;
  std::vector<char> window_;
  int64_t window_begin_ = 0;
  int64_t window_end_ = 0;
};

absl::Status GgufReader::ReadValue(MetadataValue* out, MetadataType* wire) {
  uint32_t type = 0;
  if (absl::Status s = ReadNumber(&type); !s.ok()) return s;
  wire->type = type;
  switch (static_cast<GgufType>(type)) {
    case GgufType::kU8:
      return ReadScalar<uint8_t, int64_t>(out);
    case GgufType::kI8:
      return ReadScalar<int8_t, int64_t>(out);
    case GgufType::kU16:
      return ReadScalar<uint16_t, int64_t>(out);
    case GgufType::kI16:
      return ReadScalar<int16_t, int64_t>(out);
    case GgufType::kU32:
      return ReadScalar<uint32_t, int64_t>(out);
    case GgufType::kI32:
      return ReadScalar<int32_t, int64_t>(out);
    case GgufType::kI64:
      return ReadScalar<int64_t, int64_t>(out);
    case GgufType::kU64:
      return ReadScalar<uint64_t, uint64_t>(out);
    case GgufType::kF32:
      return ReadScalar<float, double>(out);
    case GgufType::kF64:
      return ReadScalar<double, double>(out);
    case GgufType::kBool: {
      uint8_t value = 0;
      if (absl::Status s = ReadNumber(&value); !s.ok()) return s;
      if (value > 1) return Fail(absl::StrCat("a boolean of value ", value));
      *out = value == 1;
      return absl::OkStatus();
    }
    case GgufType::kString: {
      std::string text;
      if (absl::Status s = ReadString(kMaxMetadataBytes, &text); !s.ok()) return s;
      *out = std::move(text);
      return absl::OkStatus();
    }
    case GgufType::kArray:
      return ReadArray(out, wire);
  }
  return Fail(absl::StrCat("unknown metadata type ", type));
}

absl::Status GgufReader::ReadArray(MetadataValue* out, MetadataType* wire) {
  uint32_t type = 0;
  uint64_t count = 0;
  if (absl::Status s = ReadNumber(&type); !s.ok()) return s;
  wire->elem_type = type;
  if (absl::Status s = ReadNumber(&count); !s.ok()) return s;
  switch (static_cast<GgufType>(type)) {
    case GgufType::kU8:
      return ReadArrayOf<uint8_t, int64_t>(count, out);
    case GgufType::kI8:
      return ReadArrayOf<int8_t, int64_t>(count, out);
    case GgufType::kU16:
      return ReadArrayOf<uint16_t, int64_t>(count, out);
    case GgufType::kI16:
      return ReadArrayOf<int16_t, int64_t>(count, out);
    case GgufType::kU32:
      return ReadArrayOf<uint32_t, int64_t>(count, out);
    case GgufType::kI32:
      return ReadArrayOf<int32_t, int64_t>(count, out);
    case GgufType::kI64:
      return ReadArrayOf<int64_t, int64_t>(count, out);
    case GgufType::kU64:
      return ReadArrayOf<uint64_t, int64_t>(count, out);
    case GgufType::kF32:
      return ReadArrayOf<float, double>(count, out);
    case GgufType::kF64:
      return ReadArrayOf<double, double>(count, out);
    case GgufType::kBool:
      return ReadArrayOf<uint8_t, int64_t>(count, out);
    case GgufType::kString: {
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
    case GgufType::kArray:
      break;
  }
  return Fail(absl::StrCat("arrays of type ", type, " are not supported"));
}

absl::Status GgufReader::Parse(Metadata* metadata, MetadataTypes* types) {
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
    MetadataType type;
    if (absl::Status s = ReadString(kMaxKeyBytes, &key); !s.ok()) return s;
    if (absl::Status s = ReadValue(&value, &type); !s.ok()) return s;
    types->emplace(key, type);
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
    absl::StatusOr<DType> dtype = DTypeOfGgml(type);
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
    MetadataTypes later_types;
    GgufReader reader(checkpoint.get(), file->first, file->second);
    absl::Status parsed =
        i == 0 ? reader.Parse(checkpoint->mutable_metadata(), checkpoint->mutable_metadata_types())
               : reader.Parse(&later, &later_types);
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
