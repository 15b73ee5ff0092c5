// The gRPC services over a real connection: streams, errors, deadlines, cancellation, back
// pressure, metrics.
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <random>
#include <thread>

#include "server/grpc/control_service.h"
#include "server/grpc/inference_service.h"
#include "server/metrics.h"
#include "tests/support/golden.h"
#include "tests/support/wait_for.h"
#include "thermocline/v1/control.grpc.pb.h"
#include "thermocline/v1/inference.grpc.pb.h"

namespace thermocline {
namespace {

// A server with the demo model on a port of its own.
class ServiceTest : public testing::Test {
 protected:
  void SetUp() override { Start({}); }
  void TearDown() override { Stop(); }

  void Start(EngineOptions options) {
    options.model_path = DemoPath();
    options.kv_tokens = 8192;
    engine_ = MakeEngine(std::move(options));
    ASSERT_NE(engine_, nullptr);
    inference_ = std::make_unique<InferenceService>(&metrics_);
    control_ = std::make_unique<ControlService>([this] { drained_ = true; });
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(inference_->service());
    builder.RegisterService(control_->service());
    server_ = builder.BuildAndStart();
    ASSERT_NE(server_, nullptr);
    const auto channel = grpc::CreateChannel("127.0.0.1:" + std::to_string(port),
                                             grpc::InsecureChannelCredentials());
    stub_ = v1::Inference::NewStub(channel);
    control_stub_ = v1::Control::NewStub(channel);
  }
  void Load() {
    metrics_.SetSource([this] { return engine_->Snapshot(); });
    ASSERT_TRUE(inference_->SetEngine(engine_.get()).ok());
    control_->SetEngine(engine_.get());
    thread_ = std::thread([this] { engine_->Run(); });
  }
  void Stop() {
    if (engine_ == nullptr) return;
    engine_->Stop();
    if (thread_.joinable()) thread_.join();
    engine_->AbortAll(absl::UnavailableError("stopping"));
    server_->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(5));
    metrics_.SetSource(nullptr);
    engine_.reset();
  }
  static v1::GenerateRequest Request(const std::string& text, int64_t max_tokens) {
    v1::GenerateRequest request;
    request.set_text(text);
    request.mutable_params()->set_max_tokens(max_tokens);
    request.mutable_params()->mutable_sampling()->set_temperature(0.0f);
    request.mutable_params()->set_ignore_eos(true);
    return request;
  }
  // Waits until nothing runs; the loop ends by itself because every request does.
  void WaitUntilIdle() {
    const auto idle = [this] {
      const EngineSnapshot snapshot = engine_->Snapshot();
      return snapshot.num_running == 0 && snapshot.num_waiting == 0;
    };
    if (!WaitFor(idle)) FAIL() << "requests still run";
  }

