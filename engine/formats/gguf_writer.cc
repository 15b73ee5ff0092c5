#include "engine/formats/gguf_writer.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "engine/formats/gguf_types.h"
#include "kernels/check.h"
#include "kernels/quant/registry.h"

namespace thermocline {
namespace {

constexpr int64_t kAlignment = 32;  // GGUF's default

std::string PartialPath(const std::string& path) { return path + ".partial"; }

template <class T>
void Append(T value, std::string* out) {
  out->append(reinterpret_cast<const char*>(&value), sizeof(value));
}

void AppendString(absl::string_view text, std::string* out) {
  Append<uint64_t>(text.size(), out);
  out->append(text.data(), text.size());
}

// A number in the given wire type.
template <class Number>
void AppendAs(GgufType type, Number value, std::string* out) {
  switch (type) {
    case GgufType::kU8:
      return Append(static_cast<uint8_t>(value), out);
    case GgufType::kI8:
      return Append(static_cast<int8_t>(value), out);
    case GgufType::kBool:
      return Append(static_cast<uint8_t>(value != 0), out);
    case GgufType::kU16:
      return Append(static_cast<uint16_t>(value), out);
    case GgufType::kI16:
      return Append(static_cast<int16_t>(value), out);
    case GgufType::kU32:
      return Append(static_cast<uint32_t>(value), out);
    case GgufType::kI32:
      return Append(static_cast<int32_t>(value), out);
    case GgufType::kU64:
      return Append(static_cast<uint64_t>(value), out);
    case GgufType::kI64:
      return Append(static_cast<int64_t>(value), out);
    case GgufType::kF32:
      return Append(static_cast<float>(value), out);
    case GgufType::kF64:
      return Append(static_cast<double>(value), out);
    case GgufType::kString:
    case GgufType::kArray:
      break;
  }
  TC_CHECK(false) << "a number of no number type";
}

MetadataType Number(GgufType type) { return {static_cast<uint32_t>(type), 0}; }
MetadataType ListOf(GgufType type) {
  return {static_cast<uint32_t>(GgufType::kArray), static_cast<uint32_t>(type)};
}

struct DefaultType {
  MetadataType operator()(int64_t value) const {
    return Number(value < 0 ? GgufType::kI32 : GgufType::kU32);
  }
  MetadataType operator()(uint64_t) const { return Number(GgufType::kU64); }
  MetadataType operator()(double) const { return Number(GgufType::kF32); }
  MetadataType operator()(bool) const { return Number(GgufType::kBool); }
  MetadataType operator()(const std::string&) const { return Number(GgufType::kString); }
  MetadataType operator()(const std::vector<int64_t>&) const { return ListOf(GgufType::kI32); }
  MetadataType operator()(const std::vector<double>&) const { return ListOf(GgufType::kF32); }
  MetadataType operator()(const std::vector<std::string>&) const {
    return ListOf(GgufType::kString);
  }
};

}  // namespace

absl::StatusOr<std::unique_ptr<GgufWriter>> GgufWriter::Create(const std::string& path,
                                                               bool replace) {
  std::error_code error;
  if (!replace && std::filesystem::exists(path, error)) {
    return absl::AlreadyExistsError(absl::StrCat("\"", path, "\" exists; --force replaces it"));
  }
  std::FILE* file = std::fopen(PartialPath(path).c_str(), "wb");
  if (file == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("cannot write \"", PartialPath(path), "\": ", std::strerror(errno)));
  }
  return std::unique_ptr<GgufWriter>(new GgufWriter(path, file));
}

GgufWriter::~GgufWriter() {
  if (file_ == nullptr) return;
  std::fclose(file_);
  std::remove(PartialPath(path_).c_str());
}

void GgufWriter::Add(const std::string& key, const MetadataValue& value) {
  Add(key, value, std::visit(DefaultType(), value));
}

