#include "engine/model/convert/random_model.h"

#include <algorithm>
#include <random>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "engine/formats/gguf_writer.h"
#include "kernels/quant/quantize.h"
#include "kernels/quant/registry.h"

namespace thermocline {
namespace {

struct Shape {
  const char* name;
  int64_t hidden, layers, heads, kv_heads, head_dim, experts, top_k, width, vocab;
};

constexpr Shape kShapes[] = {
    {"olmoe7b", 2048, 16, 16, 16, 128, 64, 8, 1024, 50304},
    {"qwen30b", 2048, 48, 32, 4, 128, 128, 8, 768, 151936},
    {"qwen8b", 2048, 12, 32, 4, 128, 128, 8, 768, 151936},
    {"tiny", 512, 4, 8, 2, 64, 16, 4, 256, 4096},
};

absl::StatusOr<DType> ParseType(absl::string_view name) {
  std::vector<std::string> names;
  for (DType type : QuantizableTypes()) {
    names.push_back(absl::AsciiStrToLower(GetFormat(type).name));
    if (names.back() == absl::AsciiStrToLower(name)) return type;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("weight type \"", name, "\", but allowed are: ", absl::StrJoin(names, ", ")));
}

// Rows of random weights, made once a type and width and then handed out over and over: a step's
// speed does not depend on the values.
class RandomRows {
 public:
  RandomRows(DType type, int64_t cols, float deviation) : row_bytes_(BytesOf(type, cols)) {
    std::mt19937 random(static_cast<uint32_t>(cols));
    std::normal_distribution<float> normal(0.0f, deviation);
    std::vector<float> row(static_cast<size_t>(cols));
    bytes_.resize(static_cast<size_t>(kRows * row_bytes_));
    for (int64_t r = 0; r < kRows; ++r) {
      for (float& w : row) w = normal(random);
      QuantizeRow(type, row.data(), cols, nullptr, &bytes_[static_cast<size_t>(r * row_bytes_)]);
    }
  }

  absl::Status Write(int64_t num_rows, std::mt19937* random, GgufWriter* writer) const {
    while (num_rows > 0) {
      const int64_t first = static_cast<int64_t>((*random)() % kRows);
      const int64_t count = std::min(num_rows, kRows - first);
      absl::Status written =
          writer->Write(&bytes_[static_cast<size_t>(first * row_bytes_)], count * row_bytes_);
      if (!written.ok()) return written;
      num_rows -= count;
    }
    return absl::OkStatus();
  }