  Metrics metrics_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<InferenceService> inference_;
  std::unique_ptr<ControlService> control_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<v1::Inference::Stub> stub_;
  std::unique_ptr<v1::Control::Stub> control_stub_;
  std::thread thread_;
  std::atomic<bool> drained_{false};
};

TEST_F(ServiceTest, CallsBeforeTheModelIsLoadedAreUnavailable) {
  grpc::ClientContext context;
  v1::GenerateResponse response;
  EXPECT_EQ(stub_->GenerateUnary(&context, Request("a", 1), &response).error_code(),
            grpc::StatusCode::UNAVAILABLE);
  grpc::ClientContext other;
  v1::LoadInfo snapshot;
  EXPECT_EQ(control_stub_->GetLoad(&other, {}, &snapshot).error_code(),
            grpc::StatusCode::UNAVAILABLE);
}

TEST_F(ServiceTest, StreamAndUnaryAgreeAndStateWhatWasApplied) {
  Load();
  grpc::ClientContext context, unary_context;
  const auto reader = stub_->Generate(&context, Request("The capital of France is", 12));
  std::string text;
  int tokens = 0, messages = 0;
  v1::GenerateResponse response, last;
  while (reader->Read(&response)) {
    if (messages++ == 0) {
      EXPECT_EQ(response.effective_params().max_tokens(), 12);
      EXPECT_TRUE(response.effective_params().sampling().has_seed());
      EXPECT_FALSE(response.request_id().empty());
    }
    text += response.text();
    tokens += response.tokens_size();
    last = response;
  }
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_EQ(tokens, 12);
  EXPECT_GT(messages, 1);
  EXPECT_EQ(last.finish_reason(), v1::FINISH_REASON_LENGTH);
  EXPECT_EQ(last.usage().completion_tokens(), 12);
  v1::GenerateResponse whole;
  ASSERT_TRUE(
      stub_->GenerateUnary(&unary_context, Request("The capital of France is", 12), &whole).ok());
  EXPECT_EQ(whole.text(), text);
  EXPECT_NE(text.find("Paris"), std::string::npos) << text;
}

TEST_F(ServiceTest, ChatAnswersAndStopsAtTheEndOfItsTurn) {
  Load();
  v1::ChatRequest request;
  v1::ChatMessage* message = request.add_messages();
  message->set_role("user");
  message->set_content("What is the capital of France?");
  request.mutable_params()->mutable_sampling()->set_temperature(0.0f);
  request.mutable_params()->set_max_tokens(100);
  grpc::ClientContext context;
  v1::ChatResponse response;
  ASSERT_TRUE(stub_->ChatUnary(&context, request, &response).ok());
  EXPECT_EQ(response.role(), "assistant");
  EXPECT_NE(response.content().find("Paris"), std::string::npos) << response.content();
  EXPECT_EQ(response.finish_reason(), v1::FINISH_REASON_STOP);
}

TEST_F(ServiceTest, StopStringsEndTheOutputAndLogprobsComeOnRequest) {
  Load();
  v1::GenerateRequest request = Request("The capital of France is", 30);
  request.mutable_params()->add_stop(".");
  request.mutable_params()->set_logprobs(3);
  grpc::ClientContext context;
  v1::GenerateResponse response;
  ASSERT_TRUE(stub_->GenerateUnary(&context, request, &response).ok());
  EXPECT_EQ(response.text().find('.'), std::string::npos);
  EXPECT_EQ(response.stop_matched(), ".");
  EXPECT_EQ(response.finish_reason(), v1::FINISH_REASON_STOP);
  ASSERT_GT(response.tokens_size(), 0);
  EXPECT_LE(response.tokens(0).logprob(), 0.0f);
  ASSERT_EQ(response.tokens(0).top_size(), 3);
  EXPECT_EQ(response.tokens(0).top(0).token(), response.tokens(0).token());
}

TEST_F(ServiceTest, BadRequestsNameWhatIsWrong) {
  Load();
  const auto expect = [&](const v1::GenerateRequest& request, const char* part) {
    grpc::ClientContext context;
    v1::GenerateResponse response;
    const grpc::Status status = stub_->GenerateUnary(&context, request, &response);
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << part;
    EXPECT_NE(status.error_message().find(part), std::string::npos) << status.error_message();
  };
  v1::GenerateRequest request = Request("a", 1);
  request.mutable_params()->mutable_sampling()->set_temperature(NAN);
  expect(request, "temperature");
  request = Request("a", -5);
  expect(request, "max_tokens = -5");
  expect(v1::GenerateRequest(), "prompt is missing");
  request = Request("", 1);
  expect(request, "empty");
  request.mutable_tokens()->add_ids(49152);
  expect(request, "vocabulary has 49152");
  request = Request("a", 1);
  request.set_request_id(std::string(1000, 'x'));
  expect(request, "request_id has 1000 bytes");
  std::string long_text;
  for (int i = 0; i < 9000; ++i) long_text += " word";
  expect(Request(long_text, 1), "the context holds");
  EXPECT_EQ(engine_->Snapshot().kv_blocks_used, 0);
}

TEST_F(ServiceTest, TextCallsAreInverses) {
  Load();
  grpc::ClientContext one, two, three, four;
  v1::TokenizeRequest tokenize;
  tokenize.set_text("Hello, w\xC3\xB6rld <|im_end|>");
  v1::TokenizeResponse ids;
  ASSERT_TRUE(stub_->Tokenize(&one, tokenize, &ids).ok());
  v1::DetokenizeRequest detokenize;
  *detokenize.mutable_ids() = ids.ids();
  v1::DetokenizeResponse text;
  ASSERT_TRUE(stub_->Detokenize(&two, detokenize, &text).ok());
  EXPECT_EQ(text.text(), tokenize.text());
  detokenize.add_ids(-1);
  EXPECT_EQ(stub_->Detokenize(&three, detokenize, &text).error_code(),
            grpc::StatusCode::INVALID_ARGUMENT);
  v1::ApplyChatTemplateRequest chat;
  chat.add_messages()->set_role("user");
  chat.mutable_messages(0)->set_content("Hi");
  v1::ApplyChatTemplateResponse rendered;
  ASSERT_TRUE(stub_->ApplyChatTemplate(&four, chat, &rendered).ok());
  EXPECT_NE(rendered.text().find("<|im_start|>user\nHi<|im_end|>"), std::string::npos);
}

TEST_F(ServiceTest, ToolsAreCheckedAndUnparsedOutputIsOnRequest) {
  Load();
  v1::ChatRequest request;
  request.add_messages()->set_role("user");
  request.mutable_messages(0)->set_content("Hi");
  request.mutable_params()->set_max_tokens(4);
  request.mutable_params()->mutable_sampling()->set_temperature(0.0f);
  v1::ChatResponse parsed, whole, refused;
  grpc::ClientContext one, two, three;
  ASSERT_TRUE(stub_->ChatUnary(&one, request, &parsed).ok());
  request.set_parse_output(false);
  ASSERT_TRUE(stub_->ChatUnary(&two, request, &whole).ok());
  EXPECT_FALSE(parsed.content().empty());
  EXPECT_EQ(parsed.content(), whole.content());  // the demo model's template knows no calls
  request.add_tools()->set_name("f");
  request.mutable_tools(0)->set_parameters_json("{]");
  const grpc::Status status = stub_->ChatUnary(&three, request, &refused);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_NE(status.error_message().find("tools.parameters_json"), std::string::npos);
}

TEST_F(ServiceTest, ScoreGivesALogprobPerFollowingToken) {
  Load();
  v1::ScoreRequest request;
  request.set_text("The capital of France is Paris");
  grpc::ClientContext context;
  v1::ScoreResponse response;
  ASSERT_TRUE(stub_->Score(&context, request, &response).ok());
  ASSERT_EQ(response.logprobs_size() + 1, response.tokens_size());
  EXPECT_GT(response.logprobs(response.logprobs_size() - 1), -2.0f);  // " Paris" is likely
}

TEST_F(ServiceTest, ADeadlineEndsTheCallWithTheTextSoFar) {
  Load();
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(3));
  const auto reader = stub_->Generate(&context, Request("Once upon a time", 4000));
  int messages = 0;
  for (v1::GenerateResponse response; reader->Read(&response);) ++messages;
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_GT(messages, 0);
  WaitUntilIdle();
  EXPECT_EQ(engine_->Snapshot().kv_blocks_used, 0);
}

