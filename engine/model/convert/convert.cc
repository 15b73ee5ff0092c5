#include "engine/model/convert/convert.h"

#include <algorithm>
#include <filesystem>
#include <map>

#include "absl/strings/str_cat.h"
#include "engine/formats/float_tensor.h"
#include "engine/formats/gguf_types.h"
#include "engine/formats/gguf_writer.h"
#include "engine/model/convert/quantize_model.h"
#include "engine/model/convert/tokenizer_metadata.h"
#include "engine/model/model.h"
#include "engine/weights/tensor_reader.h"

namespace thermocline {
namespace {

// One tensor of the output: a dense one from the parts that make it up, or all experts' matrices.
struct Output {
  std::string name;
  std::vector<int64_t> shape;
  DType dtype = DType::kF32;
  std::vector<std::pair<const DenseTensor*, const TensorInfo*>> parts;
  const ExpertMatrix* experts = nullptr;
  std::vector<float> values;  // of a tensor that follows from the configuration

  int64_t num_elems() const {
    int64_t n = 1;
    for (int64_t dim : shape) n *= dim;
    return n;
  }
};

class Converter {
 public:
  Converter(const ConvertOptions& options, const Checkpoint& checkpoint, const Model& model)
      : options_(options), checkpoint_(checkpoint), num_experts_(model.dims().num_experts) {}

  absl::Status Plan(const TensorTable& table, const ConfigReader& reader);
  absl::Status Write(const ConfigReader& reader, const std::string& architecture);

 private:
  DType OutputType(const std::string& name, const std::vector<int64_t>& shape, DType stored) const;
  absl::Status PlanDense(const DenseTensor& declared);
  absl::Status PlanExperts(const ExpertMatrix& matrix);
  void AddMetadata(const ConfigReader& reader, const std::string& architecture,
                   GgufWriter* writer) const;
  absl::Status WriteDense(const Output& output, GgufWriter* writer);
  absl::Status WriteExperts(const Output& output, GgufWriter* writer);
  void Report(int64_t bytes);

