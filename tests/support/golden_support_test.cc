// The comparisons on which the golden tests rest: a value that is no number must fail them.
#include <gtest/gtest-spi.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/support/golden.h"

namespace thermocline {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

TEST(MaxError, IsTheLargestDifferenceOverTheLargestReference) {
  const std::vector<float> reference = {1.0f, -8.0f, 2.0f};
  // Differences 0.5, 2 and 0: 2 / 8.
  EXPECT_EQ(MaxError({1.5f, -6.0f, 2.0f}, reference.data(), 8.0), 0.25);
  EXPECT_EQ(MaxError(reference, reference.data(), 8.0), 0.0);
}

TEST(MaxError, AValueThatIsNotFiniteFailsWhereverItStands) {
  const std::vector<float> good = {1.0f, 2.0f, 4.0f};
  for (const float wrong : {NAN, -NAN, INFINITY, -INFINITY}) {
    for (size_t at = 0; at < good.size(); ++at) {
      std::vector<float> bad = good;
      bad[at] = wrong;
      EXPECT_EQ(MaxError(bad, good.data(), 4.0), kInfinity) << wrong << " at " << at;
      EXPECT_EQ(MaxError(good, bad.data(), 4.0), kInfinity) << wrong << " expected at " << at;
      EXPECT_EQ(MaxError(bad, bad.data(), 4.0), kInfinity) << wrong << " on both sides at " << at;
    }
  }
}

TEST(MaxError, WithoutAScaleNothingAgrees) {
  const std::vector<float> zero = {0.0f};
  for (const double largest : {0.0, kInfinity, std::numeric_limits<double>::quiet_NaN()})
    EXPECT_EQ(MaxError(zero, zero.data(), largest), kInfinity) << largest;
}

TEST(Largest, IsTheLargestMagnitudeAndInfiniteWhereOneIsNotFinite) {
  EXPECT_EQ(Largest({1.0f, -3.0f, 2.0f}), 3.0);
  EXPECT_EQ(Largest({}), 0.0);
  for (const float wrong : {NAN, INFINITY, -INFINITY}) {
    EXPECT_EQ(Largest({wrong, 1.0f}), kInfinity);
    EXPECT_EQ(Largest({1.0f, wrong}), kInfinity);
    EXPECT_EQ(Largest({2.0f, wrong, 1.0f}), kInfinity);
  }
}

TEST(ExpectFiniteLogits, TheFirstThatIsNotFiniteFailsTheTestAndTheOptionsObserverSeesAll) {
  for (const float wrong : {NAN, INFINITY}) {
    int seen = 0;
    EngineOptions options;
    options.logits_observer = [&](RequestId, int64_t, absl::Span<const float>) { ++seen; };
    ExpectFiniteLogits(&options);
    options.logits_observer(7, 0, {1.0f, 2.0f});
    EXPECT_NONFATAL_FAILURE(options.logits_observer(7, 1, {wrong, 2.0f}),
                            "a logit of request 7 at position 1 is not finite");
    options.logits_observer(7, 2, {1.0f, wrong});  // told once, not for every row
    EXPECT_EQ(seen, 3);
  }
}

}  // namespace
}  // namespace thermocline
