// Quantisers against llama.cpp's errors on the same weights, and at the limits.
#include "kernels/quant/quantize.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "absl/strings/str_cat.h"
#include "engine/formats/safetensors.h"
#include "kernels/quant/registry.h"
#include "tests/support/test_name.h"

namespace thermocline {
namespace {

std::vector<float> RoundTrip(DType dtype, const std::vector<float>& x, const float* importance) {
  const int64_t n = static_cast<int64_t>(x.size());
  std::vector<uint8_t> blocks(static_cast<size_t>(BytesOf(dtype, n)));
  QuantizeRow(dtype, x.data(), n, importance, blocks.data());
  const WeightFormat& format = GetFormat(dtype);
  std::vector<float> decoded(x.size());
  format.decode(blocks.data(), n / format.block_elems, decoded.data());
  return decoded;
}

class QuantizeTest : public testing::TestWithParam<DType> {
 protected:
  static std::vector<float> Normal(size_t n, float scale) {
    std::mt19937 random(3);
    std::normal_distribution<float> normal(0.0f, scale);
    std::vector<float> x(n);
    for (float& v : x) v = normal(random);
    return x;
  }
};

TEST_P(QuantizeTest, ErrorsAreAtMostThoseOfLlamaCpp) {
  constexpr double kShare = 1.02;
  auto data = ReadPlainTensors(THERMOCLINE_SOURCE_DIR "/tests/data/quantise/inputs.safetensors");
  ASSERT_TRUE(data.ok()) << data.status();
  const std::vector<float>& importance = (*data)["importance"].f32;
  for (const char* name : {"gaussian", "heavy", "demo"}) {
    const PlainTensor& x = (*data)[name];
    const std::string key = absl::StrCat(name, ".", GetFormat(GetParam()).name);
    if (data->count(key) == 0) continue;  // F32 and the like
    const size_t cols = static_cast<size_t>(x.shape[1]);
    double errors[4] = {};  // plain without and with the matrix, weighted without and with it
    for (size_t r = 0; r < static_cast<size_t>(x.shape[0]); ++r) {
      const std::vector<float> row(x.f32.begin() + static_cast<int64_t>(r * cols),
                                   x.f32.begin() + static_cast<int64_t>((r + 1) * cols));
      for (int with = 0; with < 2; ++with) {
        const std::vector<float> decoded =
            RoundTrip(GetParam(), row, with == 1 ? importance.data() : nullptr);
        for (size_t i = 0; i < cols; ++i) {
          const double e = std::pow(static_cast<double>(decoded[i]) - row[i], 2);
          errors[with] += e / static_cast<double>(x.f32.size());
          errors[2 + with] += e * importance[i] / static_cast<double>(x.f32.size());
        }
      }
    }
    const std::vector<float>& theirs = (*data)[key].f32;
    for (int i : {0, 1, 3}) EXPECT_LE(errors[i], kShare * theirs[i]) << key << " " << i;
  }
}

TEST_P(QuantizeTest, ZerosStayZerosAndConstantsNearlyConstant) {
  const std::vector<float> zeros(512, 0.0f);
  for (float v : RoundTrip(GetParam(), zeros, nullptr)) ASSERT_EQ(v, 0.0f);
  const std::vector<float> constant(512, 0.75f);
  for (float v : RoundTrip(GetParam(), constant, nullptr)) ASSERT_NEAR(v, 0.75f, 0.13f);
  const std::vector<float> negative(512, -0.75f);
  for (float v : RoundTrip(GetParam(), negative, nullptr)) ASSERT_NEAR(v, -0.75f, 0.13f);
}

TEST_P(QuantizeTest, AnyScaleGivesFiniteWeightsNearby) {
  for (float scale : {1e-30f, 1e-7f, 1.0f, 1e3f}) {
    const std::vector<float> x = Normal(1024, scale);
    const std::vector<float> y = RoundTrip(GetParam(), x, nullptr);
    double error = 0.0, square = 0.0;
    for (size_t i = 0; i < x.size(); ++i) {
      ASSERT_TRUE(std::isfinite(y[i])) << scale;
      error += std::pow(static_cast<double>(y[i]) - x[i], 2);
      square += std::pow(static_cast<double>(x[i]), 2);
    }
    // Below the smallest half-precision scale nothing but zero is left.
    if (scale >= 1e-3f) {
      EXPECT_LT(error, 0.02 * square) << scale;
    }
    EXPECT_LE(error, 1.05 * square) << scale;
  }
}

TEST_P(QuantizeTest, BlocksAreIndependentAndImportanceOfOneIsNone) {
  const std::vector<float> x = Normal(1024, 0.02f), ones(1024, 1.0f);
  const std::vector<float> whole = RoundTrip(GetParam(), x, nullptr);
  EXPECT_EQ(RoundTrip(GetParam(), x, ones.data()), whole);
  const std::vector<float> zeros(1024, 0.0f);
  EXPECT_EQ(RoundTrip(GetParam(), x, zeros.data()), whole);
  for (size_t begin = 0; begin < x.size(); begin += 256) {
    const std::vector<float> block(x.begin() + static_cast<int64_t>(begin),
                                   x.begin() + static_cast<int64_t>(begin + 256));
    const std::vector<float> alone = RoundTrip(GetParam(), block, nullptr);
    for (size_t i = 0; i < 256; ++i) ASSERT_EQ(alone[i], whole[begin + i]);
  }
}

INSTANTIATE_TEST_SUITE_P(All, QuantizeTest, testing::ValuesIn(QuantizableTypes()), kNamedByFormat);

TEST(Quantize, SaysWhatItCanWrite) {
  EXPECT_TRUE(CanQuantize(DType::kQ4_K));
  EXPECT_FALSE(CanQuantize(DType::kQ2_K));
  EXPECT_FALSE(CanQuantize(DType::kI32));
}

}  // namespace
}  // namespace thermocline
