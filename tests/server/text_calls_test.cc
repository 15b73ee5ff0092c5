// Score, Tokenize and Detokenize over the wire, and what a model without tokenizer does.
#include "tests/server/service_fixture.h"

namespace thermocline {
namespace {

using alphabet::Letter;
using Ids = std::vector<int32_t>;

class TextCallsTest : public ServiceFixture {
 protected:
  void SetUp() override {
    Start({});
    Serve();
  }
  grpc::Status Score(const v1::ScoreRequest& request) {
    grpc::ClientContext context;
    scored_.Clear();
    return stub_->Score(&context, request, &scored_);
  }
  grpc::Status Tokenize(const v1::TokenizeRequest& request) {
    grpc::ClientContext context;
    return stub_->Tokenize(&context, request, &tokenized_);
  }
  Ids IdsOf(const std::string& text, std::optional<bool> parse_special = {},
            std::optional<bool> add_special = {}) {
    v1::TokenizeRequest request;
    request.set_text(text);
    if (parse_special.has_value()) request.set_parse_special(*parse_special);
    if (add_special.has_value()) request.set_add_special(*add_special);
    EXPECT_TRUE(Tokenize(request).ok());
    return Ids(tokenized_.ids().begin(), tokenized_.ids().end());
  }
  grpc::Status Detokenize(const Ids& ids, std::optional<bool> with_special = {}) {
    v1::DetokenizeRequest request;
    for (int32_t id : ids) request.add_ids(id);
    if (with_special.has_value()) request.set_with_special(*with_special);
    grpc::ClientContext context;
    return stub_->Detokenize(&context, request, &detokenized_);
  }

