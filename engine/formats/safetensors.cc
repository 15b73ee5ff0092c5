#include "engine/formats/safetensors.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "engine/formats/json.h"
#include "kernels/quant/registry.h"

namespace thermocline {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr int64_t kMaxHeaderBytes = int64_t{100} << 20;  // as the reference implementation
constexpr int64_t kMaxConfigBytes = int64_t{16} << 20;

struct Header {
  json tensors;
  int64_t data_begin = 0;
};

absl::StatusOr<Header> ReadHeader(const Checkpoint& checkpoint, int file_idx, int64_t file_bytes) {
  const std::string& file = checkpoint.files()[static_cast<size_t>(file_idx)];
  const auto fail = [&](const auto&... what) {
    return absl::InvalidArgumentError(absl::StrCat("\"", file, "\": ", what...));
  };
  uint64_t length = 0;
  if (file_bytes < 8) return fail("the file ends before its header length");
  if (absl::Status s = checkpoint.ReadFile(file_idx, 0, 8, &length); !s.ok()) return s;
  if (length > static_cast<uint64_t>(std::min(kMaxHeaderBytes, file_bytes - 8))) {
    return fail("a header of ", length, " bytes does not fit");
  }
  std::string text(length, '\0');
  if (absl::Status s = checkpoint.ReadFile(file_idx, 8, static_cast<int64_t>(length), text.data());
      !s.ok()) {
    return s;
  }
  absl::StatusOr<json> parsed = ParseJsonOfUniqueKeys(text);
  if (!parsed.ok()) return fail("header: ", parsed.status().message());
  if (!parsed->is_object()) return fail("the header is not a JSON object");
  parsed->erase("__metadata__");
  return Header{*std::move(parsed), 8 + static_cast<int64_t>(length)};
}

// dtype, shape and the byte range of one header entry, unchecked against the file.
struct Entry {
  std::string dtype;
  std::vector<int64_t> shape;
  int64_t begin = 0;
  int64_t end = 0;
};

absl::StatusOr<Entry> ParseEntry(const std::string& name, const json& value) {
  const auto fail = [&](absl::string_view what) {
    return absl::InvalidArgumentError(absl::StrCat("tensor \"", name, "\": ", what));
  };
  if (!value.is_object()) return fail("the entry is not an object");
  const auto dtype = value.find("dtype"), shape = value.find("shape"),
             offsets = value.find("data_offsets");
  if (dtype == value.end() || !dtype->is_string()) return fail("no dtype");
  if (shape == value.end() || !shape->is_array()) return fail("no shape");
  if (offsets == value.end() || !offsets->is_array() || offsets->size() != 2) {
    return fail("no data_offsets");
  }
  Entry entry;
  entry.dtype = dtype->get<std::string>();
  for (const json& dim : *shape) {
    if (!dim.is_number_unsigned() || dim.get<uint64_t>() > (uint64_t{1} << 48)) {
      return fail("a dimension is not a reasonable whole number");
    }
    entry.shape.push_back(dim.get<int64_t>());
  }
  for (const json& offset : *offsets) {
    if (!offset.is_number_unsigned() || offset.get<uint64_t>() > (uint64_t{1} << 62)) {
      return fail("a data offset is not a reasonable whole number");
    }
  }
  entry.begin = (*offsets)[0].get<int64_t>();
  entry.end = (*offsets)[1].get<int64_t>();
  if (entry.end < entry.begin) return fail("data_offsets run backwards");
  return entry;
}

// Where a tensor's bytes lie, counted from the end of the header.
struct Extent {
  int64_t begin = 0;
  int64_t end = 0;
  std::string name;
};

// The tensors' bytes follow one another without overlaps or holes up to the file's end, as the
// format's own reader demands.
absl::Status CheckCoverage(const std::string& file, std::vector<Extent> extents,
                           int64_t data_bytes) {
  const auto order = [](const Extent& e) { return std::pair(e.begin, e.end); };
  std::sort(extents.begin(), extents.end(),
            [&](const Extent& a, const Extent& b) { return order(a) < order(b); });
  extents.push_back({data_bytes, data_bytes, ""});  // the end
  Extent before;
  for (const Extent& extent : extents) {
    if (extent.begin < before.end) {
      return absl::InvalidArgumentError(absl::StrCat("\"", file, "\": tensors \"", before.name,
                                                     "\" and \"", extent.name,
                                                     "\" share bytes from ", extent.begin, " on"));
    }
    if (extent.begin > before.end) {
      return absl::InvalidArgumentError(
          absl::StrCat("\"", file, "\": bytes ", before.end, " to ", extent.begin,
                       " of the data, between tensors \"", before.name, "\" and \"", extent.name,
                       "\", belong to none"));
    }
    before = extent;
  }
  return absl::OkStatus();
}

// Tensors that make sense only with another one.
struct Parts {
  struct Part {
    Entry entry;
    int file_idx = 0;
    int64_t offset = 0;
  };
  std::map<std::string, Part> bytes;  // U8 and F8_E4M3
};

absl::StatusOr<DType> FloatType(const std::string& name, const std::string& dtype) {
  if (dtype == "F32") return DType::kF32;
  if (dtype == "F16") return DType::kF16;
  if (dtype == "BF16") return DType::kBF16;
  return absl::UnimplementedError(absl::StrCat(
      "tensor \"", name, "\" has dtype ", dtype,
      "; supported are F32, F16, BF16, F8_E4M3 with scales, and MXFP4 as U8 blocks and scales"));
}

absl::Status AddSafetensors(const std::string& path, Checkpoint* checkpoint, Parts* parts) {
  absl::StatusOr<std::pair<int, int64_t>> file = checkpoint->AddFile(path);
  if (!file.ok()) return file.status();
  absl::StatusOr<Header> header = ReadHeader(*checkpoint, file->first, file->second);
  if (!header.ok()) return header.status();
  std::vector<Extent> extents;
  for (const auto& [name, value] : header->tensors.items()) {
    absl::StatusOr<Entry> entry = ParseEntry(name, value);
    if (!entry.ok()) return entry.status();
    extents.push_back({entry->begin, entry->end, name});
    const int64_t offset = header->data_begin + entry->begin, size = entry->end - entry->begin;
    if (entry->dtype == "U8" || entry->dtype == "F8_E4M3") {
      int64_t elems = 1;
      for (int64_t dim : entry->shape) {
        if (__builtin_mul_overflow(elems, dim, &elems)) elems = -1;
      }
      if (elems != size || offset > file->second || size > file->second - offset) {
        return absl::InvalidArgumentError(
            absl::StrCat("tensor \"", name, "\": data_offsets do not fit the shape or the file"));
      }
      const Parts::Part part = {*std::move(entry), file->first, offset};
      if (!parts->bytes.emplace(name, part).second) {
        return absl::InvalidArgumentError(absl::StrCat("tensor \"", name, "\" is there twice"));
      }
      continue;
    }
    absl::StatusOr<DType> dtype = FloatType(name, entry->dtype);
    if (!dtype.ok()) return dtype.status();
    TensorInfo tensor;
    tensor.name = name;
    tensor.dtype = *dtype;
    tensor.shape = entry->shape.empty() ? std::vector<int64_t>{1} : entry->shape;
    tensor.file_idx = file->first;
    tensor.offset = offset;
    absl::StatusOr<int64_t> bytes =
        CheckedTensorBytes(tensor.dtype, tensor.shape);  // AddTensor reports its error
    if (bytes.ok() && *bytes != size) {
      return absl::InvalidArgumentError(absl::StrCat("tensor \"", name, "\": data_offsets cover ",
                                                     size, " bytes, but the shape needs ", *bytes));
    }
    if (absl::Status s = checkpoint->AddTensor(std::move(tensor), file->second); !s.ok()) return s;
  }
  return CheckCoverage(path, std::move(extents), file->second - header->data_begin);
}

// "x_blocks" [.., rows, blocks, 16] and "x_scales" [.., rows, blocks] become the MXFP4 tensor "x"
// [.., rows, 32 * blocks].
absl::Status AddMxfp4Pair(const std::string& name, const Parts& parts, Checkpoint* checkpoint) {
  const std::string base(absl::StripSuffix(name, "_blocks"));
  const Parts::Part& blocks = parts.bytes.at(name);
  const auto scales = parts.bytes.find(base + "_scales");
  std::vector<int64_t> shape = blocks.entry.shape;
  const bool fits = shape.size() >= 2 && shape.back() == 16;
  if (fits) shape.pop_back();
  if (!fits || scales == parts.bytes.end() || scales->second.entry.shape != shape) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor \"", name, "\" is no MXFP4: its last dimension should be 16, and \"",
                     base, "_scales\" should have its shape without it"));
  }
  TensorInfo tensor;
  tensor.name = base;
  tensor.dtype = DType::kMXFP4;
  tensor.shape = shape;
  tensor.shape.back() *= 32;
  tensor.storage = Storage::kMxfp4Pair;
  tensor.file_idx = blocks.file_idx;
  tensor.offset = blocks.offset;
  tensor.scales_file_idx = scales->second.file_idx;
  tensor.scales_offset = scales->second.offset;
  return checkpoint->AddTensor(std::move(tensor), 0);
}

