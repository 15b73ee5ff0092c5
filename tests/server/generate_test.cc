// Generate and GenerateUnary over the wire: what a request says arrives, and what comes back says
// what was done.
#include <google/protobuf/util/message_differencer.h>

#include <set>

#include "tests/server/service_fixture.h"

namespace thermocline {
namespace {

using google::protobuf::util::MessageDifferencer;

class GenerateTest : public ServiceFixture {
 protected:
  void SetUp() override {
    Start({});
    Serve();
  }
};

// A prompt of one letter has two tokens: BOS is put in front.
TEST_F(GenerateTest, UsageAndReasonByValue) {
  struct Case {
    std::string prompt;
    std::optional<int64_t> max_tokens;
    std::string stop;
    std::string text;
    v1::FinishReason reason;
    int64_t prompt_tokens, completion_tokens;
  };
  const auto stopped = v1::FINISH_REASON_STOP, cut = v1::FINISH_REASON_LENGTH;
  for (const Case& c : std::vector<Case>{{"x", 2, "", "yz", cut, 2, 2},
                                         {"x", 3, "", "yz", stopped, 2, 3},
                                         {"x", std::nullopt, "", "yz", stopped, 2, 3},
                                         {"x", 2, "z", "y", stopped, 2, 2},
                                         {"u", 9, "xy", "vw", stopped, 2, 4},
                                         {"x", 0, "", "", cut, 2, 0},
                                         {"0123", 5, "", "45678", cut, 5, 5},
                                         {"", 3, "", "abc", cut, 1, 3}}) {
    v1::GenerateRequest request = Request(c.prompt, c.max_tokens);
    if (!c.stop.empty()) request.mutable_params()->add_stop(c.stop);
    const Stream<v1::GenerateResponse> stream = GenerateStream(request);
    EXPECT_TRUE(stream.status.ok());
    ASSERT_FALSE(stream.messages.empty());
    std::string text;
    for (const v1::GenerateResponse& message : stream.messages) text += message.text();
    EXPECT_EQ(text, c.text);
    const v1::GenerateResponse whole = Generate(request);
    EXPECT_EQ(whole.text(), c.text);
    EXPECT_EQ(whole.tokens_size(), c.completion_tokens);
    for (const v1::GenerateResponse* last : {&stream.messages.back(), &whole}) {
      EXPECT_EQ(last->finish_reason(), c.reason) << c.prompt;
      EXPECT_EQ(last->usage().prompt_tokens(), c.prompt_tokens) << c.prompt;
      EXPECT_EQ(last->usage().completion_tokens(), c.completion_tokens) << c.prompt;
      EXPECT_EQ(last->stop_matched(), c.reason == stopped ? c.stop : "");
    }
  }
  ExpectNothingIsLeft();
}

TEST_F(GenerateTest, TheBeginningTokenIsPutInFrontOnceAndOnlyOfText) {
  EXPECT_EQ(Generate(Request("ab", 1)).usage().prompt_tokens(), 3);
  EXPECT_EQ(Generate(Request("<s>ab", 1)).usage().prompt_tokens(), 3);
  EXPECT_EQ(Generate(Request("<s>", 1)).usage().prompt_tokens(), 1);
  v1::GenerateRequest request = Request("", 1);
  for (int32_t token : alphabet::Tokens("ab")) request.mutable_tokens()->add_ids(token);
  const v1::GenerateResponse response = Generate(request);
  EXPECT_EQ(response.usage().prompt_tokens(), 2);
  EXPECT_EQ(response.text(), "c");
}

// Every field has a value of its own, so that one taken for another shows.
TEST_F(GenerateTest, EveryParameterArrivesAndIsStated) {
  v1::GenerateRequest request;
  request.set_text("abc");
  v1::GenerationParams* params = request.mutable_params();
  v1::SamplingParams* sampling = params->mutable_sampling();
  sampling->set_temperature(0.5f);
  sampling->set_top_k(7);
  sampling->set_top_p(0.75f);
  sampling->set_min_p(0.125f);
  sampling->set_repetition_penalty(1.25f);
  sampling->set_presence_penalty(-0.25f);
  sampling->set_frequency_penalty(0.375f);
  sampling->set_seed(18446744073709551557ull);
  (*sampling->mutable_logit_bias())[3] = -1.5f;
  (*sampling->mutable_logit_bias())[9] = 2.5f;
  params->set_max_tokens(11);
  params->add_stop("st");
  params->add_stop("uv");
  params->add_stop_token_ids(60);
  params->add_stop_token_ids(61);
  params->set_ignore_eos(true);
  params->set_logprobs(4);
  std::string differences;
  MessageDifferencer differencer;
  differencer.ReportDifferencesToString(&differences);
  EXPECT_TRUE(differencer.Compare(*params, Generate(request).effective_params())) << differences;
  const auto stream = GenerateStream(request);
  ASSERT_FALSE(stream.messages.empty());
  EXPECT_TRUE(differencer.Compare(*params, stream.messages[0].effective_params())) << differences;
}

TEST_F(GenerateTest, WhatARequestLeavesOutIsStatedAsTheDefault) {
  v1::GenerateRequest request;
  request.set_text("abc");  // four tokens with BOS
  request.mutable_params()->add_stop_token_ids(alphabet::kEnd);
  v1::GenerationParams expected;
  v1::SamplingParams* sampling = expected.mutable_sampling();
  sampling->set_temperature(1.0f);
  sampling->set_top_k(0);
  sampling->set_top_p(1.0f);
  sampling->set_min_p(0.0f);
  sampling->set_repetition_penalty(1.0f);
  sampling->set_presence_penalty(0.0f);
  sampling->set_frequency_penalty(0.0f);
  expected.set_max_tokens(alphabet::kContext - 4);
  expected.add_stop_token_ids(alphabet::kEnd);
  expected.set_ignore_eos(false);
  v1::GenerationParams stated = Generate(request).effective_params();
  ASSERT_TRUE(stated.sampling().has_seed());
  const uint64_t seed = stated.sampling().seed();
  stated.mutable_sampling()->clear_seed();
  std::string differences;
  MessageDifferencer differencer;
  differencer.ReportDifferencesToString(&differences);
  EXPECT_TRUE(differencer.Compare(expected, stated)) << differences;
  EXPECT_NE(Generate(request).effective_params().sampling().seed(), seed);  // chosen anew
  request.mutable_params()->set_max_tokens(1000000);  // as far as the context goes
  EXPECT_EQ(Generate(request).effective_params().max_tokens(), alphabet::kContext - 4);
}

TEST_F(GenerateTest, TheSeedThatIsStatedReproducesTheOutput) {
  v1::GenerateRequest request = Request("0", 30);
  request.mutable_params()->set_ignore_eos(true);
  request.mutable_params()->mutable_sampling()->set_temperature(2.0f);
  const v1::GenerateResponse first = Generate(request);
  request.mutable_params()->mutable_sampling()->set_seed(
      first.effective_params().sampling().seed());
  EXPECT_EQ(Generate(request).text(), first.text());
  request.mutable_params()->mutable_sampling()->set_seed(1);
  EXPECT_NE(Generate(request).text(), first.text());
}

TEST_F(GenerateTest, ParametersHaveTheirEffect) {
  v1::GenerateRequest request = Request("a", 3);
  (*request.mutable_params()->mutable_sampling()->mutable_logit_bias())[alphabet::Letter('q')] = 9;
  EXPECT_EQ(Generate(request).text(), "qqq");
  request = Request("a", 12);
  request.mutable_params()->mutable_sampling()->set_temperature(50.0f);
  request.mutable_params()->mutable_sampling()->set_top_k(1);
  EXPECT_EQ(Generate(request).text(), "bcdefghijklm");
  request = Request("y", 4);
  request.mutable_params()->set_ignore_eos(true);
  EXPECT_EQ(Generate(request).text(), "zab");
  request.mutable_params()->add_stop_token_ids(alphabet::Letter('a'));
  EXPECT_EQ(Generate(request).text(), "z");
}

// Three tokens: three messages and one with the end. After a space come the three bytes of a euro
// sign, which is not cut into pieces.
TEST_F(GenerateTest, AStreamSaysEverythingOnce) {
  v1::GenerateRequest request = Request(" ", 3);
  request.set_request_id("mine");
  const Stream<v1::GenerateResponse> stream = GenerateStream(request);
  EXPECT_TRUE(stream.status.ok());
  ASSERT_EQ(stream.messages.size(), 4u);
  for (size_t i = 0; i < 4; ++i) {
    const v1::GenerateResponse& message = stream.messages[i];
    EXPECT_EQ(message.index(), 0);
    EXPECT_EQ(message.has_effective_params(), i == 0) << i;
    EXPECT_EQ(message.request_id(), i == 0 ? "mine" : "") << i;
    EXPECT_EQ(message.has_usage(), i == 3) << i;
    EXPECT_EQ(message.finish_reason(), i == 3 ? v1::FINISH_REASON_LENGTH : 0) << i;
    EXPECT_EQ(message.tokens_size(), i == 3 ? 0 : 1) << i;
    EXPECT_EQ(message.text(), i == 2 ? "\xE2\x82\xAC" : "") << i;
  }
  EXPECT_EQ(stream.messages[2].tokens(0).token(), 51);
}

TEST_F(GenerateTest, RequestIdsAreTheClientsOrMadeUp) {
  v1::GenerateRequest request = Request("a", 1);
  const std::string one = Generate(request).request_id(), two = Generate(request).request_id();
  EXPECT_EQ(one.substr(0, 4), "req-");
  EXPECT_NE(one, two);
  request.set_request_id(std::string(128, 'x'));
  EXPECT_EQ(Generate(request).request_id(), std::string(128, 'x'));
  request.set_request_id(std::string(129, 'x'));
  ExpectRefused(request, grpc::StatusCode::INVALID_ARGUMENT,
                "request_id has 129 bytes, but at most 128 are allowed");
}

TEST_F(GenerateTest, LogprobsAreThoseOfTheModelAndComeOnRequest) {
  v1::GenerateRequest request = Request("a", 2);
  EXPECT_FALSE(Generate(request).tokens(0).has_logprob());
  request.mutable_params()->set_logprobs(0);
  v1::GenerateResponse response = Generate(request);
  ASSERT_TRUE(response.tokens(1).has_logprob());
  EXPECT_NEAR(response.tokens(1).logprob(), alphabet::LogProb(4.0), 1e-5);
  EXPECT_EQ(response.tokens(1).top_size(), 0);
  request.mutable_params()->set_logprobs(20);
  // Under the model's own distribution, whatever is done to it.
  (*request.mutable_params()->mutable_sampling()->mutable_logit_bias())[alphabet::Letter('c')] = 9;
  response = Generate(request);
  EXPECT_EQ(response.text(), "cc");
  EXPECT_NEAR(response.tokens(0).logprob(), alphabet::LogProb(2.0), 1e-5);
  ASSERT_EQ(response.tokens(0).top_size(), 20);
  EXPECT_EQ(response.tokens(0).top(0).token(), alphabet::Letter('b'));
  EXPECT_NEAR(response.tokens(0).top(0).logprob(), alphabet::LogProb(4.0), 1e-5);
  EXPECT_EQ(response.tokens(0).top(1).token(), alphabet::Letter('c'));
  EXPECT_NEAR(response.tokens(0).top(19).logprob(), alphabet::LogProb(0.0), 1e-5);
}

TEST_F(GenerateTest, WhatIsRefusedNamesFieldAndLimit) {
  const auto invalid = grpc::StatusCode::INVALID_ARGUMENT;
  v1::GenerateRequest request;
  ExpectRefused(request, invalid, "prompt is missing");
  request.mutable_tokens();
  ExpectRefused(request, invalid, "the prompt is empty");
  request.mutable_tokens()->add_ids(alphabet::kVocabSize);
  ExpectRefused(request, invalid, "prompt token 64, but the vocabulary has 64");
  request = Request("a", -1);
  ExpectRefused(request, invalid, "max_tokens = -1");
  request = Request("a", 1);
  request.mutable_params()->set_logprobs(-1);
  ExpectRefused(request, invalid, "logprobs = -1, but 0 to 20 is allowed");
  request.mutable_params()->set_logprobs(21);
  ExpectRefused(request, invalid, "logprobs = 21, but 0 to 20 is allowed");
  request = Request("a", 1);
  (*request.mutable_params()->mutable_sampling()->mutable_logit_bias())[64] = 1.0f;
  ExpectRefused(request, invalid, "logit_bias names token 64");
  const auto stream = GenerateStream(Request("a", -1));
  EXPECT_EQ(stream.status.error_code(), invalid);
  EXPECT_TRUE(stream.messages.empty());
  ExpectNothingIsLeft();
}

}  // namespace
}  // namespace thermocline
