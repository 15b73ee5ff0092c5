// The default model against the f32 reference of its maker: log-probabilities and greedy answers.
#include <gtest/gtest.h>

#include <cmath>

#include "engine/sampler.h"
#include "tests/support/golden.h"
#include "tests/support/test_name.h"

namespace thermocline {
namespace {

constexpr double kLogprobTolerance = 1e-3;  // f32 against torch's f32 over 30 layers

class DemoTest : public testing::TestWithParam<const char*> {};

TEST_P(DemoTest, ReferenceIsReproduced) {
  auto reference = ReadPlainTensors(GoldenPath("demo.reference.safetensors"));
  ASSERT_TRUE(reference.ok()) << reference.status();
  const std::string name = GetParam();
  const std::vector<int32_t> tokens = ToTokens((*reference)[name + ".tokens"]);
  const int64_t num_prompt = (*reference)[name + ".num_prompt"].i64[0];
  EngineOptions options;
  options.model_path = DemoPath();
  options.activations = Activations::kF32;
  options.kv_dtype = DType::kF32;
  options.kv_tokens = 1024;
  const auto engine = MakeEngine(std::move(options));
  ASSERT_NE(engine, nullptr);
  const ScoreOutput output = Score(engine.get(), tokens);
  const std::vector<float>& logprobs = (*reference)[name + ".logprobs"].f32;
  for (size_t t = 0; t + 1 < tokens.size(); ++t) {
    ASSERT_NEAR(LogprobOf(output.logits[t], tokens[t + 1]), logprobs[t], kLogprobTolerance) << t;
  }
  const std::vector<float>& last = (*reference)[name + ".last_logits"].f32;
  EXPECT_LE(
      MaxError(output.logits[static_cast<size_t>(num_prompt) - 1], last.data(), Largest(last)),
      kCpuTolerance);
  const std::vector<int32_t> prompt(tokens.begin(), tokens.begin() + num_prompt);
  const std::vector<int32_t> answer(tokens.begin() + num_prompt, tokens.end());
  EXPECT_EQ(Greedy(engine.get(), {prompt}, static_cast<int64_t>(answer.size()))[0], answer);
}

INSTANTIATE_TEST_SUITE_P(Chats, DemoTest,
                         testing::Values("capital", "moe", "poem", "sleep", "story"),
                         kNamedByItself);

}  // namespace
}  // namespace thermocline
