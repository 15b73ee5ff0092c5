// Rotary frequencies by hand: what every kind of scaling makes of them.
#include "engine/model/layers/rope.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/config.h"

namespace thermocline {
namespace {

using nlohmann::json;

void ExpectNear(const std::vector<float>& actual, const std::vector<double>& expected) {
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t i = 0; i < expected.size(); ++i)
    EXPECT_NEAR(actual[i], expected[i], 1e-6 * expected[i]) << i;
}

// theta = 16 and 8 elements: frequencies are powers of 1/2.
RopeConfig Halves() {
  RopeConfig config;
  config.theta = 16.0;
  config.dim = 8;
  return config;
}

TEST(InvFreq, FallsFromOneByThePowerOfTheta) {
  ExpectNear(InvFreq(Halves()), {1, 0.5, 0.25, 0.125});
  RopeConfig config;
  config.dim = 4;
  ExpectNear(InvFreq(config), {1, 0.01});  // theta is 10000 when nothing is said
}

TEST(InvFreq, LinearScalingDividesEveryFrequency) {
  RopeConfig config = Halves();
  config.scaling = RopeConfig::Scaling::kLinear;
  config.factor = 4.0;
  ExpectNear(InvFreq(config), {0.25, 0.125, 0.0625, 0.03125});
}

TEST(InvFreq, FactorsDivideEachFrequency) {
  RopeConfig config = Halves();
  config.scaling = RopeConfig::Scaling::kFactors;
  config.divisors = {1, 2, 4, 5};
  ExpectNear(InvFreq(config), {1, 0.25, 0.0625, 0.025});
}

// Element pair d turns L / (2 pi) * 2^-d times within L positions, so the pair that turns t times
// is log2(L / (2 pi t)). With L = 2 pi * 64 * 1.2: 32 times at 1.26, once at 6.26.
RopeConfig Yarn() {
  RopeConfig config = Halves();
  config.scaling = RopeConfig::Scaling::kYarn;
  config.factor = 4.0;
  config.original_max_position_embeddings = 2.0 * M_PI * 64.0 * 1.2;
  return config;
}

// A frequency f on the ramp at r: f (1 - r) + f / 4 * r.
std::vector<double> OnRamp(const std::vector<double>& ramp) {
  std::vector<double> frequencies;
  for (size_t i = 0; i < ramp.size(); ++i)
    frequencies.push_back(std::ldexp(1.0, -static_cast<int>(i)) * (1.0 - 0.75 * ramp[i]));
  return frequencies;
}

TEST(InvFreq, YarnInterpolatesBetweenTheTwoNumbersOfTurns) {
  // Whole dimensions bound the ramp: from 1 to 7.
  ExpectNear(InvFreq(Yarn()), OnRamp({0, 0, 1.0 / 6, 2.0 / 6}));
  RopeConfig exact = Yarn();
  exact.truncate = false;
  const double low = std::log2(2 * 1.2), high = std::log2(64 * 1.2);
  ExpectNear(InvFreq(exact), OnRamp({0, 0, (2 - low) / (high - low), (3 - low) / (high - low)}));
  // Other numbers of turns: 16 times at 2.26, 8 times at 3.26, so from 2 to 4.
  RopeConfig narrow = Yarn();
  narrow.beta_fast = 16;
  narrow.beta_slow = 8;
  ExpectNear(InvFreq(narrow), OnRamp({0, 0, 0, 0.5}));
}

TEST(InvFreq, YarnsRampStaysInsideTheElementsAndHasAWidth) {
  RopeConfig config = Yarn();
  config.beta_fast = 1e6;  // a pair before the first: the ramp begins at 0 and ends at 7
  ExpectNear(InvFreq(config), OnRamp({0, 1.0 / 7, 2.0 / 7, 3.0 / 7}));
  config = Yarn();
  config.original_max_position_embeddings *= 1024;  // from 11 on, behind the last: to dim - 1 = 7
  config.beta_fast = 32 * 1024;                     // and begins at 1 as before
  ExpectNear(InvFreq(config), OnRamp({0, 0, 1.0 / 6, 2.0 / 6}));
  config = Yarn();
  config.truncate = false;
  config.beta_slow = config.beta_fast;  // a step at 1.26
  ExpectNear(InvFreq(config), OnRamp({0, 0, 1, 1}));
}

RopeConfig Read(Configured* configured, int64_t max_positions = 4096, int64_t max_context = 0,
                int64_t dim = 8, int64_t head_dim = 8) {
  return ReadRope(configured->get(), head_dim, dim, max_positions, max_context);
}

TEST(ReadRope, WithoutScalingNothingIsScaled) {
  for (const json& config : {json::object(), json{{"rope_scaling", nullptr}},
                             json{{"rope_scaling", {{"rope_type", "default"}}}},
                             json{{"rope_parameters", {{"rope_type", "default"}}}},
                             json{{"rope_scaling", {{"type", "none"}}}}}) {
    Configured c(config);
    const RopeConfig rope = Read(&c);
    EXPECT_TRUE(c->status().ok()) << c->status();
    EXPECT_EQ(rope.scaling, RopeConfig::Scaling::kNone) << config;
    EXPECT_EQ(rope.theta, 10000.0);
    EXPECT_EQ(rope.dim, 8);
    EXPECT_EQ(rope.attention_factor, 1.0);
    EXPECT_EQ(rope.softmax_mscale, 1.0);
    EXPECT_EQ(std::get<int64_t>(c->recorded().at("rope.dimension_count")), 8);
    EXPECT_EQ(c->recorded().count("rope.scaling.type"), 0u);
  }
}

TEST(ReadRope, ThetaIsFoundInAnyOfItsPlaces) {
  for (const json& config :
       {json{{"rope_theta", 500.0}},
        json{{"rope_parameters", {{"rope_theta", 500.0}}}, {"rope_theta", 7.0}},
        json{{"rope_scaling", {{"rope_theta", 500.0}}},
             {"rope_parameters", {{"rope_theta", 7.0}}}}}) {
    Configured c(config);
    EXPECT_EQ(Read(&c).theta, 500.0) << config;
    EXPECT_EQ(std::get<double>(c->recorded().at("rope.freq_base")), 500.0);
  }
  Configured g(Metadata{{"x.rope.freq_base", 500.0}});
  EXPECT_EQ(Read(&g).theta, 500.0);
}

TEST(ReadRope, TheElementsThatTurnAreEvenAndFitTheHead) {
  for (const auto& [dim, head_dim, right] :
       {std::tuple{8, 8, true}, std::tuple{2, 8, true}, std::tuple{0, 8, false},
        std::tuple{7, 8, false}, std::tuple{10, 8, false}, std::tuple{6, 8, true}}) {
    Configured c(json::object());
    const RopeConfig rope = Read(&c, 4096, 0, dim, head_dim);
    EXPECT_EQ(c->status().ok(), right) << dim;
    EXPECT_EQ(rope.dim, right ? dim : 2);
    if (right) continue;
    EXPECT_NE(c->status().message().find("does not fit head_dim = 8"), std::string::npos);
  }
  Configured g(Metadata{{"x.rope.dimension_count", int64_t{4}}});
  EXPECT_EQ(Read(&g).dim, 4);
  Configured too_many(Metadata{{"x.rope.dimension_count", int64_t{10}}});
  (void)Read(&too_many);
  EXPECT_FALSE(too_many->status().ok());
}

TEST(ReadRope, LinearScalingHasItsFactor) {
  for (const char* key : {"type", "rope_type"}) {
    Configured c(json{{"rope_scaling", {{key, "linear"}, {"factor", 4.0}}}});
    const RopeConfig rope = Read(&c);
    EXPECT_EQ(rope.scaling, RopeConfig::Scaling::kLinear);
    EXPECT_EQ(rope.factor, 4.0);
    EXPECT_EQ(std::get<std::string>(c->recorded().at("rope.scaling.type")), "linear");
    EXPECT_EQ(std::get<double>(c->recorded().at("rope.scaling.factor")), 4.0);
  }
  Configured g(
      Metadata{{"x.rope.scaling.type", std::string("linear")}, {"x.rope.scaling.factor", 4.0}});
  EXPECT_EQ(Read(&g).factor, 4.0);
}

// The older dictionary replaces the newer one, nothing is merged.
TEST(ReadRope, OneDictionaryCounts) {
  Configured both(json{{"rope_scaling", {{"type", "linear"}}},
                       {"rope_parameters", {{"rope_type", "linear"}, {"factor", 4.0}}}});
  EXPECT_EQ(Read(&both).factor, 1.0);
  Configured newer(json{{"rope_scaling", nullptr},
                        {"rope_parameters", {{"rope_type", "linear"}, {"factor", 4.0}}}});
  EXPECT_EQ(Read(&newer).factor, 4.0);
}

TEST(ReadRope, UnknownScalingIsNamedWithWhatIsSupported) {
  Configured c(json{{"rope_scaling", {{"type", "abacus"}}}});
  (void)Read(&c);
  EXPECT_NE(c->status().message().find("\"abacus\""), std::string::npos);
  EXPECT_NE(c->status().message().find("linear, llama3, yarn, longrope, dynamic"),
            std::string::npos);
}

TEST(ReadRope, DynamicScalingWithAlphaStretchesTheBase) {
  // theta * alpha^(d / (d - 2)): 10000 * 8^(8 / 6) = 160000.
  Configured c(json{{"rope_scaling", {{"type", "dynamic"}, {"alpha", 8.0}}}});
  const RopeConfig rope = Read(&c);
  EXPECT_NEAR(rope.theta, 160000.0, 1e-6);
  EXPECT_EQ(rope.scaling, RopeConfig::Scaling::kNone);
  EXPECT_NEAR(std::get<double>(c->recorded().at("rope.freq_base")), 160000.0, 1e-6);
  Configured without(json{{"rope_scaling", {{"type", "dynamic"}, {"factor", 2.0}}}});
  EXPECT_EQ(Read(&without).theta, 10000.0);
  Configured two(json{{"rope_scaling", {{"type", "dynamic"}, {"alpha", 8.0}}}});
  EXPECT_EQ(Read(&two, 4096, 0, 2).theta, 10000.0);  // one frequency, which is 1 anyway
}

// Frequencies 1, 1/10, 1/100, 1/1000: wavelengths 6.3, 62.8, 628, 6283. Up to L / 4 = 250 they are
// kept, beyond L / 1 = 1000 divided by 8; 628 lies between.
TEST(ReadRope, Llama3DividesLongWavesAndInterpolatesBetween) {
  const json scaling = {{"rope_type", "llama3"},
                        {"factor", 8.0},
                        {"low_freq_factor", 1.0},
                        {"high_freq_factor", 4.0},
                        {"original_max_position_embeddings", 1000}};
  Configured c(json{{"rope_scaling", scaling}});
  const RopeConfig rope = Read(&c);
  EXPECT_EQ(rope.scaling, RopeConfig::Scaling::kFactors);
  const double wave = 2.0 * M_PI * 100.0, smooth = (1000.0 / wave - 1.0) / 3.0;
  const double between = 1.0 / ((1.0 - smooth) / 8.0 + smooth);
  ASSERT_EQ(rope.divisors.size(), 4u);
  EXPECT_NEAR(rope.divisors[0], 1.0, 1e-12);
  EXPECT_NEAR(rope.divisors[1], 1.0, 1e-12);
  EXPECT_NEAR(rope.divisors[2], between, 1e-9);
  EXPECT_GT(between, 1.0);
  EXPECT_LT(between, 8.0);
  EXPECT_NEAR(rope.divisors[3], 8.0, 1e-12);
  EXPECT_EQ(c->recorded_tensors().at("rope_freqs.weight"), rope.divisors);
  // What is not said: 8, 1, 4 and 8192 positions, of which a fourth is beyond 628.
  Configured bare(json{{"rope_scaling", {{"rope_type", "llama3"}}}});
  const RopeConfig plain = Read(&bare);
  EXPECT_EQ(plain.original_max_position_embeddings, 8192.0);
  EXPECT_NEAR(plain.divisors[2], 1.0, 1e-12);
  const double smooth3 = (8192.0 / (2.0 * M_PI * 1000.0) - 1.0) / 3.0;
  EXPECT_NEAR(plain.divisors[3], 1.0 / ((1.0 - smooth3) / 8.0 + smooth3), 1e-9);
}

}  // namespace
}  // namespace thermocline
