// Router logits to experts and weights.
#include "kernels/reference/route_token.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace thermocline {
namespace {

using Score = RouteArgs::Score;

struct Routed {
  std::vector<int32_t> ids;
  std::vector<float> weights;
};

RouteArgs Args(int top_k, Score score) {
  RouteArgs args;
  args.top_k = top_k;
  args.score = score;
  return args;
}

Routed Route(const std::vector<float>& logits, const RouteArgs& args) {
  Routed routed;
  routed.ids.resize(static_cast<size_t>(args.top_k));
  routed.weights.resize(static_cast<size_t>(args.top_k));
  RouteToken(logits, args, routed.ids.data(), routed.weights.data());
  return routed;
}

TEST(RouteToken, BreaksTiesTowardsLowerIdsAndNormalisesAsAsked) {
  const std::vector<float> logits = {1.0f, 3.0f, 3.0f, 0.0f};
  RouteArgs args = Args(2, Score::kSoftmax);
  Routed routed = Route(logits, args);
  EXPECT_EQ(routed.ids, (std::vector<int32_t>{1, 2}));
  EXPECT_NEAR(routed.weights[0], std::exp(3.0) / (std::exp(1.0) + 2 * std::exp(3.0) + 1.0), 1e-6);
  args.normalize = true;
  EXPECT_FLOAT_EQ(Route(logits, args).weights[0], 0.5f);
  EXPECT_FLOAT_EQ(Route(logits, Args(2, Score::kSoftmaxOfChosen)).weights[0], 0.5f);
}

TEST(RouteToken, TheBiasChoosesButDoesNotWeigh) {
  std::vector<float> bias = {0.0f, 0.0f, 5.0f};
  RouteArgs args = Args(1, Score::kSigmoid);
  args.bias = MakeView(bias.data(), DType::kF32, {3});
  args.scale = 2.0f;
  const Routed routed = Route({3.0f, 1.0f, 0.0f}, args);
  EXPECT_EQ(routed.ids[0], 2);
  EXPECT_FLOAT_EQ(routed.weights[0], 2.0f * 0.5f);
}

// What is excluded ranks below everything, negative choices too.
TEST(RouteToken, ExcludedGroupsLoseAgainstNegativeChoices) {
  std::vector<float> bias(4, -3.0f);
  RouteArgs args = Args(2, Score::kSigmoid);
  args.bias = MakeView(bias.data(), DType::kF32, {4});
  args.num_groups = 2;
  EXPECT_EQ(Route({0.0f, 0.0f, 1.0f, 2.0f}, args).ids, (std::vector<int32_t>{3, 2}));
  EXPECT_EQ(Route({2.0f, 1.0f, 0.0f, 0.0f}, args).ids, (std::vector<int32_t>{0, 1}));
  // Of equal groups the lower one.
  EXPECT_EQ(Route({1.0f, 0.0f, 0.0f, 1.0f}, args).ids, (std::vector<int32_t>{0, 1}));
}

TEST(RouteToken, AllExpertsMayBeChosen) {
  for (const Score score : {Score::kSoftmax, Score::kSoftmaxOfChosen, Score::kSigmoid}) {
    RouteArgs args = Args(3, score);
    args.normalize = true;
    const Routed routed = Route({1.0f, 3.0f, 2.0f}, args);
    EXPECT_EQ(routed.ids, (std::vector<int32_t>{1, 2, 0}));
    EXPECT_NEAR(routed.weights[0] + routed.weights[1] + routed.weights[2], 1.0f, 1e-6f);
  }
}

TEST(RouteToken, NormalisesByTheSumItsLeastAndItsEpsilon) {
  RouteArgs args = Args(2, Score::kSigmoid);
  args.normalize = true;
  args.normalize_eps = 0.5f;
  args.scale = 3.0f;
  // sigmoid(0) is 1/2: 3 * 0.5 / (1 + 0.5).
  EXPECT_FLOAT_EQ(Route({0.0f, 0.0f, -9.0f}, args).weights[0], 1.0f);
  args.normalize_min = 2.5f;  // larger than the sum: 3 * 0.5 / (2.5 + 0.5)
  EXPECT_FLOAT_EQ(Route({0.0f, 0.0f, -9.0f}, args).weights[1], 0.5f);
  args.normalize = false;
  EXPECT_FLOAT_EQ(Route({0.0f, 0.0f, -9.0f}, args).weights[0], 1.5f);
}

TEST(RouteToken, WhatIsNotFiniteMakesTheWeightsNanAndTheIdsStayExperts) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float inf = std::numeric_limits<float>::infinity();
  std::vector<float> bias = {0.0f, nan, 0.0f, 0.0f};
  for (const Score score :
       {Score::kSoftmax, Score::kSoftmaxOfChosen, Score::kSigmoid, Score::kSparseMixer}) {
    for (const float value : {nan, inf, -inf}) {
      const Routed routed = Route({0.0f, 1.0f, 2.0f, value}, Args(2, score));
      EXPECT_TRUE(std::isnan(routed.weights[0]) && std::isnan(routed.weights[1]));
      EXPECT_NE(routed.ids[0], routed.ids[1]);
      for (int32_t id : routed.ids) EXPECT_TRUE(id >= 0 && id < 4) << id;
    }
    if (score == Score::kSparseMixer) continue;  // has no bias
    RouteArgs args = Args(2, score);
    args.bias = MakeView(bias.data(), DType::kF32, {4});
    EXPECT_TRUE(std::isnan(Route({0.0f, 1.0f, 2.0f, 3.0f}, args).weights[0]));
  }
}

