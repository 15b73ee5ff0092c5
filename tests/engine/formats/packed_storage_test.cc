// Weights stored in two tensors: E4M3 by value, blocks of MXFP4 by their bits, and long tensors.
#include "engine/formats/packed_storage.h"

#include <gtest/gtest.h>

#include <cmath>

#include "absl/strings/str_cat.h"
#include "engine/formats/float_tensor.h"
#include "tests/support/model_bytes.h"
#include "tests/support/temporary_file.h"

namespace thermocline {
namespace {

TEST(Fp8ToFloat, FollowsOfp8E4M3) {
  // s eeee mmm, bias 7: subnormals m * 2^-9, then (1 + m / 8) * 2^(e - 7); no infinities.
  const std::pair<int, float> values[] = {
      {0x00, 0.0f},          {0x01, 0.001953125f}, {0x07, 0.013671875f}, {0x08, 0.015625f},
      {0x09, 0.017578125f},  {0x38, 1.0f},         {0x39, 1.125f},       {0x40, 2.0f},
      {0x77, 240.0f},        {0x78, 256.0f},       {0x7E, 448.0f},       {0xB8, -1.0f},
      {0x81, -0.001953125f}, {0xFE, -448.0f}};
  for (const auto& [code, value] : values)
    EXPECT_EQ(Fp8ToFloat(static_cast<uint8_t>(code)), value) << code;
  EXPECT_TRUE(std::signbit(Fp8ToFloat(0x80)));
  EXPECT_EQ(Fp8ToFloat(0x80), 0.0f);
  for (int code = 0; code < 256; ++code)
    EXPECT_EQ(std::isnan(Fp8ToFloat(static_cast<uint8_t>(code))), (code & 0x7F) == 0x7F) << code;
}

class PackedStorageTest : public testing::Test {
 protected:
  std::unique_ptr<Checkpoint> Open(const std::string& config, const std::string& header,
                                   const std::string& data) {
    WriteBytes(folder_.path() + "/config.json", config);
    WriteBytes(folder_.path() + "/model.safetensors", SafetensorsBytes(header, data));
    auto checkpoint = Checkpoint::Open(folder_.path());
    EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
    return checkpoint.ok() ? *std::move(checkpoint) : nullptr;
  }
  TemporaryFile folder_{"packed"};
};

// Element 2i of a block in the low half of byte i on disk; i in the low half and i + 16 in the high
// half of byte i here. With element k holding code k mod 16, byte i on disk is 2i and 2i + 1, and
// here i and i + 16, which is i again.
TEST_F(PackedStorageTest, BlocksOfMxfp4AreRearranged) {
  std::string codes, scales;
  for (int i = 0; i < 16; ++i)
    codes.push_back(static_cast<char>((2 * i) % 16 | (2 * i + 1) % 16 << 4));
  // The second block: element 0 holds 5, element 16 holds 9, all others 0.
  std::string second(16, '\0');
  second[0] = 5;
  second[8] = 9;
  const auto checkpoint =
      Open("{}",
           R"({"x_blocks":{"dtype":"U8","shape":[1,2,16],"data_offsets":[0,32]},)"
           R"("x_scales":{"dtype":"U8","shape":[1,2],"data_offsets":[32,34]}})",
           codes + second + "\x7F\x80");
  ASSERT_NE(checkpoint, nullptr);
  const TensorInfo& x = *checkpoint->Find("x");
  ASSERT_EQ(x.bytes, 34);
  uint8_t blocks[34] = {};
  ASSERT_TRUE(checkpoint->Read(x, 0, 34, blocks).ok());
  EXPECT_EQ(blocks[0], 0x7F);
  for (int i = 0; i < 16; ++i) EXPECT_EQ(blocks[1 + i], i | i << 4) << i;
  EXPECT_EQ(blocks[17], 0x80);
  EXPECT_EQ(blocks[18], 5 | 9 << 4);
  for (int i = 1; i < 16; ++i) EXPECT_EQ(blocks[18 + i], 0) << i;
  // The second block alone, and parts of blocks.
  uint8_t alone[17] = {};
  ASSERT_TRUE(checkpoint->Read(x, 17, 17, alone).ok());
  EXPECT_EQ(std::memcmp(alone, blocks + 17, 17), 0);
  for (const auto& [offset, bytes] : {std::pair{0, 16}, std::pair{1, 17}, std::pair{17, 16}}) {
    EXPECT_EQ(checkpoint->Read(x, offset, bytes, blocks).code(), absl::StatusCode::kInternal);
  }
}

// More blocks than are read at a time, 65536: the last ones must be in their place.
TEST_F(PackedStorageTest, LongTensorsOfMxfp4AreReadInPieces) {
  constexpr int64_t kBlocks = 2 * 65536 + 3;
  std::string codes(kBlocks * 16, '\0'), scales(kBlocks, '\0');
  for (int64_t b = 0; b < kBlocks; ++b) {
    codes[static_cast<size_t>(b * 16)] = static_cast<char>(b % 16);  // element 0
    scales[static_cast<size_t>(b)] = static_cast<char>(b % 251);
  }
  const auto checkpoint = Open(
      "{}",
      absl::StrCat(R"({"x_blocks":{"dtype":"U8","shape":[)", kBlocks, R"(,16],"data_offsets":[0,)",
                   kBlocks * 16, R"(]},"x_scales":{"dtype":"U8","shape":[)", kBlocks,
                   R"(],"data_offsets":[)", kBlocks * 16, ",", kBlocks * 17, "]}}"),
      codes + scales);
  ASSERT_NE(checkpoint, nullptr);
  const TensorInfo& x = *checkpoint->Find("x");
  std::vector<uint8_t> blocks(static_cast<size_t>(x.bytes));
  ASSERT_TRUE(checkpoint->Read(x, 0, x.bytes, blocks.data()).ok());
  for (int64_t b = 0; b < kBlocks; ++b) {
    ASSERT_EQ(blocks[static_cast<size_t>(b * 17)], b % 251) << b;
    ASSERT_EQ(blocks[static_cast<size_t>(b * 17 + 1)], b % 16) << b;
  }
}

// More weights than are read at a time, 2^20, in rows that the pieces cut: a row of blocks of 2 x 8
// has its own scales, 2^(row of blocks mod 8), doubled from the first block to the second.
TEST_F(PackedStorageTest, LongTensorsOfFp8AreReadInPieces) {
  constexpr int64_t kCols = 12, kRows = (2 << 20) / kCols + 7, kScaleRows = (kRows + 1) / 2;
  const std::string codes(kRows * kCols, '\x38');  // ones
  std::string scales;
  for (int64_t r = 0; r < kScaleRows; ++r) {
    const float scale = std::ldexp(1.0f, static_cast<int>(r % 8));
    scales += Raw(scale) + Raw(2 * scale);
  }
  const auto checkpoint =
      Open(R"({"quantization_config": {"weight_block_size": [2, 8]}})",
           absl::StrCat(
               R"({"w":{"dtype":"F8_E4M3","shape":[)", kRows, ",", kCols, R"(],"data_offsets":[0,)",
               codes.size(), R"(]},"w_scale_inv":{"dtype":"F32","shape":[)", kScaleRows,
               R"(,2],"data_offsets":[)", codes.size(), ",", codes.size() + scales.size(), "]}}"),
           codes + scales);
  ASSERT_NE(checkpoint, nullptr);
  const TensorInfo& w = *checkpoint->Find("w");
  std::vector<uint8_t> bytes(static_cast<size_t>(w.bytes));
  ASSERT_TRUE(checkpoint->Read(w, 0, w.bytes, bytes.data()).ok());
  const std::vector<float> values = ToFloats(DType::kBF16, bytes.data(), kRows * kCols);
  for (int64_t i = 0; i < kRows * kCols; ++i) {
    const int64_t row = i / kCols, col = i % kCols;
    const float expected = std::ldexp(col < 8 ? 1.0f : 2.0f, static_cast<int>(row / 2 % 8));
    ASSERT_EQ(values[static_cast<size_t>(i)], expected) << row << " " << col;
  }
  uint16_t half = 0;
  EXPECT_EQ(checkpoint->Read(w, 1, 2, &half).code(), absl::StatusCode::kInternal);
  EXPECT_EQ(checkpoint->Read(w, 0, 1, &half).code(), absl::StatusCode::kInternal);
}

// A read that is cut off in the scales says so as one in the codes.
TEST_F(PackedStorageTest, ShortFilesAreDataLoss) {
  const auto fp8 = Open("{}",
                        R"({"w":{"dtype":"F8_E4M3","shape":[1,4],"data_offsets":[0,4]},)"
                        R"("w_scale_inv":{"dtype":"F32","shape":[1,1],"data_offsets":[4,8]}})",
                        std::string(8, '\1'));
  const std::string path = folder_.path() + "/model.safetensors";
  const auto size = std::filesystem::file_size(path);
  char bytes[64];
  std::filesystem::resize_file(path, size - 1);
  EXPECT_EQ(fp8->Read(*fp8->Find("w"), 0, 8, bytes).code(), absl::StatusCode::kDataLoss);
  std::filesystem::resize_file(path, size - 5);
  EXPECT_EQ(fp8->Read(*fp8->Find("w"), 0, 8, bytes).code(), absl::StatusCode::kDataLoss);
  const auto mxfp4 = Open("{}",
                          R"({"x_blocks":{"dtype":"U8","shape":[1,16],"data_offsets":[0,16]},)"
                          R"("x_scales":{"dtype":"U8","shape":[1],"data_offsets":[16,17]}})",
                          std::string(17, '\1'));
  std::filesystem::resize_file(path, std::filesystem::file_size(path) - 1);
  EXPECT_EQ(mxfp4->Read(*mxfp4->Find("x"), 0, 17, bytes).code(), absl::StatusCode::kDataLoss);
}

TEST(FloatTensor, RoundsToNearestEvenAndBack) {
  // F16 has 10 bits of mantissa, BF16 7: halfway cases go to the even neighbour.
  const std::vector<float> values = {1.0f, 1.0f + 0x1p-11f, 1.0f + 0x3p-11f, -2.0f, 65504.0f};
  const std::vector<uint8_t> half = FromFloats(DType::kF16, values);
  ASSERT_EQ(half.size(), 10u);
  EXPECT_EQ(ToFloats(DType::kF16, half.data(), 5),
            (std::vector<float>{1.0f, 1.0f, 1.0f + 0x2p-10f, -2.0f, 65504.0f}));
  const std::vector<float> wide = {1.0f + 0x1p-8f, 1.0f + 0x3p-8f, 1e38f, -0.0f};
  const std::vector<uint8_t> bfloat = FromFloats(DType::kBF16, wide);
  const std::vector<float> back = ToFloats(DType::kBF16, bfloat.data(), 4);
  EXPECT_EQ(back[0], 1.0f);
  EXPECT_EQ(back[1], 1.0f + 0x2p-7f);
  EXPECT_NEAR(back[2], 1e38f, 1e38f / 256);
  EXPECT_TRUE(std::signbit(back[3]));
  const std::vector<uint8_t> whole = FromFloats(DType::kF32, values);
  EXPECT_EQ(ToFloats(DType::kF32, whole.data(), 5), values);
}

}  // namespace
}  // namespace thermocline
