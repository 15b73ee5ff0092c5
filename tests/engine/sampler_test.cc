// The sampler against distributions worked out by hand: every parameter, alone and together, with
// negative logits and over many seeds and positions.
#include "engine/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

namespace thermocline {
namespace {

constexpr int kDraws = 20000;
constexpr double kTolerance = 0.015;  // four standard deviations of a share of kDraws

// Logits of probabilities 0.1, 0.2, 0.3 and 0.4, all negative.
std::vector<float> Tenths() {
  std::vector<float> logits;
  for (float p : {0.1f, 0.2f, 0.3f, 0.4f}) logits.push_back(std::log(p) - 5.0f);
  return logits;
}

// Shares of tokens drawn, half of the draws over seeds at one position, half over positions with
// one seed.
std::vector<double> Shares(const std::vector<float>& logits, SamplingParams params,
                           const std::vector<int32_t>& tokens = {0, 0, 0}, int64_t num_prompt = 3) {
  std::vector<double> shares(logits.size(), 0.0);
  for (int i = 0; i < kDraws / 2; ++i) {
    params.seed = static_cast<uint64_t>(i);
    shares[static_cast<size_t>(SampleToken(logits, params, tokens, num_prompt))] += 1.0 / kDraws;
  }
  // Only the length of what came before moves the random number on; a prompt token that occurs
  // already makes it longer without changing what penalties see.
  std::vector<int32_t> longer = tokens;
  params.seed = 42;
  for (int i = 0; i < kDraws / 2; ++i) {
    longer.insert(longer.begin(), tokens[0]);
    shares[static_cast<size_t>(SampleToken(logits, params, longer, num_prompt + i + 1))] +=
        1.0 / kDraws;
  }
  return shares;
}

void ExpectShares(const std::vector<double>& actual, const std::vector<double>& expected) {
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t i = 0; i < actual.size(); ++i) {
    EXPECT_NEAR(actual[i], expected[i], kTolerance) << "token " << i;
    if (expected[i] > 0.0) continue;
    EXPECT_EQ(actual[i], 0.0) << "token " << i << " was cut off";
  }
}

std::vector<double> Softmax(const std::vector<double>& logits) {
  std::vector<double> p;
  double sum = 0.0;
  for (double logit : logits) sum += (p.push_back(std::exp(logit)), p.back());
  for (double& x : p) x /= sum;
  return p;
}

SamplingParams With(float temperature, int top_k = 0, float top_p = 1.0f, float min_p = 0.0f) {
  SamplingParams params;
  params.temperature = temperature;
  params.top_k = top_k;
  params.top_p = top_p;
  params.min_p = min_p;
  return params;
}

TEST(SamplerDistribution, TemperatureIsThePowerOfProbabilities) {
  ExpectShares(Shares(Tenths(), With(1.0f)), {0.1, 0.2, 0.3, 0.4});
  // Squares: 1, 4, 9, 16 of 30.
  ExpectShares(Shares(Tenths(), With(0.5f)), {1 / 30.0, 4 / 30.0, 9 / 30.0, 16 / 30.0});
  // Roots: 0.316, 0.447, 0.548, 0.632 of 1.943.
  ExpectShares(Shares(Tenths(), With(2.0f)), {0.1627, 0.2301, 0.2818, 0.3254});
}

TEST(SamplerDistribution, TopKKeepsTheLikeliestAndTheirProportions) {
  ExpectShares(Shares(Tenths(), With(1.0f, 2)), {0, 0, 3 / 7.0, 4 / 7.0});
  ExpectShares(Shares(Tenths(), With(0.5f, 2)), {0, 0, 9 / 25.0, 16 / 25.0});
  ExpectShares(Shares(Tenths(), With(1.0f, 1)), {0, 0, 0, 1});
  ExpectShares(Shares(Tenths(), With(1.0f, 3)), {0, 2 / 9.0, 3 / 9.0, 4 / 9.0});
  ExpectShares(Shares(Tenths(), With(1.0f, 4)), {0.1, 0.2, 0.3, 0.4});
  ExpectShares(Shares(Tenths(), With(1.0f, 1000)), {0.1, 0.2, 0.3, 0.4});
  // Of equals the lower ids.
  ExpectShares(Shares({1, 2, 2, 2}, With(1.0f, 2)), {0, 0.5, 0.5, 0});
}

TEST(SamplerDistribution, TopPKeepsTheFewestThatReachItAtTheTemperature) {
  ExpectShares(Shares(Tenths(), With(1.0f, 0, 0.39f)), {0, 0, 0, 1});
  ExpectShares(Shares(Tenths(), With(1.0f, 0, 0.41f)), {0, 0, 3 / 7.0, 4 / 7.0});
  ExpectShares(Shares(Tenths(), With(1.0f, 0, 0.69f)), {0, 0, 3 / 7.0, 4 / 7.0});
  ExpectShares(Shares(Tenths(), With(1.0f, 0, 0.71f)), {0, 2 / 9.0, 3 / 9.0, 4 / 9.0});
  // At half the temperature the best alone has 16 of 30.
  ExpectShares(Shares(Tenths(), With(0.5f, 0, 0.52f)), {0, 0, 0, 1});
  ExpectShares(Shares(Tenths(), With(0.5f, 0, 0.55f)), {0, 0, 9 / 25.0, 16 / 25.0});
}

TEST(SamplerDistribution, MinPIsRelativeToTheBestAtTheTemperature) {
  ExpectShares(Shares(Tenths(), With(1.0f, 0, 1.0f, 0.6f)), {0, 0, 3 / 7.0, 4 / 7.0});
  ExpectShares(Shares(Tenths(), With(1.0f, 0, 1.0f, 0.4f)), {0, 2 / 9.0, 3 / 9.0, 4 / 9.0});
  ExpectShares(Shares(Tenths(), With(0.5f, 0, 1.0f, 0.6f)), {0, 0, 0, 1});  // 9 / 16 is below
  ExpectShares(Shares(Tenths(), With(2.0f, 0, 1.0f, 0.6f)), {0, 0.2748, 0.3366, 0.3887});
}

TEST(SamplerDistribution, FiltersFollowEachOther) {
  // Of the best three the best two have 7 of 9, which reaches 0.75; of all they have 0.7.
  ExpectShares(Shares(Tenths(), With(1.0f, 3, 0.75f)), {0, 0, 3 / 7.0, 4 / 7.0});
  ExpectShares(Shares(Tenths(), With(1.0f, 0, 0.75f)), {0, 2 / 9.0, 3 / 9.0, 4 / 9.0});
  // min_p leaves three of four, of which top_k takes two.
  ExpectShares(Shares(Tenths(), With(1.0f, 2, 1.0f, 0.4f)), {0, 0, 3 / 7.0, 4 / 7.0});
  // min_p leaves two, which top_p then counts alone: 4 of 7 reach 0.55.
  ExpectShares(Shares(Tenths(), With(1.0f, 0, 0.55f, 0.6f)), {0, 0, 0, 1});
}

TEST(SamplerDistribution, TopPLooksBeyondItsFirstPiece) {
  // 300 equal tokens: 0.5 takes 150 of them, the lower ids.
  const std::vector<float> logits(300, -2.0f);
  SamplingParams params = With(1.0f, 0, 0.5f);
  std::set<int32_t> seen;
  for (uint64_t seed = 0; seed < 5000; ++seed) {
    params.seed = seed;
    seen.insert(SampleToken(logits, params, {}, 0));
  }
  EXPECT_GE(seen.size(), 149u);
  EXPECT_LE(*seen.rbegin(), 150);
}

TEST(SamplerDistribution, RepetitionPenaltyDividesPositiveAndMultipliesNegativeLogits) {
  SamplingParams params = With(1.0f);
  params.repetition_penalty = 2.0f;
  // Tokens 0 and 2 have come, one in the prompt, one in the output, both more than once.
  ExpectShares(Shares({-1, -2, 1, 0}, params, {0, 0, 2, 2}, 2), Softmax({-2, -2, 0.5, 0}));
}

TEST(SamplerDistribution, PresencePenaltyCountsOnceForWhatTheOutputHolds) {
  SamplingParams params = With(1.0f);
  params.presence_penalty = 1.5f;
  // Token 3 only came in the prompt.
  ExpectShares(Shares({-1, -2, 1, 0}, params, {3, 0, 0, 2}, 1), Softmax({-2.5, -2, -0.5, 0}));
}

TEST(SamplerDistribution, FrequencyPenaltyCountsEveryTimeInTheOutput) {
  SamplingParams params = With(1.0f);
  params.frequency_penalty = 0.5f;
  ExpectShares(Shares({-1, -2, 1, 0}, params, {3, 2, 2, 2, 0}, 1), Softmax({-1.5, -2, -0.5, 0}));
  params.frequency_penalty = -0.5f;
  ExpectShares(Shares({-1, -2, 1, 0}, params, {3, 2, 2, 0}, 1), Softmax({-0.5, -2, 2, 0}));
}

TEST(SamplerDistribution, BiasComesBeforePenalties) {
  SamplingParams params = With(1.0f);
  params.repetition_penalty = 2.0f;
  params.presence_penalty = 0.25f;
  params.frequency_penalty = 0.125f;
  params.logit_bias = {{0, 4.0f}, {3, -1.0f}};
  // 0: (-1 + 4) / 2 - 0.25 - 2 * 0.125; 1 has come in the prompt: -2 * 2; 3: 0 - 1.
  ExpectShares(Shares({-1, -2, 1, 0}, params, {1, 0, 0}, 1), Softmax({1, -4, 1, -1}));
}

TEST(SamplerDistribution, PenaltiesHoldForGreedyToo) {
  SamplingParams params = With(0.0f);
  params.frequency_penalty = 0.4f;
  EXPECT_EQ(SampleToken(std::vector<float>{-1, -1.5f}, params, std::vector<int32_t>{0}, 0), 0);
  EXPECT_EQ(SampleToken(std::vector<float>{-1, -1.5f}, params, std::vector<int32_t>{0, 0}, 0), 1);
  params = With(0.0f);
  params.repetition_penalty = 2.0f;
  EXPECT_EQ(SampleToken(std::vector<float>{-1, -1.5f}, params, std::vector<int32_t>{0}, 1), 1);
}

TEST(SamplerDistribution, AnyPieceOfALargeVocabularyIsReached) {
  // Three likely tokens in three pieces of the sum, one in the last, incomplete one.
  std::vector<float> logits(1030, -60.0f);
  logits[5] = logits[600] = 3.0f;
  logits[1029] = 3.0f + std::log(2.0f);
  for (const int top_k : {0, 900}) {
    const std::vector<double> shares = Shares(logits, With(1.0f, top_k));
    EXPECT_NEAR(shares[5], 0.25, kTolerance);
    EXPECT_NEAR(shares[600], 0.25, kTolerance);
    EXPECT_NEAR(shares[1029], 0.5, kTolerance);
  }
}

// A request's tokens depend on its seed and their position. Neighbouring seeds are not each other's
// streams shifted or mirrored.
TEST(SamplerDistribution, StreamsOfNeighbouringSeedsAreIndependent) {
  const std::vector<float> logits(4096, 0.0f);
  constexpr int kSeeds = 40;
  const auto draw = [&](int seed, int position) {
    SamplingParams params = With(1.0f);
    params.seed = static_cast<uint64_t>(seed);
    const std::vector<int32_t> tokens(static_cast<size_t>(position), 1);
    return SampleToken(logits, params, tokens, position);
  };
  int mirrored = 0, next_position = 0, next_seed = 0, pairs = 0;
  for (int a = 0; a < kSeeds; ++a) {
    for (int b = 0; b < a; ++b) {
      ++pairs;
      mirrored += draw(a, b) == draw(b, a);
      next_position += draw(a, b) == draw(a, b + 1);
      next_seed += draw(a, b) == draw(a + 1, b);
    }
  }
  // Of 780 pairs 0.2 are equal by chance.
  EXPECT_LE(mirrored, 4);
  EXPECT_LE(next_position, 4);
  EXPECT_LE(next_seed, 4);
}

TEST(Logprobs, AreTheLogarithmOfASoftmax) {
  // exp: 1, 2, 4, 0.25, of 7.25.
  for (const float offset : {0.0f, -700.0f, 10000.0f}) {
    const std::vector<float> logits = {offset, offset + std::log(2.0f), offset + std::log(4.0f),
                                       offset - std::log(4.0f)};
    const double expected[] = {1 / 7.25, 2 / 7.25, 4 / 7.25, 0.25 / 7.25};
    const OutputToken token = WithLogprobs(logits, 3, 3);
    EXPECT_EQ(token.token, 3);
    EXPECT_NEAR(token.logprob, std::log(expected[3]), 2e-3);
    for (int32_t t = 0; t < 4; ++t) {
      EXPECT_NEAR(LogprobOf(logits, t), std::log(expected[t]), 2e-3) << t;
    }
    ASSERT_EQ(token.top.size(), 3u);
    for (size_t i = 0; i < 3; ++i) {
      const int32_t likeliest[] = {2, 1, 0};
      EXPECT_EQ(token.top[i].token, likeliest[i]);
      EXPECT_EQ(token.top[i].logprob, LogprobOf(logits, likeliest[i]));
    }
  }
}

TEST(Logprobs, TopIsTheBestOfAllInOrder) {
  std::vector<float> logits;
  for (int i = 0; i < 1000; ++i) logits.push_back(static_cast<float>(i * 379 % 1000));
  const OutputToken token = WithLogprobs(logits, 0, 20);
  ASSERT_EQ(token.top.size(), 20u);
  for (size_t i = 0; i < 20; ++i) {
    EXPECT_EQ(logits[static_cast<size_t>(token.top[i].token)], 999.0f - static_cast<float>(i));
  }
}

TEST(Logprobs, TopOfEqualsHasTheLowerIdsFirstAndAtMostTheVocabulary) {
  const std::vector<float> logits = {1, 3, 3, 2};
  const auto ids = [&](int num_top) {
    std::vector<int32_t> result;
    for (const TokenLogprob& top : WithLogprobs(logits, 0, num_top).top) {
      result.push_back(top.token);
    }
    return result;
  };
  EXPECT_EQ(ids(0), std::vector<int32_t>{});
  EXPECT_EQ(ids(1), std::vector<int32_t>{1});
  EXPECT_EQ(ids(2), (std::vector<int32_t>{1, 2}));
  EXPECT_EQ(ids(9), (std::vector<int32_t>{1, 2, 3, 0}));
}

}  // namespace
}  // namespace thermocline