// "x" [rows, cols] of F8_E4M3 and "x_scale_inv" with a number for each block of
// quantization_config.weight_block_size become the BF16 tensor "x".
absl::Status AddFp8(const std::string& name, const Parts& parts, Checkpoint* checkpoint) {
  const Parts::Part& codes = parts.bytes.at(name);
  const TensorInfo* scales = checkpoint->Find(name + "_scale_inv");
  int64_t block[2] = {128, 128};
  const json::json_pointer where("/quantization_config/weight_block_size");
  if (checkpoint->config().contains(where)) {
    const json& given = checkpoint->config().at(where);
    for (size_t i = 0; i < 2; ++i) {
      const bool fits = given.is_array() && given.size() == 2 && given[i].is_number_unsigned() &&
                        given[i].get<uint64_t>() >= 1 && given[i].get<uint64_t>() <= (1u << 20);
      if (!fits) return absl::InvalidArgumentError("weight_block_size is not two whole numbers");
      block[i] = given[i].get<int64_t>();
    }
  }
  const std::vector<int64_t>& shape = codes.entry.shape;
  const auto blocks = [&](size_t i) { return (shape[i] + block[i] - 1) / block[i]; };
  if (shape.size() != 2 || shape[0] < 1 || shape[1] < 1 || scales == nullptr ||
      GetFormat(scales->dtype).block_elems != 1 || GetFormat(scales->dtype).decode == nullptr ||
      scales->shape != std::vector<int64_t>{blocks(0), blocks(1)}) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor \"", name, "\" of F8_E4M3 needs \"", name,
                     "_scale_inv\" of F32, BF16 or F16 with an entry for each block of ", block[0],
                     " x ", block[1]));
  }
  TensorInfo tensor;
  tensor.name = name;
  tensor.dtype = DType::kBF16;
  tensor.shape = shape;
  tensor.storage = Storage::kFp8Blocks;
  tensor.file_idx = codes.file_idx;
  tensor.offset = codes.offset;
  tensor.scales_file_idx = scales->file_idx;
  tensor.scales_offset = scales->offset;
  tensor.scales_dtype = scales->dtype;
  tensor.scale_block_rows = block[0];
  tensor.scale_block_cols = block[1];
  return checkpoint->AddTensor(std::move(tensor), 0);
}

