// Every decoder against the blocks decoded by gguf-py, to within one unit in the last place.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "kernels/quant/registry.h"
#include "tests/support/golden.h"
#include "tests/support/test_name.h"

namespace thermocline {
namespace {

// Distance in units in the last place; equal signs of zero count as 0.
int64_t UlpDistance(float a, float b) {
  if (a == b) return 0;
  int32_t x, y;
  std::memcpy(&x, &a, 4);
  std::memcpy(&y, &b, 4);
  const auto ordered = [](int32_t bits) {
    return bits < 0 ? INT64_C(-2147483648) - bits : static_cast<int64_t>(bits);
  };
  return std::llabs(ordered(x) - ordered(y));
}

class QuantFormatTest : public testing::TestWithParam<DType> {};

TEST_P(QuantFormatTest, DecodesAsGgufPy) {
  const WeightFormat& format = GetFormat(GetParam());
  auto file = ReadPlainTensors(GoldenPath(absl::StrCat("quant/", format.name, ".safetensors")));
  ASSERT_TRUE(file.ok()) << file.status();
  const PlainTensor &blocks = (*file)["blocks"], &values = (*file)["values"];
  ASSERT_EQ(blocks.shape[1], format.block_bytes);
  ASSERT_EQ(values.shape[1], format.block_elems);
  std::vector<float> decoded(values.f32.size());
  format.decode(blocks.u8.data(), blocks.shape[0], decoded.data());
  for (size_t i = 0; i < decoded.size(); ++i) {
    if (std::isnan(values.f32[i])) {
      ASSERT_TRUE(std::isnan(decoded[i])) << i;
    } else {
      ASSERT_LE(UlpDistance(decoded[i], values.f32[i]), 1)
          << "value " << i << ": " << decoded[i] << " for " << values.f32[i];
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, QuantFormatTest,
                         testing::Values(DType::kQ4_0, DType::kQ4_1, DType::kQ5_0, DType::kQ5_1,
                                         DType::kQ8_0, DType::kQ2_K, DType::kQ3_K, DType::kQ4_K,
                                         DType::kQ5_K, DType::kQ6_K, DType::kIQ4_NL, DType::kIQ4_XS,
                                         DType::kMXFP4),
                         kNamedByFormat);

TEST(WeightFormats, TableIsInOrder) {
  ASSERT_EQ(AllFormats().size(), static_cast<size_t>(kNumDTypes));
  for (int i = 0; i < kNumDTypes; ++i) EXPECT_EQ(AllFormats()[i].dtype, static_cast<DType>(i));
}

}  // namespace
}  // namespace thermocline
