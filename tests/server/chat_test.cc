// Chat and ApplyChatTemplate over the wire. The template writes BOS, the number of tools, `extra`,
// and "role:content" for each message; what the last token is decides what is answered.
#include "tests/server/service_fixture.h"
#include "tests/support/temporary_file.h"

namespace thermocline {
namespace {

class ChatTest : public ServiceFixture {
 protected:
  void SetUp() override {
    Start({});
    Serve();
  }
  static v1::ChatRequest Chat(const std::string& content, int64_t max_tokens) {
    v1::ChatRequest request;
    request.add_messages()->set_role("user");
    request.mutable_messages(0)->set_content(content);
    request.mutable_params()->set_max_tokens(max_tokens);
    request.mutable_params()->mutable_sampling()->set_temperature(0.0f);
    return request;
  }
  static v1::ChatRequest WithTool(v1::ChatRequest request) {
    request.add_tools()->set_name("get");
    return request;
  }
  grpc::Status Answer(const v1::ChatRequest& request, v1::ChatResponse* response) {
    grpc::ClientContext context;
    return stub_->ChatUnary(&context, request, response);
  }
  v1::ChatResponse Answer(const v1::ChatRequest& request) {
    v1::ChatResponse response;
    const grpc::Status status = Answer(request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response;
  }
  Stream<v1::ChatResponse> AnswerStream(const v1::ChatRequest& request) {
    grpc::ClientContext context;
    return ReadAll(stub_->Chat(&context, request).get());
  }
  void ExpectRefusedChat(const v1::ChatRequest& request, grpc::StatusCode code,
                         const std::string& part) {
    v1::ChatResponse response;
    const grpc::Status status = Answer(request, &response);
    EXPECT_EQ(status.error_code(), code) << part;
    EXPECT_NE(status.error_message().find(part), std::string::npos) << status.error_message();
  }
};

TEST_F(ChatTest, AnAnswerHasRoleUsageAndReason) {
  const v1::ChatResponse response = Answer(Chat("w", 9));
  EXPECT_EQ(response.role(), "assistant");
  EXPECT_EQ(response.content(), "xyz");
  EXPECT_EQ(response.reasoning_content(), "");
  EXPECT_EQ(response.finish_reason(), v1::FINISH_REASON_STOP);
  EXPECT_EQ(response.usage().prompt_tokens(), 1 + 6);  // BOS once, "user:w"
  EXPECT_EQ(response.usage().completion_tokens(), 4);
  EXPECT_EQ(response.tokens_size(), 4);
  EXPECT_EQ(response.effective_params().max_tokens(), 9);
  v1::ChatRequest request = Chat("w", 2);
  request.set_request_id("mine");
  EXPECT_EQ(Answer(request).request_id(), "mine");
  EXPECT_EQ(Answer(request).finish_reason(), v1::FINISH_REASON_LENGTH);
  request.mutable_params()->add_stop("y");
  EXPECT_EQ(Answer(request).stop_matched(), "y");
  EXPECT_EQ(Answer(request).content(), "x");
  ExpectNothingIsLeft();
}

TEST_F(ChatTest, AStreamSaysEverythingOnce) {
  v1::ChatRequest request = Chat("a", 2);
  request.mutable_params()->set_logprobs(1);
  const Stream<v1::ChatResponse> stream = AnswerStream(request);
  EXPECT_TRUE(stream.status.ok());
  ASSERT_EQ(stream.messages.size(), 3u);
  for (size_t i = 0; i < 3; ++i) {
    const v1::ChatResponse& message = stream.messages[i];
    EXPECT_EQ(message.role(), i == 0 ? "assistant" : "") << i;
    EXPECT_EQ(message.has_effective_params(), i == 0) << i;
    EXPECT_EQ(message.request_id().empty(), i != 0) << i;
    EXPECT_EQ(message.has_usage(), i == 2) << i;
    EXPECT_EQ(message.tokens_size(), i == 2 ? 0 : 1) << i;
  }
  EXPECT_EQ(stream.messages[0].content(), "b");
  EXPECT_EQ(stream.messages[1].content(), "c");
  EXPECT_NEAR(stream.messages[1].tokens(0).logprob(), alphabet::LogProb(4.0), 1e-5);
  EXPECT_EQ(stream.messages[2].finish_reason(), v1::FINISH_REASON_LENGTH);
}

TEST_F(ChatTest, AllMessagesToolsAndArgumentsReachTheTemplate) {
  v1::ChatRequest request = Chat("a", 1);
  request.add_messages()->set_role("assistant");
  request.mutable_messages(1)->set_content("bc");
  EXPECT_EQ(Answer(request).usage().prompt_tokens(), 1 + 6 + 1 + 12);  // "\nassistant:bc"
  EXPECT_EQ(Answer(request).content(), "d");
  request.set_template_arguments_json(R"({"extra": "000"})");
  EXPECT_EQ(Answer(request).usage().prompt_tokens(), 20 + 3);
  EXPECT_EQ(Answer(WithTool(request)).usage().prompt_tokens(), 20 + 3 + 1);
}

TEST_F(ChatTest, ToolCallsComeWholeWithAnIdOfTheirOwn) {
  const Stream<v1::ChatResponse> stream = AnswerStream(WithTool(Chat("+", 9)));
  EXPECT_TRUE(stream.status.ok());
  // The beginning, the call, the end of the call, the end token, the end.
  ASSERT_EQ(stream.messages.size(), 5u);
  for (size_t i = 0; i < 5; ++i) {
    EXPECT_EQ(stream.messages[i].content(), "") << i;
    EXPECT_EQ(stream.messages[i].tool_calls_size(), i == 2 ? 1 : 0) << i;
  }
  const v1::ToolCall& call = stream.messages[2].tool_calls(0);
  EXPECT_EQ(call.index(), 0);
  EXPECT_EQ(call.name(), "get");
  EXPECT_EQ(call.arguments_json(), R"({"x":1})");
  EXPECT_EQ(call.id().size(), 9u);
  for (char c : call.id()) EXPECT_TRUE(std::isalnum(static_cast<unsigned char>(c))) << call.id();
  const v1::ChatResponse whole = Answer(WithTool(Chat("+", 9)));
  ASSERT_EQ(whole.tool_calls_size(), 1);
  EXPECT_EQ(whole.content(), "");
  EXPECT_NE(whole.tool_calls(0).id(), call.id());
}

// The output goes on after the end token. Of what may follow that, nothing but the beginning of a
// call is left: the first of all tokens that have no bias.
TEST_F(ChatTest, CallsOfAnAnswerAreNumbered) {
  v1::ChatRequest request = WithTool(Chat("+", 8));
  request.mutable_params()->set_ignore_eos(true);
  auto* bias = request.mutable_params()->mutable_sampling()->mutable_logit_bias();
  for (int32_t token :
       {alphabet::Letter('a'), alphabet::Letter('b'), alphabet::kBos, alphabet::kNote})
    (*bias)[token] = -100.0f;
  (*bias)[alphabet::kEnd] = -1.0f;  // still the likeliest after the end of a call
  const v1::ChatResponse response = Answer(request);
  ASSERT_EQ(response.tool_calls_size(), 2) << response.DebugString();
  EXPECT_EQ(response.tool_calls(0).index(), 0);
  EXPECT_EQ(response.tool_calls(1).index(), 1);
  EXPECT_NE(response.tool_calls(0).id(), response.tool_calls(1).id());
}

TEST_F(ChatTest, WithoutToolsOrUnparsedACallIsContent) {
  const std::string written = R"(<tool_call>{"name":"get","arguments":{"x":1}}</tool_call>)";
  EXPECT_EQ(Answer(Chat("+", 9)).content(), written);
  v1::ChatRequest request = WithTool(Chat("+", 9));
  request.set_parse_output(false);
  const v1::ChatResponse response = Answer(request);
  EXPECT_EQ(response.content(), written);
  EXPECT_EQ(response.tool_calls_size(), 0);
  request.set_parse_output(true);
  EXPECT_EQ(Answer(request).tool_calls_size(), 1);
}

TEST_F(ChatTest, ReasoningIsApartFromContent) {
  const v1::ChatResponse response = Answer(Chat("?", 9));
  EXPECT_EQ(response.reasoning_content(), "mull");
  EXPECT_EQ(response.content(), "ok");
  v1::ChatRequest request = Chat("?", 9);
  request.set_parse_output(false);
  EXPECT_EQ(Answer(request).content(), "<think>mull</think>ok");
  EXPECT_EQ(Answer(request).reasoning_content(), "");
}

TEST_F(ChatTest, WhatIsHeldBackComesOutAtTheEndHoweverThatComes) {
  const std::string begun = R"(<tool_call>{"name":"get","arguments":{"x":1}})";
  EXPECT_EQ(Answer(WithTool(Chat("+", 1))).content(), "<tool_call>");
  Stream<v1::ChatResponse> stream = AnswerStream(WithTool(Chat("+", 1)));
  ASSERT_EQ(stream.messages.size(), 2u);
  EXPECT_EQ(stream.messages[1].content(), "<tool_call>");
  EXPECT_EQ(stream.messages[1].finish_reason(), v1::FINISH_REASON_LENGTH);
  // A deadline, with the engine stepped by hand.
  Start({});
  ASSERT_TRUE(SetEngine().ok());
  for (bool held : {true, false}) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::hours(1));
    const auto reader = stub_->Chat(&context, WithTool(Chat(held ? "+" : "0", 9)));
    WaitUntilQueued(1);
    engine_->Step();
    now_ = now_ + 7200.0;
    engine_->Step();
    StepToTheEnd();  // nothing, if the deadline was kept
    stream = ReadAll(reader.get());
    EXPECT_EQ(stream.status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
    ASSERT_EQ(stream.messages.size(), held ? 2u : 1u);
    EXPECT_EQ(stream.messages.back().content(), held ? "<tool_call>" : "1");
    EXPECT_FALSE(stream.messages.back().has_usage());
    EXPECT_EQ(stream.messages.back().finish_reason(), v1::FINISH_REASON_UNSPECIFIED);
  }
}

TEST_F(ChatTest, WhatIsRefusedNamesTheField) {
  const auto invalid = grpc::StatusCode::INVALID_ARGUMENT;
  ExpectRefusedChat(v1::ChatRequest(), invalid, "0 messages");
  v1::ChatRequest request = Chat("a", 1);
  request.mutable_messages(0)->clear_role();
  ExpectRefusedChat(request, invalid, "no role");
  request = Chat("a", 1);
  request.set_template_arguments_json("[]");
  ExpectRefusedChat(request, invalid, "template_arguments_json");
  request = WithTool(Chat("a", 1));
  request.mutable_tools(0)->set_parameters_json("{]");
  ExpectRefusedChat(request, invalid, "tools.parameters_json");
  request = Chat("a", -1);
  ExpectRefusedChat(request, invalid, "max_tokens = -1");
  request = Chat("a", 1);
  request.mutable_params()->set_logprobs(-2);
  ExpectRefusedChat(request, invalid, "logprobs = -2");
  request = Chat("a", 1);
  request.set_request_id(std::string(129, 'x'));
  ExpectRefusedChat(request, invalid, "request_id has 129 bytes");
  EXPECT_EQ(AnswerStream(request).status.error_code(), invalid);
  EXPECT_EQ(Metric("thermocline_requests_rejected_total{reason=\"invalid\"}"), 8.0);
}

TEST_F(ChatTest, TheTemplateIsAppliedAlone) {
  v1::ApplyChatTemplateRequest request;
  v1::ApplyChatTemplateResponse response;
  const auto apply = [&] {
    grpc::ClientContext context;
    return stub_->ApplyChatTemplate(&context, request, &response);
  };
  EXPECT_EQ(apply().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  request.add_messages()->set_role("user");
  request.mutable_messages(0)->set_content("ab");
  ASSERT_TRUE(apply().ok());
  EXPECT_EQ(response.text(), "<s>user:ab");
  EXPECT_EQ(response.ids_size(), 8);
  EXPECT_EQ(response.ids(0), alphabet::kBos);
  EXPECT_EQ(response.ids(7), alphabet::Letter('b'));
  request.set_add_generation_prompt(false);
  request.set_template_arguments_json(R"({"extra": "x"})");
  request.add_tools()->set_name("f");
  request.add_tools()->set_name("g");
  ASSERT_TRUE(apply().ok());
  EXPECT_EQ(response.text(), "<s>2xuser:ab\n");
  request.set_add_generation_prompt(true);
  ASSERT_TRUE(apply().ok());
  EXPECT_EQ(response.text(), "<s>2xuser:ab");
}

TEST_F(ChatTest, WithoutATemplateThereIsNoChat) {
  TemporaryFile model("untemplated.gguf");
  alphabet::WriteVariant("tokenizer.chat_template", "tokenizer.chat_templatX", model.path());
  EngineOptions options;
  options.model_path = model.path();
  Start(std::move(options));
  Serve();
  ExpectRefusedChat(Chat("a", 1), grpc::StatusCode::FAILED_PRECONDITION, "no chat template");
  EXPECT_EQ(Generate(Request("a", 2)).text(), "bc");
}

TEST_F(ChatTest, ATemplateThatDoesNotCompileIsReportedAndTheRestWorks) {
  TemporaryFile model("broken.gguf");
  alphabet::WriteVariant("{% endfor %}", "{% endfog %}", model.path());
  EngineOptions options;
  options.model_path = model.path();
  Start(std::move(options));
  EXPECT_FALSE(SetEngine().ok());
  RunEngine();
  ExpectRefusedChat(Chat("a", 1), grpc::StatusCode::FAILED_PRECONDITION, "no chat template");
  EXPECT_EQ(Generate(Request("a", 2)).text(), "bc");
}

}  // namespace
}  // namespace thermocline
