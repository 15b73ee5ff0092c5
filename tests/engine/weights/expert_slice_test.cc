// Matrices of single experts, however a file stores them, and weights in the form in which the
// program holds them.
#include <gtest/gtest.h>

#include "engine/formats/float_tensor.h"
#include "engine/weights/tensor_reader.h"
#include "kernels/quant/panels.h"
#include "kernels/quant/registry.h"
#include "tests/support/model_bytes.h"
#include "tests/support/temporary_file.h"

namespace thermocline {
namespace {

class ExpertSliceTest : public testing::Test {
 protected:
  // F32 tensors of these shapes; tensor i holds 1000 * i + 0, 1, 2, ...
  void Open(const std::vector<std::pair<std::string, std::vector<int64_t>>>& tensors) {
    GgufBytes gguf;
    std::string data;
    for (size_t i = 0; i < tensors.size(); ++i) {
      const auto& [name, shape] = tensors[i];
      int64_t elems = 1;
      for (int64_t dim : shape) elems *= dim;
      data.resize((data.size() + 31) / 32 * 32, '\0');
      gguf.Tensor(name, std::vector<uint64_t>(shape.rbegin(), shape.rend()), 0, data.size());
      for (int64_t k = 0; k < elems; ++k) data += Raw(static_cast<float>(1000 * i + k));
    }
    OpenBytes(gguf.File(data));
  }
  void OpenBytes(const std::string& bytes) {
    WriteBytes(file_.path(), bytes);
    auto opened = Checkpoint::Open(file_.path());
    ASSERT_TRUE(opened.ok()) << opened.status();
    checkpoint_ = *std::move(opened);
  }
  std::vector<float> Floats(const ExpertMatrix& matrix, int expert, int num_experts) {
    const auto slice = Resolve(*checkpoint_, matrix, expert, num_experts);
    EXPECT_TRUE(slice.ok()) << slice.status();
    if (!slice.ok()) return {};
    std::vector<uint8_t> bytes(static_cast<size_t>(slice->bytes()));
    const absl::Status read = Read(*checkpoint_, *slice, bytes.data());
    EXPECT_TRUE(read.ok()) << read;
    return ToFloats(slice->dtype, bytes.data(), slice->rows * slice->cols);
  }
  void ExpectRefused(const ExpertMatrix& matrix, int num_experts, const std::string& part) {
    const absl::Status status = Resolve(*checkpoint_, matrix, 0, num_experts).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_NE(status.message().find(part), std::string::npos) << status;
  }

