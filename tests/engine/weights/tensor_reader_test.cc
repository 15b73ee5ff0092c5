// Declared tensors read from hand-made files: which shapes fit, which rows are taken, and what is
// done to them.
#include "engine/weights/tensor_reader.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "engine/formats/float_tensor.h"
#include "kernels/quant/quantize.h"
#include "tests/support/model_bytes.h"
#include "tests/support/temporary_file.h"

namespace thermocline {
namespace {

using Shape = std::vector<int64_t>;

class TensorReaderTest : public testing::Test {
 protected:
  // One tensor "t" of this shape (outermost first) with the values 1, 2, 3, ..., or as `data` has
  // it.
  void Open(const Shape& shape, uint32_t ggml_type = 0, std::string data = "") {
    int64_t elems = 1;
    for (int64_t dim : shape) elems *= dim;
    if (data.empty()) {
      std::vector<float> values(static_cast<size_t>(elems));
      for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i + 1);
      data = RawList(values);
    }
    GgufBytes gguf;
    gguf.Tensor("t", std::vector<uint64_t>(shape.rbegin(), shape.rend()), ggml_type, 0);
    WriteBytes(file_.path(), gguf.File(data));
    auto opened = Checkpoint::Open(file_.path());
    ASSERT_TRUE(opened.ok()) << opened.status();
    checkpoint_ = *std::move(opened);
  }
  static DenseTensor Declare(const Shape& shape, TensorSource gguf = "t") {
    return {.name = {"", std::move(gguf)}, .shape = shape};
  }
  std::vector<float> Floats(const DenseTensor& declared) {
    const auto stored = Resolve(*checkpoint_, declared);
    EXPECT_TRUE(stored.ok()) << stored.status();
    if (!stored.ok()) return {};
    const DType type = TypeOf(*checkpoint_, declared, **stored);
    int64_t elems = 1;
    for (int64_t dim : declared.shape) elems *= dim;
    std::vector<uint8_t> bytes(static_cast<size_t>(BytesOf(type, elems)));
    const absl::Status read = Read(*checkpoint_, declared, **stored, bytes.data());
    EXPECT_TRUE(read.ok()) << read;
    return ToFloats(type, bytes.data(), elems);
  }
  void ExpectRefused(const DenseTensor& declared, const std::string& part) {
    const absl::Status status = Resolve(*checkpoint_, declared).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << part;
    EXPECT_NE(status.message().find(part), std::string::npos) << status;
  }

