// Importance matrices: what is read of them, and that each expert is quantised with its own.
#include <gtest/gtest.h>

#include <cmath>

#include "absl/strings/str_cat.h"
#include "engine/formats/checkpoint.h"
#include "engine/formats/float_tensor.h"
#include "engine/model/convert/importance_matrix.h"
#include "engine/model/convert/quantize_model.h"
#include "kernels/quant/quantize.h"
#include "tests/support/model_bytes.h"
#include "tests/support/temporary_file.h"

namespace thermocline {
namespace {

class ImportanceTest : public testing::Test {
 protected:
  void ExpectRefused(const std::string& bytes, const std::string& part) {
    WriteBytes(matrix_.path(), bytes);
    const absl::Status status = ImportanceMatrix::Read(matrix_.path()).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << part;
    EXPECT_NE(status.message().find(part), std::string::npos) << status;
  }
  TemporaryFile matrix_{"imatrix"}, input_{"in.gguf"}, output_{"out.gguf"};
};

std::string BinaryEntry(const std::string& name, int32_t calls, const std::vector<float>& sums) {
  return Raw(static_cast<int32_t>(name.size())) + name + Raw(calls) +
         Raw(static_cast<int32_t>(sums.size())) + RawList(sums);
}

TEST_F(ImportanceTest, TheOlderFormHoldsSumsOverCalls) {
  WriteBytes(matrix_.path(), Raw<int32_t>(3) + BinaryEntry("a", 4, {2, 6}) +
                                 BinaryEntry("b", 0, {3}) + BinaryEntry("c", 2, {}));
  const auto matrix = ImportanceMatrix::Read(matrix_.path());
  ASSERT_TRUE(matrix.ok()) << matrix.status();
  EXPECT_EQ(matrix->values.at("a"), (std::vector<float>{0.5f, 1.5f}));
  EXPECT_EQ(matrix->values.at("b"), std::vector<float>{3});  // never called: as it is
  EXPECT_TRUE(matrix->values.at("c").empty());
  EXPECT_EQ(matrix->num_chunks, 4);  // the most calls
}

TEST_F(ImportanceTest, WhatIsCutOffOrNegativeIsRefused) {
  ExpectRefused("", "cut off at byte 0");
  ExpectRefused(Raw<int32_t>(-1), "is no importance matrix");
  ExpectRefused(Raw<int32_t>(0), "holds no importance matrix");
  ExpectRefused(Raw<int32_t>(2) + BinaryEntry("a", 1, {1}), "cut off");
  const std::string one = Raw<int32_t>(1);
  ExpectRefused(one + Raw<int32_t>(2) + "a", "cut off");
  ExpectRefused(one + Raw<int32_t>(-1), "cut off");
  ExpectRefused(one + Raw<int32_t>(1) + "a" + Raw<int32_t>(-1) + Raw<int32_t>(0), "cut off");
  ExpectRefused(one + Raw<int32_t>(1) + "a" + Raw<int32_t>(1) + Raw<int32_t>(2) + Raw(1.0f),
                "cut off");
  for (float value : {-1.0f, INFINITY, NAN}) {
    ExpectRefused(one + BinaryEntry("a", 1, {1, value}), "tensor \"a\" has an importance of");
  }
  WriteBytes(matrix_.path(), one + BinaryEntry("a", 1, {0}));
  EXPECT_TRUE(ImportanceMatrix::Read(matrix_.path()).ok());
}

std::string GgufMatrix(const std::vector<uint64_t>& sums_dims, const std::vector<float>& sums,
                       const std::vector<float>& counts, uint32_t num_chunks = 9) {
  GgufBytes gguf;
  if (num_chunks > 0) gguf.U32("imatrix.chunk_count", num_chunks);
  const uint64_t second = (4 * sums.size() + 31) / 32 * 32;
  gguf.Tensor("x.in_sum2", sums_dims, 0, 0).Tensor("x.counts", {1, counts.size()}, 0, second);
  gguf.Tensor("other", {1}, 0, second + 64);
  std::string data = RawList(sums);
  data.resize(second, '\0');
  data += RawList(counts);
  data.resize(second + 64, '\0');
  return gguf.File(data + Raw(0.0f));
}

TEST_F(ImportanceTest, TheNewerFormHoldsSumsAndACountForEachMatrix) {
  // Two matrices of three inputs; what a matrix without a count needs is unknown: evenly.
  WriteBytes(matrix_.path(), GgufMatrix({3, 2}, {2, 4, 6, 5, 5, 7}, {2, 0}));
  const auto matrix = ImportanceMatrix::Read(matrix_.path());
  ASSERT_TRUE(matrix.ok()) << matrix.status();
  EXPECT_EQ(matrix->values.size(), 1u);
  EXPECT_EQ(matrix->values.at("x"), (std::vector<float>{1, 2, 3, 1, 1, 1}));
  EXPECT_EQ(matrix->num_chunks, 9);
  WriteBytes(matrix_.path(), GgufMatrix({1}, {1}, {1}, 0));
  const auto unknown = ImportanceMatrix::Read(matrix_.path());
  ASSERT_TRUE(unknown.ok()) << unknown.status();
  EXPECT_EQ(unknown->num_chunks, 0);
  ExpectRefused(GgufMatrix({5}, {1, 1, 1, 1, 1}, {1, 1}), "\"x\" has 5 sums for 2 matrices");
  ExpectRefused(GgufMatrix({2}, {1, -1}, {1}), "tensor \"x\" has an importance of -1");

  GgufBytes alone;
  alone.Tensor("x.in_sum2", {1}, 0, 0);
  ExpectRefused(alone.File(Raw(1.0f)), "tensor \"x.counts\" is missing");
  GgufBytes half;
  half.Tensor("x.in_sum2", {2}, 1, 0).Tensor("x.counts", {1}, 0, 32);
  ExpectRefused(half.File(std::string(36, '\0')), "tensor \"x.in_sum2\" is not F32");
  GgufBytes none;
  none.Tensor("y", {1}, 0, 0);
  ExpectRefused(none.File(Raw(1.0f)), "holds no importance matrix");
}

// Three experts whose importances differ: what is written is each row by itself, quantised with the
// importance of its own expert.
TEST_F(ImportanceTest, EveryExpertIsQuantisedWithItsOwn) {
  constexpr int64_t kExperts = 3, kRows = 2, kCols = 64;
  std::vector<float> weights(kExperts * kRows * kCols), importance(kExperts * kCols, 0.01f);
  for (size_t i = 0; i < weights.size(); ++i)
    weights[i] = std::sin(static_cast<float>(i) * 1.7f) + 0.3f * std::cos(static_cast<float>(i));
  for (size_t e = 0; e < kExperts; ++e) {
    for (size_t c = e; c < kCols; c += kExperts) importance[e * kCols + c] = 1.0f;
  }
  GgufBytes gguf;
  gguf.Tensor("blk.0.ffn_up_exps.weight", {kCols, kRows, kExperts}, 0, 0);
  WriteBytes(input_.path(), gguf.File(RawList(weights)));
  WriteBytes(matrix_.path(),
             Raw<int32_t>(1) + BinaryEntry("blk.0.ffn_up_exps.weight", 1, importance));
  QuantizeOptions options;
  options.input = input_.path();
  options.output = output_.path();
  options.importance_path = matrix_.path();
  options.type = DType::kQ4_0;
  options.num_threads = 1;
  ASSERT_TRUE(QuantizeModel(options).ok()) << QuantizeModel(options).status();
  const auto written = Checkpoint::Open(output_.path());
  const TensorInfo& tensor = *(*written)->Find("blk.0.ffn_up_exps.weight");
  ASSERT_EQ(tensor.dtype, DType::kQ4_0);
  const size_t row_bytes = kCols / 32 * 18;
  std::vector<uint8_t> bytes(static_cast<size_t>(tensor.bytes)), row(row_bytes), other(row_bytes);
  ASSERT_TRUE((*written)->Read(tensor, 0, tensor.bytes, bytes.data()).ok());
  int differ = 0;
  for (size_t r = 0; r < kExperts * kRows; ++r) {
    const float* own = &importance[r / kRows * kCols];
    QuantizeRow(DType::kQ4_0, &weights[r * kCols], kCols, own, row.data());
    EXPECT_EQ(std::vector<uint8_t>(bytes.begin() + static_cast<int64_t>(r * row_bytes),
                                   bytes.begin() + static_cast<int64_t>((r + 1) * row_bytes)),
              row)
        << r;
    QuantizeRow(DType::kQ4_0, &weights[r * kCols], kCols, importance.data(), other.data());
    differ += row != other;
  }
  EXPECT_GE(differ, 2);  // else the test would show nothing

  const Metadata& metadata = (*written)->metadata();
  EXPECT_EQ(std::get<std::string>(metadata.at("quantize.imatrix.file")),
            std::filesystem::path(matrix_.path()).filename().string());
  EXPECT_EQ(std::get<int64_t>(metadata.at("quantize.imatrix.entries_count")), 1);
  EXPECT_EQ(std::get<int64_t>(metadata.at("quantize.imatrix.chunks_count")), 1);
}

TEST_F(ImportanceTest, AMatrixOfAnotherModelIsRefusedAndOneWithoutUseWarned) {
  GgufBytes gguf;
  gguf.Tensor("blk.0.attn_q.weight", {64, 2}, 0, 0);
  WriteBytes(input_.path(), gguf.File(std::string(512, '\0')));
  QuantizeOptions options;
  options.input = input_.path();
  options.output = output_.path();
  options.importance_path = matrix_.path();
  options.type = DType::kQ8_0;
  options.replace = true;
  std::vector<std::string> warnings;
  options.warn = [&](const std::string& message) { warnings.push_back(message); };
  for (size_t count : {63, 65, 128}) {
    WriteBytes(matrix_.path(), Raw<int32_t>(1) + BinaryEntry("blk.0.attn_q.weight", 1,
                                                             std::vector<float>(count, 1)));
    const absl::Status status = QuantizeModel(options).status();
    EXPECT_NE(status.message().find(absl::StrCat("has ", count, " values")), std::string::npos)
        << status;
    EXPECT_NE(status.message().find("1 x 64 inputs"), std::string::npos) << status;
  }
  WriteBytes(matrix_.path(), Raw<int32_t>(1) + BinaryEntry("elsewhere", 1, {1}));
  ASSERT_TRUE(QuantizeModel(options).ok());
  ASSERT_EQ(warnings.size(), 1u);
  EXPECT_NE(warnings[0].find("names no tensor that is quantised"), std::string::npos);
  // A tensor that is not quantised needs none, whatever the matrix says.
  warnings.clear();
  WriteBytes(matrix_.path(), Raw<int32_t>(1) + BinaryEntry("blk.0.attn_q.weight", 1, {1}));
  options.type = DType::kF16;
  ASSERT_TRUE(QuantizeModel(options).ok());
  EXPECT_EQ(warnings.size(), 1u);
}

}  // namespace
}  // namespace thermocline
