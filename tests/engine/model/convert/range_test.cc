// Weights that the written type cannot hold are refused, not written as infinities.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <limits>

#include "absl/strings/str_cat.h"
#include "engine/formats/checkpoint.h"
#include "engine/formats/float_tensor.h"
#include "engine/model/convert/convert.h"
#include "engine/model/convert/quantize_model.h"
#include "kernels/quant/quantize.h"
#include "kernels/quant/registry.h"
#include "tests/support/hf_folder.h"
#include "tests/support/temporary_file.h"

namespace thermocline {
namespace {

constexpr int64_t kRows = 4, kCols = 256;

// A matrix of small weights but for one, at [2, 131], and a norm.
std::string ModelWith(float weight, float norm = 1.0f) {
  std::vector<float> weights(kRows * kCols);
  for (size_t i = 0; i < weights.size(); ++i) weights[i] = static_cast<float>(i % 7) - 3.0f;
  weights[2 * kCols + 131] = weight;
  const std::vector<float> norms(8, norm);
  GgufBytes gguf;
  gguf.Tensor("blk.0.attn_q.weight", {kCols, kRows}, 0, 0);
  gguf.Tensor("blk.0.attn_norm.weight", {8}, 0, 4 * kRows * kCols);
  return gguf.File(RawList(weights) + RawList(norms));
}

class RangeTest : public testing::Test {
 protected:
  absl::Status Quantize(DType type, float weight, float norm = 1.0f) {
    WriteBytes(input_.path(), ModelWith(weight, norm));
    QuantizeOptions options;
    options.input = input_.path();
    options.output = output_.path();
    options.type = type;
    options.pure = true;
    options.replace = true;
    options.num_threads = 2;
    return QuantizeModel(options).status();
  }
  void ExpectRefused(const absl::Status& status, const std::vector<std::string>& parts) {
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    for (const std::string& part : parts)
      EXPECT_NE(status.message().find(part), std::string::npos) << part << ": " << status;
    EXPECT_FALSE(std::filesystem::exists(output_.path()));
    EXPECT_FALSE(std::filesystem::exists(output_.path() + ".partial"));
  }