  TemporaryFile file_{"tensors.gguf"};
  std::unique_ptr<Checkpoint> checkpoint_;
};

TEST_F(TensorReaderTest, AShapeFitsInItsOrderOnesAside) {
  Open({2, 3});
  for (const Shape& shape : {Shape{2, 3}, Shape{1, 2, 3}, Shape{2, 1, 3}, Shape{2, 3, 1}}) {
    EXPECT_TRUE(Resolve(*checkpoint_, Declare(shape)).ok());
  }
  ExpectRefused(Declare({3, 2}), "\"t\" has shape [2, 3], but the configuration needs [3, 2]");
  for (const Shape& shape : {Shape{6}, Shape{2, 4}, Shape{2}, Shape{2, 3, 2}})
    ExpectRefused(Declare(shape), "has shape [2, 3]");
  Open({2, 1, 3, 1});
  EXPECT_TRUE(Resolve(*checkpoint_, Declare({2, 3})).ok());
}

TEST_F(TensorReaderTest, ASourcesOwnShapeIsWhatTheFileMustHold) {
  Open({6, 2});
  TensorSource source("t");
  source.shape = {6, 2};
  source.rows = {{.first = 1, .count = 2}};
  EXPECT_TRUE(Resolve(*checkpoint_, Declare({2, 2}, source)).ok());
  source.shape = {2, 6};
  ExpectRefused(Declare({2, 2}, source), "needs [2, 6]");
}

TEST_F(TensorReaderTest, WhatIsNotThereIsAnErrorUnlessOptionalOrNameless) {
  Open({2});
  ExpectRefused(Declare({2}, "missing"), "lacks tensor \"missing\"");
  DenseTensor optional = Declare({2}, "missing");
  optional.optional = true;
  ASSERT_TRUE(Resolve(*checkpoint_, optional).ok());
  EXPECT_EQ(*Resolve(*checkpoint_, optional), nullptr);
  EXPECT_EQ(*Resolve(*checkpoint_, Declare({2}, "")), nullptr);
  // An optional one that is there must fit as any other.
  optional = Declare({3});
  optional.optional = true;
  ExpectRefused(optional, "needs [3]");
}

TEST_F(TensorReaderTest, WholeNumbersAreNoWeights) {
  Open({4}, 26, RawList<int32_t>({1, 2, 3, 4}));
  ExpectRefused(Declare({4}), "no weight format");
}

TEST_F(TensorReaderTest, RowsAreWholeBlocksAlsoOfTheDeclaredShape) {
  Open({2, 32}, 8, std::string(68, '\0'));
  EXPECT_TRUE(Resolve(*checkpoint_, Declare({2, 32})).ok());
  // Dimensions of one do not hide that a row has only one weight.
  ExpectRefused(Declare({2, 32, 1}), "rows of 1 are not whole blocks of Q8_0");
  TensorSource rows("t");
  rows.rows = {{.first = 3, .count = 8}};
  Open({32}, 8, std::string(34, '\0'));
  rows.shape = {32};
  ExpectRefused(Declare({8}, rows), "type Q8_0, of which no single elements can be taken");
}

TEST_F(TensorReaderTest, ChosenRowsComeInTheirOrder) {
  Open({8, 2});  // row r: 2r + 1, 2r + 2
  struct Case {
    std::vector<RowRange> rows;
    int64_t row_heads, row_stride;
    std::vector<float> firsts;  // of the rows chosen
  };
  const Case cases[] = {
      {{{.first = 2, .count = 3}}, 1, 0, {5, 7, 9}},
      {{{.first = 1, .count = 3, .step = 2}}, 1, 0, {3, 7, 11}},
      // 0, 2 then 1, 3: halves to pairs.
      {{{.first = 0, .count = 2, .step = 2, .repeat = 2, .stride = 1}}, 1, 0, {1, 5, 3, 7}},
      {{{.first = 0, .count = 1, .repeat = 2, .stride = 4}}, 1, 0, {1, 9}},
      {{{.first = 5, .count = 1}, {.first = 0, .count = 2}}, 1, 0, {11, 1, 3}},
      // The same of each of two heads of four rows.
      {{{.first = 1, .count = 1}, {.first = 0, .count = 1}}, 2, 4, {3, 1, 11, 9}},
  };
  for (const Case& c : cases) {
    TensorSource source("t");
    source.shape = {8, 2};
    source.rows = c.rows;
    source.row_heads = c.row_heads;
    source.row_stride = c.row_stride;
    const std::vector<float> values =
        Floats(Declare({static_cast<int64_t>(c.firsts.size()), 2}, source));
    ASSERT_EQ(values.size(), 2 * c.firsts.size());
    for (size_t i = 0; i < c.firsts.size(); ++i) {
      EXPECT_EQ(values[2 * i], c.firsts[i]);
      EXPECT_EQ(values[2 * i + 1], c.firsts[i] + 1);
    }
  }
}

TEST_F(TensorReaderTest, AVectorsRowsAreItsElements) {
  Open({6});
  TensorSource source("t");
  source.shape = {6};
  source.rows = {{.first = 1, .count = 2, .step = 3}};
  EXPECT_EQ(Floats(Declare({2}, source)), (std::vector<float>{2, 5}));
}

TEST_F(TensorReaderTest, TransformsAreAppliedToTheChosenRows) {
  Open({2, 2});
  TensorSource source("t");
  source.transform = Transform::kAddOne;
  EXPECT_EQ(Floats(Declare({2, 2}, source)), (std::vector<float>{2, 3, 4, 5}));
  source.transform = Transform::kNegExp;
  const std::vector<float> decay = Floats(Declare({2, 2}, source));
  for (int i = 0; i < 4; ++i)
    EXPECT_EQ(decay[static_cast<size_t>(i)], -std::exp(static_cast<float>(i + 1)));
  // Columns (1, 3) and (2, 4) have lengths sqrt(10) and sqrt(20).
  source.transform = Transform::kUnitColumns;
  const std::vector<float> unit = Floats(Declare({2, 2}, source));
  const double lengths[] = {std::sqrt(10.0), std::sqrt(20.0)};
  for (size_t i = 0; i < 4; ++i)
    EXPECT_NEAR(unit[i], static_cast<double>(i + 1) / lengths[i % 2], 1e-6);
  source.transform = Transform::kAddOne;
  source.shape = {2, 2};
  source.rows = {{.first = 1, .count = 1}};
  EXPECT_EQ(Floats(Declare({1, 2}, source)), (std::vector<float>{4, 5}));
}

// Lengths get 1e-7 more: a column of that length is halved, and zeros stay zeros.
TEST_F(TensorReaderTest, UnitColumnsOfAlmostNothingStaySmall) {
  TensorSource source("t");
  source.transform = Transform::kUnitColumns;
  Open({1, 2}, 0, RawList<float>({1e-7f, -1e-7f}));
  const std::vector<float> halves = Floats(Declare({1, 2}, source));
  EXPECT_NEAR(halves[0], 0.5f, 1e-6f);
  EXPECT_NEAR(halves[1], -0.5f, 1e-6f);
  Open({2, 1}, 0, RawList<float>({0, 0}));
  EXPECT_EQ(Floats(Declare({2, 1}, source)), (std::vector<float>{0, 0}));
}

TEST_F(TensorReaderTest, HeadsAreTransposedOneByOneInTheirOwnType) {
  // Two heads of [2, 3] become two of [3, 2].
  const std::vector<float> expected = {1, 4, 2, 5, 3, 6, 7, 10, 8, 11, 9, 12};
  TensorSource source("t");
  source.transform = Transform::kTransposeHeads;
  source.heads = 2;
  source.shape = {2, 2, 3};
  Open({2, 2, 3});
  EXPECT_EQ(TypeOf(*checkpoint_, Declare({2, 3, 2}, source), *checkpoint_->Find("t")), DType::kF32);
  // The declared shape is [heads, columns of the result's rows ...]: [2, 3, 2].
  EXPECT_EQ(Floats(Declare({2, 3, 2}, source)), expected);
  std::string halves;
  for (int i = 1; i <= 12; ++i) {
    const std::vector<uint8_t> half = FromFloats(DType::kF16, {static_cast<float>(i)});
    halves.append(half.begin(), half.end());
  }
  Open({2, 2, 3}, 1, halves);
  EXPECT_EQ(TypeOf(*checkpoint_, Declare({2, 3, 2}, source), *checkpoint_->Find("t")), DType::kF16);
  EXPECT_EQ(Floats(Declare({2, 3, 2}, source)), expected);
}

// Two rows of 32 weights in blocks: 127 times the scale is the largest weight.
std::string TwoRowsOfQ8(uint16_t scale) {
  std::string data;
  for (int row = 0; row < 2; ++row) {
    data += Raw(scale);
    for (int i = 0; i < 32; ++i) data.push_back(static_cast<char>(row * 32 + i));
  }
  return data;
}

TEST_F(TensorReaderTest, BlocksAreTransposedAsF16IfThatHoldsThem) {
  TensorSource source("t");
  source.transform = Transform::kTransposeHeads;
  source.shape = {1, 2, 32};
  const DenseTensor declared = Declare({1, 32, 2}, source);
  Open({1, 2, 32}, 8, TwoRowsOfQ8(0x3C00));  // scale 1
  EXPECT_EQ(TypeOf(*checkpoint_, declared, *checkpoint_->Find("t")), DType::kF16);
  const std::vector<float> values = Floats(declared);
  for (size_t i = 0; i < 64; ++i) EXPECT_EQ(values[i], static_cast<float>(i / 2 + i % 2 * 32)) << i;
  Open({1, 2, 32}, 8, TwoRowsOfQ8(0x6C00));  // scale 4096: 63 * 4096 is beyond F16
  std::vector<uint8_t> bytes(128);
  const absl::Status status = Read(*checkpoint_, declared, *checkpoint_->Find("t"), bytes.data());
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find("beyond the range of F16"), std::string::npos) << status;
}