  v1::ScoreResponse scored_;
  v1::TokenizeResponse tokenized_;
  v1::DetokenizeResponse detokenized_;
};

TEST_F(TextCallsTest, ScoresAreTheLogSoftmaxOfWhatFollows) {
  v1::ScoreRequest request;
  for (int32_t id : alphabet::Tokens("abd0")) request.mutable_tokens()->add_ids(id);
  ASSERT_TRUE(Score(request).ok());
  EXPECT_EQ(Ids(scored_.tokens().begin(), scored_.tokens().end()), alphabet::Tokens("abd0"));
  ASSERT_EQ(scored_.logprobs_size(), 3);
  EXPECT_NEAR(scored_.logprobs(0), alphabet::LogProb(4.0), 1e-5);  // b after a
  EXPECT_NEAR(scored_.logprobs(1), alphabet::LogProb(2.0), 1e-5);  // d after b
  EXPECT_NEAR(scored_.logprobs(2), alphabet::LogProb(0.0), 1e-5);  // 0 after d
  request.set_text("ab");  // with BOS in front, whose successor is a
  ASSERT_TRUE(Score(request).ok());
  EXPECT_EQ(Ids(scored_.tokens().begin(), scored_.tokens().end()),
            (Ids{alphabet::kBos, Letter('a'), Letter('b')}));
  ASSERT_EQ(scored_.logprobs_size(), 2);
  EXPECT_NEAR(scored_.logprobs(0), alphabet::LogProb(4.0), 1e-5);
  request.mutable_tokens()->add_ids(5);
  ASSERT_TRUE(Score(request).ok());
  EXPECT_EQ(scored_.tokens_size(), 1);
  EXPECT_EQ(scored_.logprobs_size(), 0);
  ExpectNothingIsLeft();
}

TEST_F(TextCallsTest, ScoresAreWhatGenerateSays) {
  v1::GenerateRequest generate = Request("m", 8);
  generate.mutable_params()->set_logprobs(0);
  generate.mutable_params()->set_ignore_eos(true);
  generate.mutable_params()->mutable_sampling()->set_temperature(3.0f);
  generate.mutable_params()->mutable_sampling()->set_seed(4);
  const v1::GenerateResponse generated = Generate(generate);
  ASSERT_EQ(generated.tokens_size(), 8);
  v1::ScoreRequest request;
  request.mutable_tokens()->add_ids(alphabet::kBos);
  request.mutable_tokens()->add_ids(Letter('m'));
  for (const v1::TokenInfo& token : generated.tokens())
    request.mutable_tokens()->add_ids(token.token());
  ASSERT_TRUE(Score(request).ok());
  for (int i = 0; i < 8; ++i)
    EXPECT_NEAR(scored_.logprobs(i + 1), generated.tokens(i).logprob(), 1e-5) << i;
}

TEST_F(TextCallsTest, WhatCannotBeScoredIsRefused) {
  v1::ScoreRequest request;
  const auto expect = [&](const char* part) {
    const grpc::Status status = Score(request);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << part;
    EXPECT_NE(status.error_message().find(part), std::string::npos) << status.error_message();
  };
  expect("prompt is missing");
  request.mutable_tokens();
  expect("the prompt is empty");
  request.mutable_tokens()->add_ids(-1);
  expect("prompt token -1");
  EXPECT_EQ(Metric("thermocline_requests_rejected_total{reason=\"invalid\"}"), 3.0);
  EngineOptions options;
  options.max_context = 3;
  Start(std::move(options));
  Serve();
  request.set_text("ab");  // fills the context: there is no answer
  EXPECT_TRUE(Score(request).ok());
  request.set_text("abc");
  expect("the prompt has 4 tokens, but the context holds 3");
}

TEST_F(TextCallsTest, ControlTokensAreRecognisedAndBosAddedAsAsked) {
  const Ids spelt = {55, Letter('s'), 57, Letter('a')};  // "<", "s", ">", "a"
  EXPECT_EQ(IdsOf("<s>a"), (Ids{alphabet::kBos, Letter('a')}));
  EXPECT_EQ(IdsOf("<s>a", true), (Ids{alphabet::kBos, Letter('a')}));
  EXPECT_EQ(IdsOf("<s>a", false), spelt);
  EXPECT_EQ(IdsOf("a", true, false), Ids{Letter('a')});
  EXPECT_EQ(IdsOf("a", true, true), (Ids{alphabet::kBos, Letter('a')}));
  EXPECT_EQ(IdsOf("<s>a", true, true), (Ids{alphabet::kBos, Letter('a')}));  // not twice
  Ids with_bos = spelt;
  with_bos.insert(with_bos.begin(), alphabet::kBos);
  EXPECT_EQ(IdsOf("<s>a", false, true), with_bos);
  EXPECT_EQ(IdsOf(""), Ids{});
  EXPECT_EQ(IdsOf("", true, true), Ids{alphabet::kBos});
}

TEST_F(TextCallsTest, DetokenizeShowsControlTokensUnlessTold) {
  const Ids ids = {alphabet::kBos, Letter('a'), alphabet::kNote, 63};
  ASSERT_TRUE(Detokenize(ids).ok());
  EXPECT_EQ(detokenized_.text(), "<s>a<|note|>!");
  ASSERT_TRUE(Detokenize(ids, true).ok());
  EXPECT_EQ(detokenized_.text(), "<s>a<|note|>!");
  ASSERT_TRUE(Detokenize(ids, false).ok());
  EXPECT_EQ(detokenized_.text(), "a!");
  ASSERT_TRUE(Detokenize({49, 50}).ok());  // two of the three bytes of a euro sign
  EXPECT_EQ(detokenized_.text(), "\xEF\xBF\xBD");
  ASSERT_TRUE(Detokenize({}).ok());
  EXPECT_EQ(detokenized_.text(), "");
  for (int32_t id : {-1, 64}) {
    const grpc::Status status = Detokenize({5, id});
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
    EXPECT_EQ(status.error_message(),
              "token " + std::to_string(id) + ", but the vocabulary has 64 tokens");
  }
}

TEST_F(TextCallsTest, AModelWithoutTokenizerTakesTokenIdsAlone) {
  EngineOptions options;
  options.model_path = GoldenPath("llama3-rope");
  options.kv_tokens = 64;
  Start(std::move(options));
  Serve();
  const auto precondition = grpc::StatusCode::FAILED_PRECONDITION;
  ExpectRefused(Request("a", 1), precondition, "no tokenizer: send token ids");
  v1::TokenizeRequest text;
  text.set_text("a");
  EXPECT_EQ(Tokenize(text).error_code(), precondition);
  EXPECT_EQ(Detokenize({1}).error_code(), precondition);
  v1::ChatRequest chat;
  chat.add_messages()->set_role("user");
  v1::ChatResponse answer;
  grpc::ClientContext context, other;
  const grpc::Status refused = stub_->ChatUnary(&context, chat, &answer);
  EXPECT_EQ(refused.error_code(), precondition);
  EXPECT_NE(refused.error_message().find("no usable tokenizer"), std::string::npos);
  v1::ApplyChatTemplateRequest apply;
  v1::ApplyChatTemplateResponse rendered;
  EXPECT_EQ(stub_->ApplyChatTemplate(&other, apply, &rendered).error_code(), precondition);
  v1::GenerateRequest request = Request("", 3);
  request.mutable_tokens()->add_ids(1);
  const v1::GenerateResponse response = Generate(request);
  EXPECT_EQ(response.usage().completion_tokens(), response.tokens_size());
  EXPECT_EQ(response.text(), "");
}

TEST_F(TextCallsTest, EverythingIsUnavailableWhileTheModelLoads) {
  Start({});
  v1::ScoreRequest score;
  score.set_text("a");
  v1::TokenizeRequest tokenize;
  EXPECT_EQ(Score(score).error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(Tokenize(tokenize).error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(Detokenize({1}).error_code(), grpc::StatusCode::UNAVAILABLE);
  ExpectRefused(Request("a", 1), grpc::StatusCode::UNAVAILABLE, "loading");
  EXPECT_EQ(GenerateStream(Request("a", 1)).status.error_code(), grpc::StatusCode::UNAVAILABLE);
}

}  // namespace
}  // namespace thermocline