 private:
  static constexpr int64_t kRows = 97;
  int64_t row_bytes_;
  std::vector<uint8_t> bytes_;
};

struct Tensor {
  std::string name;
  DType type;
  std::vector<int64_t> shape;  // one dimension: a norm, all ones
  float deviation = 0.02f;
};

std::vector<Tensor> TensorsOf(const Shape& s, DType type) {
  const DType better = type == DType::kQ4_K ? DType::kQ6_K : type;
  const int64_t q = s.heads * s.head_dim, kv = s.kv_heads * s.head_dim;
  std::vector<Tensor> tensors = {{"token_embd.weight", type, {s.vocab, s.hidden}},
                                 {"output_norm.weight", DType::kF32, {s.hidden}},
                                 {"output.weight", better, {s.vocab, s.hidden}}};
  for (int64_t l = 0; l < s.layers; ++l) {
    const std::string p = absl::StrCat("blk.", l, ".");
    const std::vector<Tensor> layer = {
        {p + "attn_norm.weight", DType::kF32, {s.hidden}},
        {p + "ffn_norm.weight", DType::kF32, {s.hidden}},
        {p + "attn_q_norm.weight", DType::kF32, {s.head_dim}},
        {p + "attn_k_norm.weight", DType::kF32, {s.head_dim}},
        {p + "attn_q.weight", type, {q, s.hidden}},
        {p + "attn_k.weight", type, {kv, s.hidden}},
        {p + "attn_v.weight", better, {kv, s.hidden}},
        {p + "attn_output.weight", type, {s.hidden, q}},
        {p + "ffn_gate_inp.weight", DType::kF32, {s.experts, s.hidden}, 0.06f},
        {p + "ffn_gate_exps.weight", type, {s.experts, s.width, s.hidden}},
        {p + "ffn_up_exps.weight", type, {s.experts, s.width, s.hidden}},
        {p + "ffn_down_exps.weight", l % 2 == 0 ? better : type, {s.experts, s.hidden, s.width}}};
    tensors.insert(tensors.end(), layer.begin(), layer.end());
  }
  return tensors;
}

void AddMetadata(const Shape& s, GgufWriter* writer) {
  const std::string p = "qwen3moe.";
  writer->Add("general.architecture", std::string("qwen3moe"));
  writer->Add("general.name", absl::StrCat("random-", s.name));
  writer->Add(p + "context_length", int64_t{32768});
  writer->Add(p + "embedding_length", s.hidden);
  writer->Add(p + "block_count", s.layers);
  writer->Add(p + "feed_forward_length", s.width);
  writer->Add(p + "attention.head_count", s.heads);
  writer->Add(p + "attention.head_count_kv", s.kv_heads);
  writer->Add(p + "attention.key_length", s.head_dim);
  writer->Add(p + "attention.value_length", s.head_dim);
  writer->Add(p + "attention.layer_norm_rms_epsilon", 1e-5);
  writer->Add(p + "rope.freq_base", 10000.0);
  writer->Add(p + "expert_count", s.experts);
  writer->Add(p + "expert_used_count", s.top_k);
  writer->Add(p + "expert_feed_forward_length", s.width);
  writer->Add(p + "vocab_size", s.vocab);
  writer->Add("tokenizer.ggml.model", std::string("none"));
}

absl::Status WriteTensor(const Tensor& tensor, std::mt19937* random, GgufWriter* writer) {
  if (tensor.shape.size() == 1) {
    const std::vector<float> ones(static_cast<size_t>(tensor.shape[0]), 1.0f);
    return writer->Write(ones.data(), static_cast<int64_t>(ones.size() * sizeof(float)));
  }
  int64_t num_rows = 1;
  for (size_t i = 0; i + 1 < tensor.shape.size(); ++i) num_rows *= tensor.shape[i];
  if (tensor.type != DType::kF32) {
    return RandomRows(tensor.type, tensor.shape.back(), tensor.deviation)
        .Write(num_rows, random, writer);
  }
  // The router: rows that repeat would be experts that are always chosen together.
  std::normal_distribution<float> normal(0.0f, tensor.deviation);
  std::vector<float> values(static_cast<size_t>(num_rows * tensor.shape.back()));
  for (float& v : values) v = normal(*random);
  return writer->Write(values.data(), static_cast<int64_t>(values.size() * sizeof(float)));
}

}  // namespace

std::vector<std::string> RandomModelShapes() {
  std::vector<std::string> names;
  for (const Shape& shape : kShapes) names.push_back(shape.name);
  return names;
}

absl::Status WriteRandomModel(absl::string_view spec, const std::string& path) {
  const std::vector<std::string> parts = absl::StrSplit(spec, ':');
  const Shape* shape = std::find_if(std::begin(kShapes), std::end(kShapes),
                                    [&](const Shape& s) { return parts[0] == s.name; });
  if (shape == std::end(kShapes) || parts.size() > 2) {
    return absl::InvalidArgumentError(
        absl::StrCat("shape \"", spec, "\", but SHAPE or SHAPE:TYPE is allowed with the shapes: ",
                     absl::StrJoin(RandomModelShapes(), ", ")));
  }
  absl::StatusOr<DType> type = ParseType(parts.size() == 2 ? parts[1] : "q4_k");
  if (!type.ok()) return type.status();
  absl::StatusOr<std::unique_ptr<GgufWriter>> writer = GgufWriter::Create(path, /*replace=*/true);
  if (!writer.ok()) return writer.status();
  AddMetadata(*shape, writer->get());
  const std::vector<Tensor> tensors = TensorsOf(*shape, *type);
  for (const Tensor& t : tensors) (*writer)->AddTensor(t.name, t.type, t.shape);
  if (absl::Status s = (*writer)->WriteHeader(); !s.ok()) return s;
  std::mt19937 random(1);
  for (const Tensor& t : tensors) {
    if (absl::Status s = WriteTensor(t, &random, writer->get()); !s.ok()) return s;
  }
  return (*writer)->Finish();
}

}  // namespace thermocline