void GgufWriter::Add(const std::string& key, const MetadataValue& value, MetadataType type) {
  AppendString(key, &metadata_);
  Append<uint32_t>(type.type, &metadata_);
  std::visit(
      [&](const auto& v) {
        using T = std::decay_t<decltype(v)>;
        if constexpr (std::is_same_v<T, std::string>) {
          AppendString(v, &metadata_);
        } else if constexpr (std::is_arithmetic_v<T>) {
          AppendAs(static_cast<GgufType>(type.type), v, &metadata_);
        } else {
          Append<uint32_t>(type.elem_type, &metadata_);
          Append<uint64_t>(v.size(), &metadata_);
          for (const auto& element : v) {
            if constexpr (std::is_same_v<T, std::vector<std::string>>) {
              AppendString(element, &metadata_);
            } else {
              AppendAs(static_cast<GgufType>(type.elem_type), element, &metadata_);
            }
          }
        }
      },
      value);
  ++num_values_;
}

void GgufWriter::AddTensor(const std::string& name, DType dtype,
                           const std::vector<int64_t>& shape) {
  int64_t rows = 1;
  for (size_t i = 0; i + 1 < shape.size(); ++i) rows *= shape[i];
  tensors_.push_back({name, dtype, shape, rows * BytesOf(dtype, shape.back())});
}

absl::Status GgufWriter::WriteHeader() {
  std::string header = "GGUF";
  Append<uint32_t>(3, &header);
  Append<uint64_t>(tensors_.size(), &header);
  Append<uint64_t>(num_values_, &header);
  header += metadata_;
  int64_t offset = 0;
  for (const Tensor& tensor : tensors_) {
    AppendString(tensor.name, &header);
    Append<uint32_t>(static_cast<uint32_t>(tensor.shape.size()), &header);
    // Innermost first.
    for (auto dim = tensor.shape.rbegin(); dim != tensor.shape.rend(); ++dim) {
      Append<uint64_t>(static_cast<uint64_t>(*dim), &header);
    }
    Append<uint32_t>(GgmlTypeOf(tensor.dtype), &header);
    Append<uint64_t>(static_cast<uint64_t>(offset), &header);
    offset += (tensor.bytes + kAlignment - 1) / kAlignment * kAlignment;
  }
  header.resize((header.size() + kAlignment - 1) / kAlignment * kAlignment, '\0');
  return WriteRaw(header.data(), static_cast<int64_t>(header.size()));
}

absl::Status GgufWriter::WriteRaw(const void* data, int64_t bytes) {
  if (bytes == 0 || std::fwrite(data, static_cast<size_t>(bytes), 1, file_) == 1) {
    return absl::OkStatus();
  }
  return absl::DataLossError(
      absl::StrCat("writing \"", PartialPath(path_), "\": ", std::strerror(errno)));
}

absl::Status GgufWriter::Write(const void* data, int64_t bytes) {
  TC_CHECK(current_ < tensors_.size() && current_bytes_ + bytes <= tensors_[current_].bytes)
      << "more bytes than the tensor has";
  if (absl::Status s = WriteRaw(data, bytes); !s.ok()) return s;
  current_bytes_ += bytes;
  if (current_bytes_ < tensors_[current_].bytes) return absl::OkStatus();
  const char zeros[kAlignment] = {};
  const int64_t padding = (kAlignment - current_bytes_ % kAlignment) % kAlignment;
  ++current_;
  current_bytes_ = 0;
  return WriteRaw(zeros, padding);
}

absl::Status GgufWriter::Finish() {
  TC_CHECK(current_ == tensors_.size()) << "tensor " << current_ << " is not complete";
  const bool flushed = std::fflush(file_) == 0 && fsync(fileno(file_)) == 0;
  const bool closed = std::fclose(file_) == 0;
  file_ = nullptr;
  const std::string partial = PartialPath(path_);
  if (flushed && closed && std::rename(partial.c_str(), path_.c_str()) == 0)
    return absl::OkStatus();
  absl::Status failed =
      absl::DataLossError(absl::StrCat("finishing \"", path_, "\": ", std::strerror(errno)));
  std::remove(partial.c_str());
  return failed;
}

}  // namespace thermocline