  TemporaryFile input_{"wide.gguf"}, output_{"narrow.gguf"}, folder_{"wide-folder"};
};

// The largest magnitude that each type holds follows from its scales, which are F16 (up to 65504,
// 65520 rounds to infinity): codes reach 127 (Q8_0, IQ4_NL), 8 (Q4_0), 63 * 15 (Q4_K), 63 * 31
// (Q5_K), 128 * 32 (Q6_K). BF16 rounds to infinity from 2^128 - 2^119 on.
struct Limit {
  DType type;
  float held, beyond;
};
constexpr Limit kLimits[] = {{DType::kF16, 65519.0f, 65520.0f}, {DType::kBF16, 3.389e38f, 3.4e38f},
                             {DType::kQ8_0, 8.3e6f, 8.5e6f},    {DType::kIQ4_NL, 7.5e6f, 1e7f},
                             {DType::kQ4_0, 5.2e5f, 6e5f},      {DType::kQ4_K, 5.5e7f, 7e7f},
                             {DType::kQ5_K, 1.2e8f, 1.4e8f},    {DType::kQ6_K, 2.5e8f, 3e8f}};

TEST_F(RangeTest, QuantizeRefusesWhatATypeCannotHoldAndNamesTensorValueAndType) {
  for (const Limit& limit : kLimits) {
    const std::string name(GetFormat(limit.type).name);
    for (const float sign : {1.0f, -1.0f}) {
      std::filesystem::remove(output_.path());
      ExpectRefused(Quantize(limit.type, sign * limit.beyond),
                    {"tensor \"blk.0.attn_q.weight\"", absl::StrCat(sign * limit.beyond), name});
      EXPECT_TRUE(Quantize(limit.type, limit.held).ok())
          << name << ": " << Quantize(limit.type, limit.held);
    }
    // What was written for the largest weight that is held is finite and near it.
    const auto checkpoint = Checkpoint::Open(output_.path());
    const TensorInfo& tensor = *(*checkpoint)->Find("blk.0.attn_q.weight");
    std::vector<uint8_t> bytes(static_cast<size_t>(tensor.bytes));
    ASSERT_TRUE((*checkpoint)->Read(tensor, 0, tensor.bytes, bytes.data()).ok());
    const std::vector<float> values = ToFloats(tensor.dtype, bytes.data(), kRows * kCols);
    for (float v : values) ASSERT_TRUE(std::isfinite(v)) << name;
    EXPECT_NEAR(values[2 * kCols + 131], limit.held, 0.1f * limit.held) << name;
  }
}

TEST_F(RangeTest, EveryTypeThatCanBeWrittenStaysFiniteOrRefuses) {
  for (DType type : QuantizableTypes()) {
    for (float weight = 1e3f; std::isfinite(weight); weight *= 9.7f) {
      std::filesystem::remove(output_.path());
      if (!Quantize(type, weight).ok()) continue;
      const auto checkpoint = Checkpoint::Open(output_.path());
      const TensorInfo& tensor = *(*checkpoint)->Find("blk.0.attn_q.weight");
      std::vector<uint8_t> bytes(static_cast<size_t>(tensor.bytes));
      ASSERT_TRUE((*checkpoint)->Read(tensor, 0, tensor.bytes, bytes.data()).ok());
      for (float v : ToFloats(tensor.dtype, bytes.data(), kRows * kCols))
        ASSERT_TRUE(std::isfinite(v)) << GetFormat(type).name << " " << weight;
    }
  }
}

TEST_F(RangeTest, QuantizeRefusesInfinitiesAndNanAlsoWhereItOnlyCopies) {
  const float infinity = std::numeric_limits<float>::infinity();
  for (DType type : {DType::kQ4_K, DType::kQ8_0, DType::kF16, DType::kBF16, DType::kF32}) {
    ExpectRefused(Quantize(type, infinity), {"tensor \"blk.0.attn_q.weight\"", "inf"});
    ExpectRefused(Quantize(type, -infinity), {"tensor \"blk.0.attn_q.weight\"", "-inf"});
    ExpectRefused(Quantize(type, NAN), {"tensor \"blk.0.attn_q.weight\"", "nan"});
  }
  // A norm stays in F32.
  ExpectRefused(Quantize(DType::kQ8_0, 1.0f, infinity),
                {"tensor \"blk.0.attn_norm.weight\"", "inf"});
  EXPECT_TRUE(Quantize(DType::kQ8_0, 1.0f).ok());
}

TEST_F(RangeTest, ConvertRefusesWhatATypeCannotHold) {
  const auto convert = [&](std::optional<DType> type, float q_weight, float norm = 1.0f) {
    HfFolder folder = HfFolder::Llama();
    std::vector<float> q(64, 0.5f), norms(8, 1.0f);
    q[11] = q_weight;
    norms[3] = norm;
    folder.Set("model.layers.0.self_attn.q_proj.weight", {8, 8}, q);
    folder.Set("model.norm.weight", {8}, norms);
    folder.Write(folder_.path());
    ConvertOptions options;
    options.input = folder_.path();
    options.output = output_.path();
    options.replace = true;
    options.type = type;
    return ConvertToGguf(options);
  };
  const std::string name = "tensor \"blk.0.attn_q.weight\"";
  ExpectRefused(convert(DType::kF16, 1e5f), {name, "100000", "F16"});
  ExpectRefused(convert(DType::kF16, -65520.0f), {name, "-65520", "F16"});
  ExpectRefused(convert(DType::kBF16, 3.4e38f), {name, "3.4e+38", "BF16"});
  ExpectRefused(convert(DType::kF32, std::numeric_limits<float>::infinity()), {name, "inf"});
  ExpectRefused(convert(std::nullopt, NAN), {name, "nan"});
  ExpectRefused(convert(DType::kF16, 1.0f, NAN), {"tensor \"output_norm.weight\"", "nan"});
  EXPECT_TRUE(convert(DType::kF16, 65519.0f).ok()) << convert(DType::kF16, 65519.0f);
  EXPECT_TRUE(convert(DType::kBF16, 1e38f).ok());
  EXPECT_TRUE(convert(DType::kF32, 3.4e38f).ok());
}

}  // namespace
}  // namespace thermocline
