#include "cache/cost_model.h"

#include <gtest/gtest.h>

namespace thermocline {
namespace {

constexpr CostModel::Rates kRates = {.compute = 10e9, .disk = 1e9};
constexpr int64_t kExpert = 4000000;

LayerWork Host(int64_t experts, int64_t pairs, int64_t missing = 0) {
  LayerWork work;
  work.at(Place::kHost) = {experts * kExpert, experts, pairs};
  work.missing_bytes = missing * kExpert;
  return work;
}

TEST(CostModel, GuessesBeforeItHasSeenAnything) {
  const CostModel costs(kRates);
  struct Case {
    LayerWork work;
    double seconds;
  };
  for (const Case& c : std::vector<Case>{
           {{}, 0.0},
           {Host(8, 8), 8 * 0.0004},              // weights read once
           {Host(8, 16), 8 * 0.0004 * 1.25},      // two tokens each
           {Host(8, 8, 1), 0.004},                // the disk takes longer
           {Host(64, 64, 6), 0.0256},             // computing does
           {Host(1, 128), 0.0004 * (1 + 31.75)},  // from 65 tokens on the rate stays
           {Host(1, 100000), 0.0004 * (1 + 31.75)},
       }) {
    EXPECT_NEAR(costs.LayerSeconds(c.work), c.seconds, 1e-9);
  }
  EXPECT_EQ(costs.FetchSeconds(0, 5000), 0.0);
  EXPECT_NEAR(costs.FetchSeconds(1000000, 3000000), 0.004, 1e-12);
  EXPECT_FALSE(costs.trusted());
}

TEST(CostModel, LayersWithNothingMissingTeachHowFastExpertsAreComputed) {
  CostModel costs(kRates);
  costs.Observe(Host(8, 8), 0.008);  // 4 GB/s
  EXPECT_NEAR(costs.LayerSeconds(Host(8, 8)), 0.008, 1e-9);
  EXPECT_NEAR(costs.LayerSeconds(Host(2, 2)), 0.002, 1e-9);
  // Other numbers of tokens are taken to be like the nearest known.
  EXPECT_NEAR(costs.LayerSeconds(Host(8, 800)), 0.008, 1e-9);
  costs.Observe(Host(8, 800), 0.080);
  EXPECT_NEAR(costs.LayerSeconds(Host(8, 800)), 0.080, 1e-9);
  EXPECT_NEAR(costs.LayerSeconds(Host(8, 8)), 0.008, 1e-9);
  // The disk is not what they were about.
  EXPECT_NEAR(costs.FetchSeconds(kExpert, 0), 0.004, 1e-9);
  // A device has rates of its own.
  EXPECT_NEAR(costs.ComputeSeconds(Place::kDevice, {kExpert, 1, 1}), 0.0004, 1e-9);
}

TEST(CostModel, LayersThatWaitTeachHowFastTheDiskIs) {
  CostModel costs(kRates);
  for (int i = 0; i < 200; ++i) costs.Observe(Host(8, 8, 4), 0.032);  // 0.5 GB/s
  EXPECT_NEAR(costs.FetchSeconds(kExpert, 0), 0.008, 1e-5);
  for (int i = 0; i < 200; ++i) costs.Observe(Host(8, 8, 4), 0.008);  // 2 GB/s
  EXPECT_NEAR(costs.FetchSeconds(kExpert, 0), 0.002, 1e-5);
  // How fast experts are computed was not to be seen.
  EXPECT_NEAR(costs.LayerSeconds(Host(8, 8)), 8 * 0.0004, 1e-9);
}

TEST(CostModel, IsTrustedWhileItIsRight) {
  CostModel costs(kRates);
  for (int i = 0; i < 31; ++i) costs.Observe(Host(8, 8), 8 * 0.0004);
  EXPECT_FALSE(costs.trusted());  // too few
  costs.Observe(Host(8, 8), 8 * 0.0004);
  EXPECT_TRUE(costs.trusted());
  EXPECT_EQ(costs.error(), 0.0);
  // The machine becomes three times slower: it is wrong, learns, and is right again.
  int wrong = 0;
  while (costs.trusted() && wrong < 100) {
    costs.Observe(Host(8, 8), 24 * 0.0004);
    ++wrong;
  }
  EXPECT_LT(wrong, 8);
  for (int i = 0; i < 100; ++i) costs.Observe(Host(8, 8), 24 * 0.0004);
  EXPECT_TRUE(costs.trusted());
  EXPECT_NEAR(costs.LayerSeconds(Host(8, 8)), 24 * 0.0004, 1e-4);
}

TEST(CostModel, TimesThatAreNoneTeachNothing) {
  CostModel costs(kRates);
  for (int i = 0; i < 100; ++i) costs.Observe(Host(8, 8), 0.0);
  EXPECT_FALSE(costs.trusted());
  EXPECT_NEAR(costs.LayerSeconds(Host(8, 8)), 8 * 0.0004, 1e-9);
}

}  // namespace
}  // namespace thermocline
