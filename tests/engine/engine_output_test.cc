// What a request's output is and how it ends: lengths, stops, text, log-probabilities, choices.
#include <set>

#include "tests/engine/engine_fixture.h"

namespace thermocline {
namespace {

using alphabet::Digit;
using alphabet::Letter;
using alphabet::Tokens;

class EngineOutputTest : public EngineTest {};

TEST_F(EngineOutputTest, TheContextIsFilledToItsLastToken) {
  EngineOptions options;
  options.max_context = 8;
  Start(std::move(options));
  struct Case {
    std::string prompt;
    std::optional<int64_t> max_tokens;
    std::string output;
  };
  for (const Case& c : std::vector<Case>{{"01234", std::nullopt, "567"},  // 5 + 3 = 8
                                         {"01234", 2, "56"},
                                         {"01234", 3, "567"},
                                         {"01234", 4, "567"},
                                         {"0123456", 1, "7"},
                                         {"0123456", std::nullopt, "7"},
                                         {"01234567", 0, ""},
                                         {"0", 0, ""}}) {
    const Recording r = Run(Request(c.prompt, c.max_tokens));
    EXPECT_EQ(r.text(), c.output) << c.prompt << " " << c.max_tokens.value_or(-1);
    EXPECT_EQ(r.tokens, Tokens(c.output));
    EXPECT_EQ(r.reason(), FinishReason::kLength);
    EXPECT_TRUE(r.result->status.ok());
    EXPECT_EQ(r.result->prompt_tokens, static_cast<int64_t>(c.prompt.size()));
    EXPECT_EQ(r.result->completion_tokens, static_cast<int64_t>(c.output.size()));
  }
  EXPECT_EQ(StatusOfSubmit(Request("01234567", 1)).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(StatusOfSubmit(Request("01234567", std::nullopt)).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(StatusOfSubmit(Request("012345678", 0)).code(), absl::StatusCode::kInvalidArgument);
}

// After "x" come y, z and the end token.
TEST_F(EngineOutputTest, AnEndTokenStopsAndIsCounted) {
  for (std::optional<int64_t> max_tokens : {std::optional<int64_t>(), {3}, {4}}) {
    const Recording r = Run(Request("x", max_tokens));
    EXPECT_EQ(r.reason(), FinishReason::kStop);  // at the last token allowed too
    EXPECT_EQ(r.tokens, (std::vector<int32_t>{Letter('y'), Letter('z'), alphabet::kEnd}));
    EXPECT_EQ(r.text(), "yz");
    EXPECT_EQ(r.result->completion_tokens, 3);
    EXPECT_EQ(r.result->prompt_tokens, 1);
    EXPECT_EQ(r.result->stop_matched, "");
  }
  const Recording cut = Run(Request("x", 2));
  EXPECT_EQ(cut.reason(), FinishReason::kLength);
  EXPECT_EQ(cut.result->completion_tokens, 2);
}

TEST_F(EngineOutputTest, StopTokensStopAndAreCountedButNotShown) {
  GenerateRequest request = Request("a", 2);
  request.stop_token_ids = {Letter('t'), Letter('c')};
  const Recording r = Run(request);
  EXPECT_EQ(r.reason(), FinishReason::kStop);
  EXPECT_EQ(r.tokens, Tokens("bc"));
  EXPECT_EQ(r.text(), "b");
  EXPECT_EQ(r.result->completion_tokens, 2);
  request.max_tokens = 1;
  EXPECT_EQ(Run(request).reason(), FinishReason::kLength);
}

TEST_F(EngineOutputTest, StopStringsStopAndAreNotShown) {
  GenerateRequest request = Request("a", 4);
  request.stop = {"zz", "de"};
  const Recording r = Run(request);
  EXPECT_EQ(r.reason(), FinishReason::kStop);  // b, c, d, e: the fourth is the last allowed
  EXPECT_EQ(r.tokens, Tokens("bcde"));
  EXPECT_EQ(r.text(), "bc");
  EXPECT_EQ(r.result->stop_matched, "de");
  EXPECT_EQ(r.result->completion_tokens, 4);
}

TEST_F(EngineOutputTest, IgnoreEosGoesOnAfterTheEndTokenButNotAfterStopTokens) {
  GenerateRequest request = Request("y", 4);
  request.ignore_eos = true;
  Recording r = Run(request);
  EXPECT_EQ(r.reason(), FinishReason::kLength);
  EXPECT_EQ(r.tokens,
            (std::vector<int32_t>{Letter('z'), alphabet::kEnd, Letter('a'), Letter('b')}));
  EXPECT_EQ(r.text(), "zab");  // a control token is not text
  request.show_special = true;
  EXPECT_EQ(Run(request).text(), "z</s>ab");
  request.stop_token_ids = {Letter('a')};
  r = Run(request);
  EXPECT_EQ(r.reason(), FinishReason::kStop);
  EXPECT_EQ(r.text(), "z</s>");
  request.stop_token_ids = {alphabet::kEnd};
  r = Run(request);
  EXPECT_EQ(r.reason(), FinishReason::kStop);
  EXPECT_EQ(r.text(), "z");  // the token that ends an output is not shown
}

TEST_F(EngineOutputTest, WhatIsHeldBackIsDeliveredAtTheEndWithoutAToken) {
  GenerateRequest request = Request("a", 4);
  request.stop = {"cdX", "ez"};
  Recording r = Run(request);
  // "cd" and "e" may begin a stop string when they come.
  EXPECT_EQ(r.texts, (std::vector<std::string>{"b", "", "", "cd", "e"}));
  EXPECT_EQ(r.tokens, Tokens("bcde"));
  EXPECT_EQ(r.reason(), FinishReason::kLength);
  // Two of the three bytes of a euro sign are one character that is none.
  request = Request("", 2);
  request.prompt = {alphabet::kSpace};
  r = Run(request);
  EXPECT_EQ(r.texts, (std::vector<std::string>{"", "", "\xEF\xBF\xBD"}));
  request.max_tokens = 3;
  EXPECT_EQ(Run(request).texts, (std::vector<std::string>{"", "", "\xE2\x82\xAC"}));
}

TEST_F(EngineOutputTest, NothingIsDeliveredAfterAStopString) {
  GenerateRequest request = Request("a", 10);
  request.stop = {"cd"};
  const Recording r = Run(request);
  EXPECT_EQ(r.texts, (std::vector<std::string>{"b", "", ""}));
}

TEST_F(EngineOutputTest, ControlTokensAreTextOnRequest) {
  GenerateRequest request = Request("", 10);
  request.prompt = {alphabet::kColon};
  Recording r = Run(request);
  EXPECT_EQ(r.tokens,
            (std::vector<int32_t>{alphabet::kNote, alphabet::kExclamationMark, alphabet::kEnd}));
  EXPECT_EQ(r.text(), "!");
  request.show_special = true;
  EXPECT_EQ(Run(request).text(), "<|note|>!");
}

TEST_F(EngineOutputTest, ForcedTokensComeFirstAndAreContinued) {
  GenerateRequest request = Request("a", 4);
  request.forced = Tokens("3t");
  request.logprobs = 1;
  Recording r = Run(request);
  EXPECT_EQ(r.tokens, Tokens("3tuv"));
  // The model's own opinion of each: 3 after a and t after 3 have the logit 0.
  const float none = alphabet::LogProb(0.0), likely = alphabet::LogProb(4.0);
  for (size_t i = 0; i < 4; ++i) EXPECT_NEAR(r.infos[i].logprob, i < 2 ? none : likely, 1e-5) << i;
  ASSERT_EQ(r.infos[0].top.size(), 1u);
  EXPECT_EQ(r.infos[0].top[0].token, Letter('b'));
  request.forced = {Letter('c'), alphabet::kEnd, Letter('d')};
  r = Run(request);
  EXPECT_EQ(r.reason(), FinishReason::kStop);
  EXPECT_EQ(r.result->completion_tokens, 2);
}

TEST_F(EngineOutputTest, LogprobsAreThoseOfTheSoftmaxAndComeOnRequest) {
  GenerateRequest request = Request("a", 2);
  request.logprobs = 3;
  Recording r = Run(request);
  ASSERT_EQ(r.infos.size(), 2u);
  EXPECT_NEAR(r.infos[1].logprob, alphabet::LogProb(4.0), 1e-5);  // c after b
  ASSERT_EQ(r.infos[1].top.size(), 3u);
  EXPECT_EQ(r.infos[1].top[0].token, Letter('c'));
  EXPECT_NEAR(r.infos[1].top[0].logprob, alphabet::LogProb(4.0), 1e-5);
  EXPECT_EQ(r.infos[1].top[1].token, Letter('d'));
  EXPECT_NEAR(r.infos[1].top[1].logprob, alphabet::LogProb(2.0), 1e-5);
  EXPECT_NEAR(r.infos[1].top[2].logprob, alphabet::LogProb(0.0), 1e-5);
  request.logprobs = 0;
  r = Run(request);
  EXPECT_NEAR(r.infos[0].logprob, alphabet::LogProb(4.0), 1e-5);
  EXPECT_TRUE(r.infos[0].top.empty());
  request.logprobs = -1;
  EXPECT_EQ(Run(request).infos[0].logprob, 0.0f);
}

// Chunks of two tokens: the positions must not depend on how the prompt is cut.
TEST_F(EngineOutputTest, PromptLogitsComeOncePerPromptTokenInOrder) {
  EngineOptions options;
  options.scheduler.max_batch_tokens = 2;
  Start(std::move(options));
  GenerateRequest request = Request("abx9c", 2);
  request.prompt_logits = true;
  const Recording r = Run(request);
  ASSERT_EQ(r.prompt_logits.size(), 5u);
  const std::vector<int32_t> likeliest = Tokens("bcy0d");
  for (size_t i = 0; i < 5; ++i) {
    const auto& [position, logits] = r.prompt_logits[i];
    EXPECT_EQ(position, static_cast<int64_t>(i));
    ASSERT_EQ(logits.size(), static_cast<size_t>(alphabet::kVocabSize));
    EXPECT_NEAR(logits[static_cast<size_t>(likeliest[i])], 4.0f, 1e-5) << i;
    EXPECT_NEAR(logits[static_cast<size_t>(Letter('a'))], 0.0f, 1e-5) << i;
  }
  EXPECT_EQ(r.tokens, Tokens("de"));
  request.prompt_logits = false;
  EXPECT_TRUE(Run(request).prompt_logits.empty());
}

TEST_F(EngineOutputTest, ScoringDeliversLogitsAndNoToken) {
  GenerateRequest request = Request("ab", 0);
  request.prompt_logits = true;
  const Recording r = Run(request);
  EXPECT_EQ(r.prompt_logits.size(), 2u);
  EXPECT_TRUE(r.texts.empty());
  EXPECT_EQ(r.result->completion_tokens, 0);
  EXPECT_EQ(r.result->first_token_seconds, 0.0);
}

// Output tokens lose 2 + 2 each time they came, prompt tokens nothing: the digits go round once,
// until 1 has 4 - 4 = 0 and 2 has 2 - 4 = -2 and the first token of all, <s>, is as good as any.
// Were the prompt's 0 penalised, the last 0 would not be chosen.
TEST_F(EngineOutputTest, PenaltiesOfTheOutputLeaveThePromptAlone) {
  GenerateRequest request = Request("0", 11);
  request.sampling.presence_penalty = 2.0f;
  request.sampling.frequency_penalty = 2.0f;
  const Recording r = Run(request);
  std::vector<int32_t> expected = Tokens("1234567890");
  expected.push_back(alphabet::kBos);
  EXPECT_EQ(r.tokens, expected);
}

TEST_F(EngineOutputTest, ChoicesFollowSeedAndPositionWhoeverElseRuns) {
  GenerateRequest request = Request("0", 24);
  request.ignore_eos = true;
  request.sampling.temperature = 2.0f;
  request.sampling.seed = 7;
  const std::vector<int32_t> alone = Run(request).tokens;
  EXPECT_GT(std::set<int32_t>(alone.begin(), alone.end()).size(), 8u);  // not one choice repeated
  Recording &same = NewRecording(), &other = NewRecording(), &behind = NewRecording();
  Submit(request, &same);
  GenerateRequest different = request;
  different.sampling.seed = 8;
  Submit(different, &other);
  engine_->Step();
  Submit(request, &behind);
  RunToTheEnd();
  EXPECT_EQ(same.tokens, alone);
  EXPECT_EQ(behind.tokens, alone);
  EXPECT_NE(other.tokens, alone);
}

}  // namespace
}  // namespace thermocline