TEST_F(ServiceTest, TwoHundredCancellationsAtRandomMomentsLeaveNoBlockInUse) {
  Load();
  std::atomic<int> next{0}, cancelled{0}, other{0};
  std::vector<std::thread> clients;
  for (int c = 0; c < 16; ++c) {
    clients.emplace_back([&] {
      for (int i = next++; i < 200; i = next++) {
        std::mt19937 random(static_cast<uint32_t>(i));
        grpc::ClientContext context;
        const auto reader = stub_->Generate(&context, Request("Story " + std::to_string(i), 2000));
        std::this_thread::sleep_for(std::chrono::milliseconds(random() % 60));
        context.TryCancel();
        for (v1::GenerateResponse response; reader->Read(&response);) {
        }
        (reader->Finish().error_code() == grpc::StatusCode::CANCELLED ? cancelled : other)++;
      }
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(cancelled, 200);
  EXPECT_EQ(other, 0);
  WaitUntilIdle();
  EXPECT_EQ(engine_->Snapshot().kv_blocks_used, 0);
}

TEST_F(ServiceTest, AFullQueueIsRefusedWithAHintWhenToRetry) {
  Stop();
  EngineOptions options;
  options.max_waiting = 2;
  options.scheduler.max_num_seqs = 1;
  Start(std::move(options));
  ASSERT_TRUE(
      inference_->SetEngine(engine_.get()).ok());  // the engine does not run: requests pile up
  std::vector<std::unique_ptr<grpc::ClientContext>> contexts;
  std::vector<std::unique_ptr<grpc::ClientReader<v1::GenerateResponse>>> readers;
  for (int i = 0; i < 2; ++i) {
    contexts.push_back(std::make_unique<grpc::ClientContext>());
    readers.push_back(stub_->Generate(contexts.back().get(), Request("a", 1)));
  }
  for (int i = 0; i < 500 && engine_->Snapshot().num_waiting < 2; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  grpc::ClientContext context;
  v1::GenerateResponse response;
  const grpc::Status status = stub_->GenerateUnary(&context, Request("a", 1), &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED) << status.error_message();
  EXPECT_EQ(context.GetServerTrailingMetadata().count("grpc-retry-pushback-ms"), 1u);
  EXPECT_NE(metrics_.Text().find("thermocline_requests_rejected_total{reason=\"queue_full\"} 1"),
            std::string::npos);
  thread_ = std::thread([this] { engine_->Run(); });
  for (auto& reader : readers) {
    while (reader->Read(&response)) {
    }
    EXPECT_TRUE(reader->Finish().ok());
  }
}

TEST_F(ServiceTest, DrainingRefusesNewRequests) {
  Load();
  grpc::ClientContext context, other;
  v1::DrainResponse drained;
  EXPECT_TRUE(control_stub_->Drain(&context, {}, &drained).ok());
  EXPECT_TRUE(drained_);
  engine_->Drain();
  v1::GenerateResponse response;
  EXPECT_EQ(stub_->GenerateUnary(&other, Request("a", 1), &response).error_code(),
            grpc::StatusCode::UNAVAILABLE);
}

TEST_F(ServiceTest, ControlTellsModelLoadAndExperts) {
  Load();
  grpc::ClientContext warm, one, two, three;
  v1::GenerateResponse response;
  ASSERT_TRUE(stub_->GenerateUnary(&warm, Request("Hello", 3), &response).ok());
  v1::ModelInfo model;
  ASSERT_TRUE(control_stub_->GetModelInfo(&one, {}, &model).ok());
  EXPECT_EQ(model.architecture(), "granitemoe");
  EXPECT_EQ(model.num_experts(), 24);
  EXPECT_TRUE(model.has_chat_template());
  v1::LoadInfo snapshot;
  WaitUntilIdle();
  ASSERT_TRUE(control_stub_->GetLoad(&two, {}, &snapshot).ok());
  EXPECT_EQ(snapshot.generated_tokens(), 3);
  v1::ExpertMap map;
  ASSERT_TRUE(control_stub_->GetExpertMap(&three, {}, &map).ok());
  ASSERT_EQ(map.layers_size(), 30);
  int64_t routed = 0;
  for (int64_t tokens : map.layers(0).tokens()) routed += tokens;
  EXPECT_EQ(routed, 12 * (1 + 2));  // top-12 for the prompt token and the two that were fed back
  EXPECT_TRUE(map.layers(0).resident(0));
}

}  // namespace
}  // namespace thermocline