TEST(RouteToken, GroupsCountByTheirBestOrTheirBestTwo) {
  // groups:                            {0, 1, 2}           {3, 4, 5}
  const std::vector<float> logits = {3.0f, -9.0f, -9.0f, 2.0f, 2.0f, -9.0f};
  RouteArgs args = Args(1, Score::kSigmoid);
  args.num_groups = 2;
  EXPECT_EQ(Route(logits, args).ids[0], 0);
  args.group_by_best_two = true;
  EXPECT_EQ(Route(logits, args).ids[0], 3);
}

TEST(RouteToken, NormalisationHasAFloor) {
  RouteArgs args = Args(1, Score::kSigmoid);
  args.normalize = true;
  args.normalize_min = 0.25f;
  EXPECT_NEAR(Route({-20.0f}, args).weights[0], std::exp(-20.0) / 0.25, 1e-10);
  args.normalize_min = 0.0f;
  args.normalize_eps = 1.0f;
  EXPECT_NEAR(Route({0.0f}, args).weights[0], 0.5 / 1.5, 1e-6);
}

TEST(RouteToken, SparseMixerWeighsEachChoiceAgainstItsNearEquals) {
  RouteArgs args = Args(2, Score::kSparseMixer);
  args.jitter = 0.01f;
  // 1 and 0.995 are within 2 %; against 0.995 nothing else is.
  const Routed routed = Route({1.0f, 0.995f, 0.5f, -2.0f}, args);
  EXPECT_EQ(routed.ids, (std::vector<int32_t>{0, 1}));
  EXPECT_NEAR(routed.weights[0], 1.0 / (1.0 + std::exp(-0.005)), 1e-6);
  EXPECT_FLOAT_EQ(routed.weights[1], 1.0f);
}

TEST(RouteToken, NanStillGivesExpertsThatExist) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const Score score :
       {Score::kSoftmax, Score::kSoftmaxOfChosen, Score::kSigmoid, Score::kSparseMixer}) {
    for (int32_t id : Route({nan, 1.0f, nan, 2.0f}, Args(2, score)).ids) {
      EXPECT_GE(id, 0);
      EXPECT_LT(id, 4);
    }
  }
  RouteArgs grouped = Args(2, Score::kSigmoid);
  grouped.num_groups = 2;
  grouped.top_k_groups = 1;
  grouped.group_by_best_two = true;
  for (int32_t id : Route({nan, 1.0f, nan, 2.0f}, grouped).ids) {
    EXPECT_GE(id, 0);
    EXPECT_LT(id, 4);
  }
}

}  // namespace
}  // namespace thermocline