  const ConvertOptions& options_;
  const Checkpoint& checkpoint_;
  int64_t num_experts_;
  DType matrix_type_ = DType::kF16;
  bool has_mxfp4_ = false;
  std::vector<Output> outputs_;
  std::map<std::string, size_t> by_name_;
  int64_t total_ = 0, done_ = 0;
};

// llama.cpp keeps in F32 what is small or decides much; quantised weights stay as they are.
DType Converter::OutputType(const std::string& name, const std::vector<int64_t>& shape,
                            DType stored) const {
  if (IsQuantized(stored)) return stored;
  return IsKeptInF32(name, shape) ? DType::kF32 : matrix_type_;
}

absl::Status Converter::PlanDense(const DenseTensor& declared) {
  absl::StatusOr<const TensorInfo*> stored = Resolve(checkpoint_, declared);
  if (!stored.ok()) return stored.status();
  if (*stored == nullptr) return absl::OkStatus();
  const TensorSource& gguf = declared.name.gguf;
  if (gguf.name.empty()) {
    return absl::UnimplementedError(
        absl::StrCat("GGUF has no place for tensor \"", (*stored)->name, "\""));
  }
  const auto [it, fresh] = by_name_.try_emplace(gguf.name, outputs_.size());
  if (fresh) {
    Output output;
    output.name = gguf.name;
    output.shape = gguf.shape.empty() ? declared.shape : gguf.shape;
    output.dtype = OutputType(gguf.name, output.shape, (*stored)->dtype);
    outputs_.push_back(std::move(output));
  }
  outputs_[it->second].parts.emplace_back(&declared, *stored);
  return absl::OkStatus();
}

absl::Status Converter::PlanExperts(const ExpertMatrix& matrix) {
  if (matrix.rows == 0) return absl::OkStatus();
  absl::StatusOr<ExpertSlice> first =
      Resolve(checkpoint_, matrix, 0, static_cast<int>(num_experts_));
  if (!first.ok()) return first.status();
  // What is wrong with any of them should show before hours of writing.
  for (int e = 1; e < num_experts_; ++e) {
    const absl::StatusOr<ExpertSlice> slice =
        Resolve(checkpoint_, matrix, e, static_cast<int>(num_experts_));
    if (!slice.ok()) return slice.status();
    if (slice->dtype == first->dtype || (!IsQuantized(slice->dtype) && !IsQuantized(first->dtype)))
      continue;
    return absl::InvalidArgumentError(
        absl::StrCat("tensor \"", slice->tensor->name, "\" has another type than expert 0's"));
  }
  Output output;
  output.name = matrix.gguf.name;
  output.shape = {num_experts_, matrix.rows, matrix.cols};
  if (matrix.cols == 1) output.shape.pop_back();
  output.dtype = OutputType(output.name, output.shape, first->dtype);
  output.experts = &matrix;
  has_mxfp4_ |= first->dtype == DType::kMXFP4;
  outputs_.push_back(std::move(output));
  return absl::OkStatus();
}

absl::Status Converter::Plan(const TensorTable& table, const ConfigReader& reader) {
  // The embedding is declared first; its type stands for the others.
  if (options_.type.has_value()) {
    matrix_type_ = *options_.type;
  } else if (!table.dense.empty()) {
    absl::StatusOr<const TensorInfo*> first = Resolve(checkpoint_, table.dense[0]);
    if (!first.ok()) return first.status();
    if (*first != nullptr) matrix_type_ = (*first)->dtype;
  }
  for (const DenseTensor& declared : table.dense) {
    if (absl::Status s = PlanDense(declared); !s.ok()) return s;
  }
  for (const ExpertLayer& layer : table.experts) {
    for (const ExpertMatrix* matrix : {&layer.gate, &layer.up, &layer.down, &layer.gate_bias,
                                       &layer.up_bias, &layer.down_bias}) {
      if (absl::Status s = PlanExperts(*matrix); !s.ok()) return s;
    }
  }
  for (const auto& [name, values] : reader.recorded_tensors()) {
    Output output;
    output.name = name;
    output.shape = {static_cast<int64_t>(values.size())};
    output.values.assign(values.begin(), values.end());
    outputs_.push_back(std::move(output));
  }
  for (const Output& output : outputs_) total_ += BytesOf(output.dtype, output.num_elems());
  return absl::OkStatus();
}

void Converter::AddMetadata(const ConfigReader& reader, const std::string& architecture,
                            GgufWriter* writer) const {
  writer->Add("general.architecture", architecture);
  writer->Add("general.type", std::string("model"));
  const std::filesystem::path folder =
      std::filesystem::path(options_.input + "/").lexically_normal().parent_path();
  writer->Add("general.name", folder.filename().string());
  writer->Add("general.file_type", GgufFileType(has_mxfp4_ ? DType::kMXFP4 : matrix_type_));
  writer->Add("general.quantization_version", int64_t{2});
  for (const auto& [key, value] : reader.recorded()) {
    const std::string full = absl::StrCat(architecture, ".", key);
    if (key == "attention.recurrent_layers" || key == "attention.sliding_window_pattern") {
      writer->Add(full, value, {9, 7});  // a list of booleans
    } else {
      writer->Add(full, value);
    }
  }
}

void Converter::Report(int64_t bytes) {
  done_ += bytes;
  if (options_.progress) options_.progress(done_, total_);
}

absl::Status Converter::WriteDense(const Output& output, GgufWriter* writer) {
  std::vector<float> values = output.values;
  std::vector<uint8_t> kept;  // a quantised tensor, as it is
  for (const auto& [declared, stored] : output.parts) {
    const DType type = TypeOf(checkpoint_, *declared, *stored);
    int64_t elems = 1;
    for (int64_t dim : declared->shape) elems *= dim;
    std::vector<uint8_t> bytes(static_cast<size_t>(BytesOf(type, elems)));
    if (absl::Status s = Read(checkpoint_, *declared, *stored, bytes.data()); !s.ok()) return s;
    if (IsQuantized(type)) {
      kept = std::move(bytes);
      continue;
    }
    std::vector<float> part = ToFloats(type, bytes.data(), elems);
    if (declared->name.gguf.rows.empty()) {
      values = std::move(part);
    } else {
      // This part's rows go where GGUF keeps them.
      const int64_t row = declared->shape.size() == 1 ? 1 : declared->shape.back();
      values.resize(static_cast<size_t>(output.num_elems()));
      const float* from = part.data();
      ForEachRun(declared->name.gguf, [&](int64_t first, int64_t count, int64_t step) {
        for (int64_t i = 0; i < count; ++i, from += row) {
          std::copy_n(from, row, values.begin() + (first + i * step) * row);
        }
      });
    }
  }
  if (kept.empty()) {
    kept = FromFloats(output.dtype, values);
    if (absl::Status s = CheckRange(output.name, output.dtype, values, kept.data()); !s.ok())
      return s;
  }
  Report(static_cast<int64_t>(kept.size()));
  return writer->Write(kept.data(), static_cast<int64_t>(kept.size()));
}

absl::Status Converter::WriteExperts(const Output& output, GgufWriter* writer) {
  for (int e = 0; e < num_experts_; ++e) {
    absl::StatusOr<ExpertSlice> slice =
        Resolve(checkpoint_, *output.experts, e, static_cast<int>(num_experts_));
    if (!slice.ok()) return slice.status();
    std::vector<uint8_t> bytes(static_cast<size_t>(slice->bytes()));
    if (absl::Status s = Read(checkpoint_, *slice, bytes.data()); !s.ok()) return s;
    if (!IsQuantized(slice->dtype)) {
      const std::vector<float> values =
          ToFloats(slice->dtype, bytes.data(), slice->rows * slice->cols);
      bytes = FromFloats(output.dtype, values);
      if (absl::Status s = CheckRange(output.name, output.dtype, values, bytes.data()); !s.ok())
        return s;
    }
    if (absl::Status s = writer->Write(bytes.data(), static_cast<int64_t>(bytes.size())); !s.ok())
      return s;
    Report(static_cast<int64_t>(bytes.size()));
  }
  return absl::OkStatus();
}

absl::Status Converter::Write(const ConfigReader& reader, const std::string& architecture) {
  absl::StatusOr<std::unique_ptr<GgufWriter>> writer =
      GgufWriter::Create(options_.output, options_.replace);
  if (!writer.ok()) return writer.status();
  AddMetadata(reader, architecture, writer->get());
  absl::Status tokenizer =
      AddTokenizerMetadata(options_.input, checkpoint_.config(), options_.warn, writer->get());
  if (!tokenizer.ok()) return tokenizer;
  for (const Output& output : outputs_) {
    (*writer)->AddTensor(output.name, output.dtype, output.shape);
  }
  if (absl::Status s = (*writer)->WriteHeader(); !s.ok()) return s;
  for (const Output& output : outputs_) {
    absl::Status written = output.experts != nullptr ? WriteExperts(output, writer->get())
                                                     : WriteDense(output, writer->get());
    if (!written.ok()) return written;
  }
  return (*writer)->Finish();
}

}  // namespace

absl::Status ConvertToGguf(const ConvertOptions& options) {
  absl::StatusOr<std::unique_ptr<Checkpoint>> checkpoint = Checkpoint::Open(options.input);
  if (!checkpoint.ok()) return checkpoint.status();
  if ((*checkpoint)->kind() == Checkpoint::Kind::kGguf) {
    return absl::InvalidArgumentError(absl::StrCat(
        "\"", options.input, "\" is GGUF already; `quantize` changes the type of its weights"));
  }
  ConfigReader reader(**checkpoint);
  absl::StatusOr<std::unique_ptr<Model>> model = MakeModel(&reader, {});
  if (!model.ok()) return model.status();
  const std::string architecture = GgufArchitecture(reader);
  if (architecture.empty()) {
    return absl::UnimplementedError(absl::StrCat(
        "GGUF has no architecture for \"", reader.architecture(), "\"; serve the folder as it is"));
  }
  TensorTable table;
  (*model)->DeclareTensors(&table);
  Converter converter(options, **checkpoint, **model);
  if (absl::Status s = converter.Plan(table, reader); !s.ok()) return s;
  return converter.Write(reader, architecture);
}

}  // namespace thermocline