absl::Status JoinParts(const Parts& parts, Checkpoint* checkpoint) {
  for (const auto& [name, part] : parts.bytes) {
    absl::Status added;
    if (part.entry.dtype == "F8_E4M3") {
      added = AddFp8(name, parts, checkpoint);
    } else if (absl::EndsWith(name, "_blocks")) {
      added = AddMxfp4Pair(name, parts, checkpoint);
    } else if (!absl::EndsWith(name, "_scales")) {
      added = FloatType(name, part.entry.dtype).status();
    }
    if (!added.ok()) return added;
  }
  return absl::OkStatus();
}

// File names that the index maps tensors to.
absl::StatusOr<std::set<std::string>> IndexedFiles(const std::string& index_path) {
  absl::StatusOr<std::string> text = ReadWholeFile(index_path, kMaxHeaderBytes);
  if (!text.ok()) return text.status();
  absl::StatusOr<json> index = ParseJson(*text);
  if (!index.ok()) return index.status();
  const auto map = index->find("weight_map");
  if (!index->is_object() || map == index->end() || !map->is_object()) {
    return absl::InvalidArgumentError(absl::StrCat("\"", index_path, "\" has no weight_map"));
  }
  std::set<std::string> files;
  for (const auto& [tensor, file] : map->items()) {
    const std::string name = file.is_string() ? file.get<std::string>() : "";
    if (name.empty() || absl::StrContains(name, "/") || absl::StrContains(name, "..")) {
      return absl::InvalidArgumentError(absl::StrCat("\"", index_path, "\" maps ", tensor,
                                                     " to a name that is not a plain file"));
    }
    files.insert(name);
  }
  return files;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Checkpoint>> OpenSafetensorsFolder(const std::string& folder) {
  auto checkpoint = std::make_unique<Checkpoint>(Checkpoint::Kind::kHuggingFace, folder);
  absl::StatusOr<std::string> text = ReadWholeFile(folder + "/config.json", kMaxConfigBytes);
  if (!text.ok()) return text.status();
  absl::StatusOr<json> config = ParseJson(*text);
  if (!config.ok() || !config->is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", folder, "/config.json\" is not a JSON object"));
  }
  *checkpoint->mutable_config() = *std::move(config);
  std::set<std::string> files = {"model.safetensors"};
  const std::string index = folder + "/model.safetensors.index.json";
  std::error_code error;
  if (fs::exists(index, error)) {
    absl::StatusOr<std::set<std::string>> indexed = IndexedFiles(index);
    if (!indexed.ok()) return indexed.status();
    files = *std::move(indexed);
  }
  Parts parts;
  for (const std::string& file : files) {
    absl::Status added = AddSafetensors(folder + "/" + file, checkpoint.get(), &parts);
    if (!added.ok()) return added;
  }
  if (absl::Status s = JoinParts(parts, checkpoint.get()); !s.ok()) return s;
  return checkpoint;
}