  TemporaryFile file_{"experts.gguf"};
  std::unique_ptr<Checkpoint> checkpoint_;
};

TEST_F(ExpertSliceTest, EachExpertsTensorOfItsOwn) {
  Open({{"x.0.w", {2, 3}}, {"x.1.w", {2, 3}}});
  const ExpertMatrix matrix = {.hf = {}, .gguf = {"x.{e}.w"}, .rows = 2, .cols = 3};
  EXPECT_EQ(Floats(matrix, 0, 2), (std::vector<float>{0, 1, 2, 3, 4, 5}));
  EXPECT_EQ(Floats(matrix, 1, 2), (std::vector<float>{1000, 1001, 1002, 1003, 1004, 1005}));
  const absl::Status missing = Resolve(*checkpoint_, matrix, 2, 3).status();
  EXPECT_NE(missing.message().find("lacks tensor \"x.2.w\""), std::string::npos) << missing;
}

TEST_F(ExpertSliceTest, AllExpertsTogether) {
  Open({{"x", {3, 2, 2}}});
  const ExpertMatrix matrix = {.hf = {}, .gguf = {"x"}, .rows = 2, .cols = 2};
  EXPECT_EQ(Floats(matrix, 0, 3), (std::vector<float>{0, 1, 2, 3}));
  EXPECT_EQ(Floats(matrix, 2, 3), (std::vector<float>{8, 9, 10, 11}));
  ExpectRefused(matrix, 4, "has shape [3, 2, 2], but the configuration needs [4, 2, 2]");
}

// Gate and up of an expert in one matrix of four rows: one behind the other, or in turns.
TEST_F(ExpertSliceTest, SomeRowsOfAnExpertsPart) {
  Open({{"x", {2, 4, 2}}});  // expert e, row r: 8e + 2r, 8e + 2r + 1
  ExpertMatrix half = {.hf = {}, .gguf = {"x", 4, 2}, .rows = 2, .cols = 2};
  EXPECT_EQ(Floats(half, 0, 2), (std::vector<float>{4, 5, 6, 7}));
  EXPECT_EQ(Floats(half, 1, 2), (std::vector<float>{12, 13, 14, 15}));
  ExpertMatrix turns = {.hf = {}, .gguf = {"x", 4, 1, 2}, .rows = 2, .cols = 2};
  EXPECT_EQ(Floats(turns, 0, 2), (std::vector<float>{2, 3, 6, 7}));
  EXPECT_EQ(Floats(turns, 1, 2), (std::vector<float>{10, 11, 14, 15}));
}

TEST_F(ExpertSliceTest, TransposedMatricesAreTurnedWhileRead) {
  // [2 experts, 3 cols, 4 rows]: element (row r, col c) of expert e is 12e + 4c + r.
  Open({{"x", {2, 3, 4}}});
  ExpertMatrix matrix = {.hf = {}, .gguf = {"x", 4, 0, 1, true}, .rows = 4, .cols = 3};
  EXPECT_EQ(Floats(matrix, 1, 2),
            (std::vector<float>{12, 16, 20, 13, 17, 21, 14, 18, 22, 15, 19, 23}));
  ExpertMatrix odd = {.hf = {}, .gguf = {"x", 4, 1, 2, true}, .rows = 2, .cols = 3};
  EXPECT_EQ(Floats(odd, 0, 2), (std::vector<float>{1, 5, 9, 3, 7, 11}));
  ExpectRefused({.hf = {}, .gguf = {"x", 3, 0, 1, true}, .rows = 3, .cols = 4}, 2,
                "needs [2, 4, 3]");
  // One expert's own tensor may be transposed too.
  Open({{"x.0", {3, 2}}});
  EXPECT_EQ(Floats({.hf = {}, .gguf = {"x.{e}", 0, 0, 1, true}, .rows = 2, .cols = 3}, 0, 1),
            (std::vector<float>{0, 2, 4, 1, 3, 5}));
}

TEST_F(ExpertSliceTest, BlocksCannotBeTransposed) {
  GgufBytes gguf;
  gguf.Tensor("x", {32, 2, 1}, 8, 0);
  OpenBytes(gguf.File(std::string(68, '\0')));
  ExpectRefused({.hf = {}, .gguf = {"x", 32, 0, 1, true}, .rows = 32, .cols = 2}, 1,
                "type Q8_0, which cannot be transposed");
}

TEST_F(ExpertSliceTest, ABiasOfOneColumnBecomesF32) {
  std::string halves;
  for (float v : {1.5f, 2.5f, 3.5f, 4.5f}) {
    const std::vector<uint8_t> half = FromFloats(DType::kF16, {v});
    halves.append(half.begin(), half.end());
  }
  GgufBytes gguf;
  gguf.Tensor("b", {2, 2}, 1, 0);
  OpenBytes(gguf.File(halves));
  const ExpertMatrix bias = {.hf = {}, .gguf = {"b"}, .rows = 2, .cols = 1};
  const auto slice = Resolve(*checkpoint_, bias, 1, 2);
  ASSERT_TRUE(slice.ok()) << slice.status();
  EXPECT_EQ(slice->dtype, DType::kF32);
  EXPECT_EQ(slice->bytes(), 8);
  EXPECT_EQ(Floats(bias, 1, 2), (std::vector<float>{3.5f, 4.5f}));
  // Of rows in turns as well.
  EXPECT_EQ(Floats({.hf = {}, .gguf = {"b", 2, 1, 2}, .rows = 1, .cols = 1}, 0, 2),
            std::vector<float>{2.5f});
}

TEST_F(ExpertSliceTest, NoRowsAreNoMatrix) {
  Open({{"x", {1}}});
  const auto slice = Resolve(*checkpoint_, ExpertMatrix(), 0, 2);
  ASSERT_TRUE(slice.ok());
  EXPECT_EQ(slice->tensor, nullptr);
}

// Long enough to be read in several pieces of 256 KiB.
TEST_F(ExpertSliceTest, DenseMatricesAreHeldInPanelsVectorsAndTablesAsTheyAre) {
  constexpr int64_t kRows = 300, kCols = 512;
  Open({{"t", {kRows, kCols}}});
  DenseTensor plain = {.name = {"", "t"}, .shape = {kRows, kCols}};
  TensorSource some("t");
  some.shape = {kRows, kCols};
  some.rows = {{.first = 10, .count = 280}};
  DenseTensor chosen = {.name = {"", some}, .shape = {280, kCols}};
  for (const DenseTensor& declared : {plain, chosen}) {
    const TensorInfo* stored = *Resolve(*checkpoint_, declared);
    const int64_t rows = declared.shape[0];
    std::vector<uint8_t> read(static_cast<size_t>(4 * rows * kCols));
    ASSERT_TRUE(Read(*checkpoint_, declared, *stored, read.data()).ok());
    const size_t bytes = static_cast<size_t>(PackedBytes(DType::kF32, rows, kCols));
    std::vector<uint8_t> expected(bytes), held(bytes);
    PackRows(DType::kF32, read.data(), rows, kCols, expected.data());
    ASSERT_TRUE(ReadHeld(*checkpoint_, declared, *stored, held.data()).ok());
    EXPECT_EQ(held, expected);
    EXPECT_NE(held, read);
    DenseTensor table = declared;
    table.in_rows = true;
    std::vector<uint8_t> kept(read.size());
    ASSERT_TRUE(ReadHeld(*checkpoint_, table, *stored, kept.data()).ok());
    EXPECT_EQ(kept, read);
  }
  Open({{"v", {5}}});
  const DenseTensor vector = {.name = {"", "v"}, .shape = {5}};
  std::vector<float> values(5);
  ASSERT_TRUE(ReadHeld(*checkpoint_, vector, *checkpoint_->Find("v"), values.data()).ok());
  EXPECT_EQ(values, (std::vector<float>{0, 1, 2, 3, 4}));
}

}  // namespace
}  // namespace thermocline