TEST_F(TensorReaderTest, TheTypeIsTheFilesUnlessFloatsAreNeeded) {
  Open({2, 32}, 8, std::string(68, '\0'));
  const TensorInfo& stored = *checkpoint_->Find("t");
  DenseTensor declared = Declare({2, 32});
  EXPECT_EQ(TypeOf(*checkpoint_, declared, stored), DType::kQ8_0);
  declared.as_f32 = true;
  EXPECT_EQ(TypeOf(*checkpoint_, declared, stored), DType::kF32);
  for (Transform transform : {Transform::kAddOne, Transform::kNegExp, Transform::kUnitColumns}) {
    TensorSource source("t");
    source.transform = transform;
    EXPECT_EQ(TypeOf(*checkpoint_, Declare({2, 32}, source), stored), DType::kF32);
  }
}

TEST_F(TensorReaderTest, WantedAsF32BlocksAreDecoded) {
  Open({2, 32}, 8, TwoRowsOfQ8(0x3800));  // scale 1/2
  DenseTensor declared = Declare({2, 32});
  declared.as_f32 = true;
  const std::vector<float> values = Floats(declared);
  for (size_t i = 0; i < 64; ++i) EXPECT_EQ(values[i], 0.5f * static_cast<float>(i));
  // Chosen rows of blocks stay blocks: the second row.
  TensorSource source("t");
  source.shape = {2, 32};
  source.rows = {{.first = 1, .count = 1}};
  const DenseTensor row = Declare({1, 32}, source);
  EXPECT_EQ(TypeOf(*checkpoint_, row, *checkpoint_->Find("t")), DType::kQ8_0);
  EXPECT_EQ(Floats(row)[0], 16.0f);
  EXPECT_EQ(Floats(row)[31], 31.5f);
}

}  // namespace
}  // namespace thermocline