absl::StatusOr<std::map<std::string, PlainTensor>> ReadPlainTensors(const std::string& path) {
  Checkpoint checkpoint(Checkpoint::Kind::kHuggingFace, path);
  absl::StatusOr<std::pair<int, int64_t>> file = checkpoint.AddFile(path);
  if (!file.ok()) return file.status();
  absl::StatusOr<Header> header = ReadHeader(checkpoint, file->first, file->second);
  if (!header.ok()) return header.status();
  std::map<std::string, PlainTensor> tensors;
  for (const auto& [name, value] : header->tensors.items()) {
    absl::StatusOr<Entry> entry = ParseEntry(name, value);
    if (!entry.ok()) return entry.status();
    const int64_t bytes = entry->end - entry->begin;
    if (entry->end > file->second - header->data_begin)
      return absl::InvalidArgumentError(absl::StrCat("tensor \"", name, "\" is outside the file"));
    const int64_t elem_bytes = entry->dtype == "F32" ? 4 : entry->dtype == "I64" ? 8 : 1;
    if (bytes % elem_bytes != 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor \"", name, "\": ", bytes, " bytes are no whole elements"));
    }
    PlainTensor& tensor = tensors[name];
    tensor.shape = entry->shape;
    void* destination = nullptr;
    if (entry->dtype == "F32") {
      tensor.f32.resize(static_cast<size_t>(bytes / 4));
      destination = tensor.f32.data();
    } else if (entry->dtype == "I64") {
      tensor.i64.resize(static_cast<size_t>(bytes / 8));
      destination = tensor.i64.data();
    } else if (entry->dtype == "U8") {
      tensor.u8.resize(static_cast<size_t>(bytes));
      destination = tensor.u8.data();
    } else {
      return absl::UnimplementedError(absl::StrCat("dtype ", entry->dtype));
    }
    absl::Status read =
        checkpoint.ReadFile(file->first, header->data_begin + entry->begin, bytes, destination);
    if (!read.ok()) return read;
  }
  return tensors;
}

}  // namespace thermocline
