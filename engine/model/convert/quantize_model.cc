#include "engine/model/convert/quantize_model.h"

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "engine/formats/checkpoint.h"
#include "engine/formats/float_tensor.h"
#include "engine/formats/gguf_types.h"
#include "engine/formats/gguf_writer.h"
#include "engine/model/convert/importance_matrix.h"
#include "engine/model/convert/name_pattern.h"
#include "kernels/quant/quantize.h"
#include "kernels/quant/registry.h"
#include "kernels/worker_pool.h"

namespace thermocline {
namespace {

constexpr int64_t kChunkElems = int64_t{1} << 24;  // weights quantised at a time

// The first and last eighth of the layers, and every third of the others.
bool GetsMoreBits(const TensorRole& role) {
  const int eighth = role.num_layers / 8;
  return role.layer < eighth || role.layer >= 7 * role.num_layers / 8 ||
         (role.layer - eighth) % 3 == 2;
}

DType Fitting(DType type, int64_t cols) {
  const auto fits = [cols](DType t) { return cols % GetFormat(t).block_elems == 0; };
  if (fits(type)) return type;
  if (type == DType::kQ4_K && fits(DType::kIQ4_NL)) return DType::kIQ4_NL;
  return fits(DType::kQ8_0) ? DType::kQ8_0 : DType::kF16;
}

int LayerOf(const std::string& name) {
  int layer = -1;
  return std::sscanf(name.c_str(), "blk.%4d.", &layer) == 1 ? layer : -1;
}

struct Plan {
  const TensorInfo* tensor = nullptr;
  DType type = DType::kF32;
  const std::vector<float>* importance = nullptr;
};

class Quantization {
 public:
  Quantization(const QuantizeOptions& options, const Checkpoint& checkpoint, WorkerPool* pool)
      : options_(options), checkpoint_(checkpoint), pool_(pool) {}

  absl::Status MakePlans();
  absl::Status Write(QuantizeResult* result);

 private:
  absl::StatusOr<DType> Choose(const TensorInfo& tensor, const std::vector<NamePattern>& patterns,
                               int num_layers);
  absl::Status FindImportance(Plan* plan);
  absl::Status WriteTensor(const Plan& plan, GgufWriter* writer);
  void WarnOfSurprises() const;
  void Report(int64_t bytes);

