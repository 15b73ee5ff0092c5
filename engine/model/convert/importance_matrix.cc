#include "engine/model/convert/importance_matrix.h"

#include <cmath>
#include <cstring>
#include <fstream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "engine/formats/checkpoint.h"
#include "engine/formats/gguf.h"

namespace thermocline {
namespace {

constexpr int64_t kMaxFileBytes = int64_t{4} << 30;

absl::Status Check(const std::string& path, const ImportanceMatrix& matrix) {
  if (matrix.values.empty()) {
    return absl::InvalidArgumentError(absl::StrCat("\"", path, "\" holds no importance matrix"));
  }
  for (const auto& [name, values] : matrix.values) {
    for (float v : values) {
      if (std::isfinite(v) && v >= 0.0f) continue;
      return absl::InvalidArgumentError(absl::StrCat("\"", path, "\": tensor \"", name,
                                                     "\" has an importance of ", v,
                                                     ", but numbers from 0 on are expected"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<float>> ReadF32(const Checkpoint& checkpoint, const TensorInfo& tensor) {
  if (tensor.dtype != DType::kF32) {
    return absl::InvalidArgumentError(absl::StrCat("tensor \"", tensor.name, "\" is not F32"));
  }
  std::vector<float> values(static_cast<size_t>(tensor.num_elems()));
  absl::Status read = checkpoint.Read(tensor, 0, tensor.bytes, values.data());
  if (!read.ok()) return read;
  return values;
}

// "<name>.in_sum2" [matrices, cols] with "<name>.counts" [matrices].
absl::StatusOr<ImportanceMatrix> ReadGguf(const std::string& path) {
  absl::StatusOr<std::unique_ptr<Checkpoint>> file = OpenGguf(path);
  if (!file.ok()) return file.status();
  ImportanceMatrix matrix;
  const auto chunks = (*file)->metadata().find("imatrix.chunk_count");
  if (chunks != (*file)->metadata().end()) {
    if (const int64_t* count = std::get_if<int64_t>(&chunks->second)) matrix.num_chunks = *count;
  }
  for (const auto& [name, tensor] : (*file)->tensors()) {
    if (!absl::EndsWith(name, ".in_sum2")) continue;
    const std::string base(absl::StripSuffix(name, ".in_sum2"));
    const TensorInfo* counts_tensor = (*file)->Find(base + ".counts");
    if (counts_tensor == nullptr) {
      return absl::InvalidArgumentError(absl::StrCat("tensor \"", base, ".counts\" is missing"));
    }
    absl::StatusOr<std::vector<float>> sums = ReadF32(**file, tensor),
                                       counts = ReadF32(**file, *counts_tensor);
    if (!sums.ok()) return sums.status();
    if (!counts.ok()) return counts.status();
    if (sums->size() % counts->size() != 0) {
      return absl::InvalidArgumentError(absl::StrCat("\"", base, "\" has ", sums->size(),
                                                     " sums for ", counts->size(), " matrices"));
    }
    const size_t cols = sums->size() / counts->size();
    std::vector<float>& values = matrix.values[base];
    for (size_t i = 0; i < sums->size(); ++i) {
      const float count = (*counts)[i / cols];
      values.push_back(count > 0.0f ? (*sums)[i] / count : 1.0f);
    }
  }
  return matrix;
}

// i32 entries; each: i32 name length, name, i32 calls, i32 values, f32 sums.
absl::StatusOr<ImportanceMatrix> ReadBinary(const std::string& path) {
  absl::StatusOr<std::string> text = ReadWholeFile(path, kMaxFileBytes);
  if (!text.ok()) return text.status();
  size_t at = 0;
  const auto truncated = [&] {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", path, "\" is no importance matrix, or cut off at byte ", at));
  };
  const auto number = [&](int32_t* out) {
    if (text->size() - at < sizeof(*out)) return false;
    std::memcpy(out, text->data() + at, sizeof(*out));
    at += sizeof(*out);
    return *out >= 0;
  };
  ImportanceMatrix matrix;
  int32_t num_entries = 0;
  if (!number(&num_entries)) return truncated();
  for (int32_t e = 0; e < num_entries; ++e) {
    int32_t length = 0, calls = 0, count = 0;
    if (!number(&length) || text->size() - at < static_cast<size_t>(length)) return truncated();
    const std::string name = text->substr(at, static_cast<size_t>(length));
    at += static_cast<size_t>(length);
    if (!number(&calls) || !number(&count) ||
        (text->size() - at) / sizeof(float) < static_cast<size_t>(count)) {
      return truncated();
    }
    std::vector<float>& values = matrix.values[name];
    values.resize(static_cast<size_t>(count));
    if (count > 0) std::memcpy(values.data(), text->data() + at, values.size() * sizeof(float));
    at += values.size() * sizeof(float);
    for (float& v : values) v /= static_cast<float>(std::max(calls, 1));
    matrix.num_chunks = std::max<int64_t>(matrix.num_chunks, calls);
  }
  return matrix;
}

}  // namespace

absl::StatusOr<ImportanceMatrix> ImportanceMatrix::Read(const std::string& path) {
  char magic[4] = {};
  std::ifstream(path, std::ios::binary).read(magic, sizeof(magic));
  const bool gguf = absl::string_view(magic, sizeof(magic)) == "GGUF";
  absl::StatusOr<ImportanceMatrix> matrix = gguf ? ReadGguf(path) : ReadBinary(path);
  if (!matrix.ok()) return matrix.status();
  if (absl::Status s = Check(path, *matrix); !s.ok()) return s;
  return matrix;
}

}  // namespace thermocline
