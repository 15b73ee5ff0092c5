// What a GGUF file may say of its tensors, and what is refused. Files are made by hand.
#include "engine/formats/gguf.h"

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "engine/formats/gguf_types.h"
#include "tests/support/model_bytes.h"
#include "tests/support/temporary_file.h"

namespace thermocline {
namespace {

constexpr uint32_t kF32 = 0, kQ8_0 = 8;

class GgufTest : public testing::Test {
 protected:
  absl::StatusOr<std::unique_ptr<Checkpoint>> Open(const std::string& bytes) {
    WriteBytes(file_.path(), bytes);
    return OpenGguf(file_.path());
  }
  absl::StatusOr<std::unique_ptr<Checkpoint>> Open(const GgufBytes& gguf, size_t data_bytes) {
    return Open(gguf.File(std::string(data_bytes, '\0')));
  }
  void ExpectRefused(const std::string& bytes, const std::string& part) {
    const auto checkpoint = Open(bytes);
    ASSERT_FALSE(checkpoint.ok()) << part;
    EXPECT_EQ(checkpoint.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_NE(checkpoint.status().message().find(part), std::string::npos) << checkpoint.status();
  }
  void ExpectRefused(const GgufBytes& gguf, size_t data_bytes, const std::string& part) {
    ExpectRefused(gguf.File(std::string(data_bytes, '\0')), part);
  }

  TemporaryFile file_{"model.gguf"};
};

TEST_F(GgufTest, DimensionsAreInnermostFirstOnDiskAndRowMajorHere) {
  GgufBytes gguf;
  gguf.Tensor("t", {3, 2, 4, 5}, kF32, 0);
  const auto checkpoint = Open(gguf, 480);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const TensorInfo* tensor = (*checkpoint)->Find("t");
  ASSERT_NE(tensor, nullptr);
  EXPECT_EQ(tensor->shape, (std::vector<int64_t>{5, 4, 2, 3}));
  EXPECT_EQ(tensor->bytes, 480);
  EXPECT_EQ(tensor->num_elems(), 120);
  EXPECT_EQ(tensor->dtype, DType::kF32);
}

TEST_F(GgufTest, DataBeginsAtTheFilesOwnAlignment) {
  for (uint64_t alignment : {1, 2, 32, 64, 4096, 1 << 20}) {
    GgufBytes gguf;
    gguf.alignment = alignment;
    gguf.U32("general.alignment", static_cast<uint32_t>(alignment));
    // A second tensor at the first multiple of the alignment behind the first one's 4 bytes.
    const uint64_t second = std::max<uint64_t>(4, alignment);
    gguf.Tensor("a", {1}, kF32, 0).Tensor("b", {1}, kF32, second);
    std::string data(second + 4, '\0');
    data.replace(0, 4, Raw(1.5f));
    data.replace(second, 4, Raw(2.5f));
    const auto checkpoint = Open(gguf.File(data));
    ASSERT_TRUE(checkpoint.ok()) << alignment << ": " << checkpoint.status();
    float a = 0, b = 0;
    ASSERT_TRUE((*checkpoint)->Read(*(*checkpoint)->Find("a"), 0, 4, &a).ok());
    ASSERT_TRUE((*checkpoint)->Read(*(*checkpoint)->Find("b"), 0, 4, &b).ok());
    EXPECT_EQ(a, 1.5f) << alignment;
    EXPECT_EQ(b, 2.5f) << alignment;
  }
}

TEST_F(GgufTest, TheAlignmentIsAPowerOfTwoUpToOneMebibyte) {
  for (uint32_t alignment : {0u, 3u, 33u, 48u, (1u << 20) + 1, 1u << 21}) {
    GgufBytes gguf;
    ExpectRefused(gguf.U32("general.alignment", alignment), 0, "general.alignment");
  }
  GgufBytes negative, text, wide;
  ExpectRefused(negative.Value("general.alignment", 5, Raw<int32_t>(-32)), 0, "general.alignment");
  ExpectRefused(text.String("general.alignment", "32"), 0, "general.alignment");
  ExpectRefused(wide.Value("general.alignment", 10, Raw<uint64_t>(32)), 0, "general.alignment");
}

TEST_F(GgufTest, OffsetsAreMultiplesOfTheAlignment) {
  for (uint64_t offset : {1, 4, 31, 33, 48, 63}) {
    GgufBytes gguf;
    gguf.Tensor("odd", {1}, kF32, offset);
    ExpectRefused(gguf, 256, absl::StrCat("tensor \"odd\" has offset ", offset));
  }
  for (uint64_t offset : {0, 32, 64}) {
    GgufBytes gguf;
    EXPECT_TRUE(Open(gguf.Tensor("even", {1}, kF32, offset), 256).ok()) << offset;
  }
  GgufBytes wider;  // 32 is no multiple of 64
  wider.alignment = 64;
  wider.U32("general.alignment", 64).Tensor("odd", {1}, kF32, 32);
  ExpectRefused(wider, 256, "not aligned to 64");
}

TEST_F(GgufTest, ATensorEndsInsideTheFile) {
  GgufBytes gguf;
  gguf.Tensor("first", {8}, kF32, 0).Tensor("last", {5}, kF32, 32);
  EXPECT_TRUE(Open(gguf, 52).ok());
  for (size_t data : {32, 36, 51}) ExpectRefused(gguf, data, "tensor \"last\"");
  for (size_t data : {0, 31}) ExpectRefused(gguf, data, "tensor \"first\"");
  GgufBytes blocks;  // 34 bytes for 32 weights
  blocks.Tensor("q", {32}, kQ8_0, 0);
  EXPECT_TRUE(Open(blocks, 34).ok());
  ExpectRefused(blocks, 33, "tensor \"q\"");
}

TEST_F(GgufTest, AnOffsetBeyondTheFileIsRefused) {
  // The header of 96 bytes and 4 of data: the last offset inside is a multiple of 32 up to 100.
  GgufBytes gguf;
  gguf.Tensor("far", {1}, kF32, uint64_t{1} << 63);
  ExpectRefused(gguf, 4, "tensor \"far\" has offset 9223372036854775808");
  GgufBytes near;
  near.Tensor("far", {1}, kF32, 128);
  ExpectRefused(near, 4, "outside the file");
}

TEST_F(GgufTest, TensorsDoNotShareBytes) {
  const auto three = [](uint64_t a, uint64_t b, uint64_t c) {
    GgufBytes gguf;
    return gguf.Tensor("a", {16}, kF32, a).Tensor("b", {8}, kF32, b).Tensor("c", {8}, kF32, c);
  };
  EXPECT_TRUE(Open(three(0, 64, 96), 128).ok());
  EXPECT_TRUE(Open(three(64, 32, 0), 128).ok());  // in any order
  for (const GgufBytes& gguf : {three(0, 32, 96), three(32, 0, 64), three(0, 64, 64)}) {
    ExpectRefused(gguf, 128, "tensors overlap at byte");
  }
}

TEST_F(GgufTest, ATensorHasOneToFourDimensionsOfAtLeastOne) {
  for (const std::vector<uint64_t>& dims :
       {std::vector<uint64_t>{}, std::vector<uint64_t>{1, 1, 1, 1, 1}}) {
    GgufBytes gguf;
    gguf.Tensor("t", dims, kF32, 0);
    ExpectRefused(gguf, 32, absl::StrCat("tensor \"t\" has rank ", dims.size()));
  }
  const uint64_t most = uint64_t{1} << 48;
  for (uint64_t dim : {uint64_t{0}, most + 1}) {
    GgufBytes gguf;
    gguf.Tensor("t", {dim, 1}, kF32, 0);
    ExpectRefused(gguf, 32, absl::StrCat("tensor \"t\" has a dimension of ", dim));
  }
  GgufBytes widest;  // allowed by itself, but not in this file
  widest.Tensor("t", {most}, kF32, 0);
  ExpectRefused(widest, 32, "lie outside the file");
}

TEST_F(GgufTest, RowsAreWholeBlocks) {
  GgufBytes gguf;
  gguf.Tensor("t", {48, 2}, kQ8_0, 0);
  ExpectRefused(gguf, 256, "tensor \"t\" of");
}

TEST_F(GgufTest, EveryTensorHasItsOwnName) {
  GgufBytes gguf;
  gguf.Tensor("same", {1}, kF32, 0).Tensor("same", {1}, kF32, 32);
  ExpectRefused(gguf, 64, "tensor \"same\" is there twice");
}

TEST_F(GgufTest, EveryTypeOfTheFormatAndNoOther) {
  // The numbers of ggml.h.
  const std::pair<uint32_t, DType> types[] = {
      {0, DType::kF32},     {1, DType::kF16},     {2, DType::kQ4_0},  {3, DType::kQ4_1},
      {6, DType::kQ5_0},    {7, DType::kQ5_1},    {8, DType::kQ8_0},  {10, DType::kQ2_K},
      {11, DType::kQ3_K},   {12, DType::kQ4_K},   {13, DType::kQ5_K}, {14, DType::kQ6_K},
      {20, DType::kIQ4_NL}, {23, DType::kIQ4_XS}, {26, DType::kI32},  {30, DType::kBF16},
      {39, DType::kMXFP4}};
  uint32_t next = 0;
  for (uint32_t number = 0; number < 45; ++number) {
    GgufBytes gguf;
    gguf.Tensor("t", {256}, number, 0);
    const auto checkpoint = Open(gguf, 1024);
    if (next < std::size(types) && types[next].first == number) {
      ASSERT_TRUE(checkpoint.ok()) << number << ": " << checkpoint.status();
      EXPECT_EQ((*checkpoint)->Find("t")->dtype, types[next].second) << number;
      EXPECT_EQ(GgmlTypeOf(types[next].second), number);
      ++next;
    } else {
      EXPECT_EQ(checkpoint.status().code(), absl::StatusCode::kUnimplemented) << number;
      for (const std::string& part : std::initializer_list<std::string>{
               "tensor \"t\"", "F32, F16, Q4_0", "BF16, MXFP4", absl::StrCat("type ", number)})
        EXPECT_NE(checkpoint.status().message().find(part), std::string::npos)
            << checkpoint.status();
    }
  }
}

TEST(GgufTypes, FileTypesAreLlamaCppsNumbers) {
  // enum llama_ftype of llama.h.
  for (const auto& [dtype, number] :
       std::initializer_list<std::pair<DType, int64_t>>{{DType::kF32, 0},
                                                        {DType::kF16, 1},
                                                        {DType::kQ4_0, 2},
                                                        {DType::kQ8_0, 7},
                                                        {DType::kQ4_K, 15},
                                                        {DType::kQ5_K, 17},
                                                        {DType::kQ6_K, 18},
                                                        {DType::kIQ4_NL, 25},
                                                        {DType::kBF16, 32},
                                                        {DType::kMXFP4, 38}}) {
    EXPECT_EQ(GgufFileType(dtype), number);
  }
}

}  // namespace
}  // namespace thermocline