  const QuantizeOptions& options_;
  const Checkpoint& checkpoint_;
  WorkerPool* pool_;
  ImportanceMatrix importance_;
  std::vector<Plan> plans_;
  std::vector<bool> rule_matched_;
  int64_t num_kept_ = 0;      // quantised already
  int64_t num_unfit_ = 0;     // of rows that the type's blocks do not fit
  int64_t num_weighted_ = 0;  // with an importance
  int64_t done_ = 0;
};

absl::StatusOr<DType> Quantization::Choose(const TensorInfo& tensor,
                                           const std::vector<NamePattern>& patterns,
                                           int num_layers) {
  const int64_t cols = tensor.shape.back();
  for (size_t i = 0; i < patterns.size(); ++i) {
    if (!patterns[i].Matches(tensor.name)) continue;
    rule_matched_[i] = true;
    const DType type = options_.rules[i].second;
    if (GetFormat(tensor.dtype).decode == nullptr) {
      return absl::InvalidArgumentError(absl::StrCat(
          "rule \"", options_.rules[i].first, "\": tensor \"", tensor.name, "\" has type ",
          GetFormat(tensor.dtype).name, ", which is no weight format"));
    }
    if (cols % GetFormat(type).block_elems != 0) {
      return absl::InvalidArgumentError(absl::StrCat(
          "rule \"", options_.rules[i].first, "\": rows of ", cols, " weights of tensor \"",
          tensor.name, "\" are not whole blocks of ", GetFormat(type).name));
    }
    return type;
  }
  TensorRole role = {tensor.name, tensor.shape, LayerOf(tensor.name), num_layers,
                     checkpoint_.Find("output.weight") == nullptr};
  if (IsKeptInF32(role.name, role.shape) || GetFormat(tensor.dtype).decode == nullptr)
    return tensor.dtype;
  if (cols % GetFormat(options_.type).block_elems != 0) ++num_unfit_;
  return TypeFor(options_.type, options_.pure, role);
}

absl::Status Quantization::FindImportance(Plan* plan) {
  const auto it = importance_.values.find(plan->tensor->name);
  if (it == importance_.values.end() || !IsQuantized(plan->type)) return absl::OkStatus();
  const std::vector<int64_t>& shape = plan->tensor->shape;
  const int64_t matrices = shape.size() > 2 ? shape[0] : 1;
  if (static_cast<int64_t>(it->second.size()) != matrices * shape.back()) {
    return absl::InvalidArgumentError(absl::StrCat("the importance matrix has ", it->second.size(),
                                                   " values for tensor \"", plan->tensor->name,
                                                   "\", which has ", matrices, " x ", shape.back(),
                                                   " inputs: it belongs to another model"));
  }
  plan->importance = &it->second;
  ++num_weighted_;
  return absl::OkStatus();
}

absl::Status Quantization::MakePlans() {
  if (!options_.importance_path.empty()) {
    absl::StatusOr<ImportanceMatrix> matrix = ImportanceMatrix::Read(options_.importance_path);
    if (!matrix.ok()) return matrix.status();
    importance_ = *std::move(matrix);
  }
  std::vector<NamePattern> patterns;
  for (const auto& [pattern, type] : options_.rules) {
    absl::StatusOr<NamePattern> compiled = NamePattern::Create(pattern);
    if (!compiled.ok()) return compiled.status();
    patterns.push_back(*std::move(compiled));
  }
  rule_matched_.assign(patterns.size(), false);
  int num_layers = 0;
  for (const auto& [name, tensor] : checkpoint_.tensors())
    num_layers = std::max(num_layers, LayerOf(name) + 1);
  for (const auto& [name, tensor] : checkpoint_.tensors()) {
    absl::StatusOr<DType> type = Choose(tensor, patterns, num_layers);
    if (!type.ok()) return type.status();
    Plan plan = {&tensor, *type, nullptr};
    if (IsQuantized(tensor.dtype) && tensor.dtype != *type && !options_.requantize) {
      plan.type = tensor.dtype;
      ++num_kept_;
    }
    if (absl::Status s = FindImportance(&plan); !s.ok()) return s;
    plans_.push_back(plan);
  }
  if (options_.warn) WarnOfSurprises();
  return absl::OkStatus();
}

void Quantization::WarnOfSurprises() const {
  if (num_kept_ > 0) {
    options_.warn(absl::StrCat(num_kept_, " tensors are quantised already and stay as they are; ",
                               "--requantize quantises them again, from what is left of them"));
  }
  if (num_unfit_ > 0) {
    options_.warn(absl::StrCat("the rows of ", num_unfit_, " tensors are not whole blocks of ",
                               GetFormat(options_.type).name, "; they get another type"));
  }
  for (size_t i = 0; i < rule_matched_.size(); ++i) {
    if (!rule_matched_[i])
      options_.warn(absl::StrCat("rule \"", options_.rules[i].first, "\" decides no tensor"));
  }
  if (!importance_.values.empty() && num_weighted_ == 0) {
    options_.warn(absl::StrCat("the importance matrix \"", options_.importance_path,
                               "\" names no tensor that is quantised"));
  }
}

void Quantization::Report(int64_t bytes) {
  done_ += bytes;
  if (options_.progress) options_.progress(done_, checkpoint_.total_bytes());
}

absl::Status Quantization::WriteTensor(const Plan& plan, GgufWriter* writer) {
  const TensorInfo& tensor = *plan.tensor;
  const int64_t cols = tensor.shape.back(), rows = tensor.num_elems() / cols;
  const int64_t rows_per_matrix = tensor.shape.size() > 2 ? rows / tensor.shape[0] : rows;
  const int64_t in_bytes = BytesOf(tensor.dtype, cols), out_bytes = BytesOf(plan.type, cols);
  const int64_t rows_per_chunk = std::max<int64_t>(1, kChunkElems / cols);
  std::vector<uint8_t> in, out;
  for (int64_t first = 0; first < rows; first += rows_per_chunk) {
    const int64_t count = std::min(rows_per_chunk, rows - first);
    in.resize(static_cast<size_t>(count * in_bytes));
    absl::Status read = checkpoint_.Read(tensor, first * in_bytes, count * in_bytes, in.data());
    if (!read.ok()) return read;
    const bool copied = plan.type == tensor.dtype;
    if (!copied) out.resize(static_cast<size_t>(count * out_bytes));
    std::atomic<int64_t> first_wrong{count};
    const auto row_of = [&](int64_t r) {
      return ToFloats(tensor.dtype, &in[static_cast<size_t>(r * in_bytes)], cols);
    };
    const auto check = [&](int64_t r, const std::vector<float>& row) {
      const uint8_t* stored = copied ? &in[static_cast<size_t>(r * in_bytes)]
                                     : &out[static_cast<size_t>(r * out_bytes)];
      return CheckRange(tensor.name, plan.type, row, stored);
    };
    const auto work = [&](int64_t r, int) {
      const std::vector<float> row = row_of(r);
      const int64_t matrix = (first + r) / rows_per_matrix;
      const float* importance =
          plan.importance != nullptr ? plan.importance->data() + matrix * cols : nullptr;
      if (!copied && AllFinite(row)) {
        QuantizeRow(plan.type, row.data(), cols, importance,
                    &out[static_cast<size_t>(r * out_bytes)]);
      }
      if (check(r, row).ok()) return;
      for (int64_t seen = first_wrong; r < seen && !first_wrong.compare_exchange_weak(seen, r);) {
      }
    };
    // Types without a decoder hold no weights and are copied.
    if (GetFormat(tensor.dtype).decode != nullptr) pool_->ParallelFor(count, work);
    // The same complaint whichever thread came first.
    if (first_wrong < count) return check(first_wrong, row_of(first_wrong));
    if (copied) out.swap(in);
    if (absl::Status s = writer->Write(out.data(), static_cast<int64_t>(out.size())); !s.ok())
      return s;
    Report(count * in_bytes);
  }
  return absl::OkStatus();
}

absl::Status Quantization::Write(QuantizeResult* result) {
  absl::StatusOr<std::unique_ptr<GgufWriter>> writer =
      GgufWriter::Create(options_.output, options_.replace);
  if (!writer.ok()) return writer.status();
  for (const auto& [key, value] : checkpoint_.metadata()) {
    const bool replaced = key == "general.file_type" || key == "general.quantization_version" ||
                          key == "general.alignment" || absl::StartsWith(key, "split.") ||
                          absl::StartsWith(key, "quantize.imatrix.");
    if (!replaced) (*writer)->Add(key, value, checkpoint_.metadata_types().at(key));
  }
  (*writer)->Add("general.file_type", GgufFileType(options_.type));
  (*writer)->Add("general.quantization_version", int64_t{2});
  if (!importance_.values.empty()) {
    (*writer)->Add("quantize.imatrix.file",
                   std::filesystem::path(options_.importance_path).filename().string());
    (*writer)->Add("quantize.imatrix.entries_count",
                   static_cast<int64_t>(importance_.values.size()));
    (*writer)->Add("quantize.imatrix.chunks_count", importance_.num_chunks);
  }
  for (const Plan& plan : plans_) {
    (*writer)->AddTensor(plan.tensor->name, plan.type, plan.tensor->shape);
    const int64_t bytes = BytesOf(plan.type, plan.tensor->shape.back()) *
                          (plan.tensor->num_elems() / plan.tensor->shape.back());
    result->output_bytes += bytes;
    result->bytes_by_type[std::string(GetFormat(plan.type).name)] += bytes;
  }
  result->input_bytes = checkpoint_.total_bytes();
  if (absl::Status s = (*writer)->WriteHeader(); !s.ok()) return s;
  for (const Plan& plan : plans_) {
    if (absl::Status s = WriteTensor(plan, writer->get()); !s.ok()) return s;
  }
  return (*writer)->Finish();
}

}  // namespace

bool IsKeptInF32(const std::string& name, const std::vector<int64_t>& shape) {
  const int64_t wide = std::count_if(shape.begin(), shape.end(), [](int64_t d) { return d > 1; });
  if (wide < 2 || !absl::EndsWith(name, ".weight")) return true;
  for (const char* part : {"_norm.weight", "ffn_gate_inp", "ssm_conv1d", "shortconv.conv"}) {
    if (absl::StrContains(name, part)) return true;
  }
  return false;
}

DType TypeFor(DType type, bool pure, const TensorRole& role) {
  if (IsKeptInF32(role.name, role.shape)) return DType::kF32;
  const int64_t cols = role.shape.back();
  if (pure || !IsQuantized(type)) return Fitting(type, cols);
  const bool eight = type == DType::kQ8_0 || type == DType::kMXFP4;
  if (role.name == "output.weight" || (role.tied && role.name == "token_embd.weight")) {
    return Fitting(eight ? DType::kQ8_0 : DType::kQ6_K, cols);
  }
  if (type == DType::kMXFP4) {
    return Fitting(absl::StrContains(role.name, "_exps.") ? type : DType::kQ8_0, cols);
  }
  const bool values =
      absl::StrContains(role.name, "attn_v.") || absl::StrContains(role.name, "attn_v_b.") ||
      absl::StrContains(role.name, "attn_qkv.") || absl::StrContains(role.name, "attn_kv_b.");
  const bool down = absl::StrContains(role.name, "ffn_down");
  const bool mixed = type == DType::kQ4_K || type == DType::kQ5_K;
  if (mixed && (values || down) && GetsMoreBits(role)) type = DType::kQ6_K;
  return Fitting(type, cols);
}

absl::StatusOr<DType> ParseQuantizedType(const std::string& text) {
  std::string name = absl::AsciiStrToUpper(text);
  for (const char* suffix : {"_M", "_MOE"}) name = std::string(absl::StripSuffix(name, suffix));
  std::string known;
  for (DType type : QuantizableTypes()) {
    if (GetFormat(type).name == name) return type;
    absl::StrAppend(&known, known.empty() ? "" : ", ", absl::AsciiStrToLower(GetFormat(type).name));
  }
  return absl::InvalidArgumentError(
      absl::StrCat("type = \"", text, "\", but the types that can be written are ", known));
}

absl::StatusOr<QuantizeResult> QuantizeModel(const QuantizeOptions& options) {
  absl::StatusOr<std::unique_ptr<WorkerPool>> pool =
      WorkerPool::Create(options.num_threads, /*pin=*/false);
  if (!pool.ok()) return pool.status();
  absl::StatusOr<std::unique_ptr<Checkpoint>> checkpoint = Checkpoint::Open(options.input);
  if (!checkpoint.ok()) return checkpoint.status();
  if ((*checkpoint)->kind() != Checkpoint::Kind::kGguf) {
    return absl::InvalidArgumentError(absl::StrCat(
        "\"", options.input, "\" is a Hugging Face folder; `convert` makes a GGUF file of it"));
  }
  for (const std::string& file : (*checkpoint)->files()) {
    std::error_code error;
    if (std::filesystem::equivalent(file, options.output, error)) {
      return absl::InvalidArgumentError(
          absl::StrCat("the output \"", options.output, "\" is the input"));
    }
  }
  Quantization quantization(options, **checkpoint, pool->get());
  QuantizeResult result;
  if (absl::Status s = quantization.MakePlans(); !s.ok()) return s;
  if (absl::Status s = quantization.Write(&result); !s.ok()) return s;
  return result;
}

}  // namespace thermocline
