// What the server does not do for ever: deadlines, clients that do not read or go away, the queue,
// draining.
#include <future>

#include "server/grpc/convert.h"
#include "tests/server/service_fixture.h"

namespace thermocline {
namespace {

using std::chrono::hours;
using std::chrono::seconds;
using std::chrono::system_clock;

class LimitsTest : public ServiceFixture {
 protected:
  // A client's call on its way.
  struct Call {
    grpc::ClientContext context;
    std::unique_ptr<grpc::ClientReader<v1::GenerateResponse>> reader;
  };
  std::unique_ptr<Call> StartCall(const v1::GenerateRequest& request,
                                  std::optional<system_clock::duration> deadline = {}) {
    auto call = std::make_unique<Call>();
    if (deadline.has_value()) call->context.set_deadline(system_clock::now() + *deadline);
    call->reader = stub_->Generate(&call->context, request);
    return call;
  }
  static std::string Hint(const grpc::ClientContext& context) {
    const auto& trailers = context.GetServerTrailingMetadata();
    const auto it = trailers.find("grpc-retry-pushback-ms");
    return it == trailers.end() ? "" : std::string(it->second.data(), it->second.size());
  }
};

// The client's own clock would need an hour: it is the engine that ends the request. gRPC rounds
// such times to minutes on their way.
TEST_F(LimitsTest, TheEngineEndsARequestAtItsDeadlineWithTheTextSoFar) {
  ASSERT_TRUE(SetEngine().ok());
  const auto call = StartCall(Request("a", 100), hours(1));
  WaitUntilQueued(1);
  engine_->Step();
  now_ = now_ + 3500.0;
  engine_->Step();
  now_ = now_ + 300.0;
  StepToTheEnd();
  const auto stream = ReadAll(call->reader.get());
  EXPECT_EQ(stream.status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_EQ(stream.status.error_message(), "the request's deadline has passed");
  ASSERT_EQ(stream.messages.size(), 2u);
  EXPECT_EQ(stream.messages[0].text() + stream.messages[1].text(), "bc");
  EXPECT_FALSE(stream.messages[1].has_usage());
  ExpectNothingIsLeft();
}

TEST_F(LimitsTest, FarDeadlinesHoldAndNoneMeansNone) {
  constexpr double kDay = 86400.0;
  ASSERT_TRUE(SetEngine().ok());
  const auto far = StartCall(Request("0", 100), hours(24 * 300));
  WaitUntilQueued(1);
  const auto without = StartCall(Request("0", 4));
  WaitUntilQueued(2);
  engine_->Step();
  now_ = now_ + 280.0 * kDay;
  engine_->Step();
  now_ = now_ + 40.0 * kDay;
  engine_->Step();
  EXPECT_EQ(engine_->Snapshot().num_running, 1);
  now_ = now_ + 1e6 * kDay;
  StepToTheEnd();
  EXPECT_EQ(ReadAll(far->reader.get()).status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  const auto stream = ReadAll(without->reader.get());
  EXPECT_TRUE(stream.status.ok());
  EXPECT_EQ(stream.messages.size(), 5u);
}

TEST_F(LimitsTest, DeadlinesOfUnaryCallsAndScoringAreTheEnginesToo) {
  ASSERT_TRUE(SetEngine().ok());
  v1::GenerateResponse generated;
  v1::ScoreResponse scored;
  auto generate = std::async(std::launch::async, [&] {
    grpc::ClientContext context;
    context.set_deadline(system_clock::now() + hours(1));
    return stub_->GenerateUnary(&context, Request("a", 100), &generated);
  });
  auto score = std::async(std::launch::async, [&] {
    grpc::ClientContext context;
    context.set_deadline(system_clock::now() + hours(1));
    v1::ScoreRequest request;
    request.set_text("abc");
    return stub_->Score(&context, request, &scored);
  });
  WaitUntilQueued(2);
  now_ = now_ + 3800.0;
  StepToTheEnd();
  for (auto* status : {&generate, &score}) {
    const grpc::Status ended = status->get();
    EXPECT_EQ(ended.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
    EXPECT_EQ(ended.error_message(), "the request's deadline has passed");
  }
}

TEST(ToEngineDeadline, IsTheSameMomentOnTheEnginesClock) {
  const auto in = [](system_clock::duration time) {
    return ToEngineDeadline(system_clock::now() + time, 50.0);
  };
  // A tenth of a second for this process to be held up.
  EXPECT_NEAR(in(seconds(10)), 60.0, 0.1);
  EXPECT_NEAR(in(-seconds(10)), 40.0, 0.1);
  EXPECT_NEAR(in(hours(24 * 364)), 50.0 + 364.0 * 86400.0, 0.1);
  EXPECT_EQ(in(hours(24 * 366)), std::numeric_limits<double>::infinity());
  EXPECT_EQ(ToEngineDeadline(system_clock::time_point::max(), 50.0),
            std::numeric_limits<double>::infinity());
}

// A connection that holds 16 KiB of what its client has not read.
class UnreadTest : public LimitsTest {
 protected:
  void SetUp() override {
    Start({});
    Serve();
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
    arguments.SetInt(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, 16384);
    stub_ = v1::Inference::NewStub(
        grpc::CreateCustomChannel(address_, grpc::InsecureChannelCredentials(), arguments));
  }
  // With 20 likeliest tokens each, messages of some 200 bytes.
  static v1::GenerateRequest LargeMessages(int64_t max_tokens) {
    v1::GenerateRequest request = Request("0", max_tokens);
    request.mutable_params()->set_logprobs(20);
    return request;
  }
};

TEST_F(UnreadTest, AClientThatNeverReadsIsCancelled) {
  const auto call = StartCall(LargeMessages(8000));
  WaitUntil([&] { return engine_->Snapshot().generated_tokens > 4096; });
  ExpectNothingRuns();
  const auto stream = ReadAll(call->reader.get());
  EXPECT_EQ(stream.status.error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_NE(stream.status.error_message().find("does not read"), std::string::npos);
  // What was ready is not lost: what was queued, and what the connection held.
  EXPECT_GE(stream.messages.size(), 4096u);
  EXPECT_LT(stream.messages.size(), 5000u);
  EXPECT_EQ(Metric("thermocline_requests_finished_total{reason=\"cancelled\"}"), 1.0);
  ExpectNothingIsLeft();
}

TEST_F(UnreadTest, AClientMayLeaveFourThousandMessagesUnread) {
  const auto call = StartCall(LargeMessages(4096));
  WaitUntil([&] { return engine_->Snapshot().generated_tokens == 4096; });
  ExpectNothingRuns();
  EXPECT_EQ(inference_->num_open_calls(), 1);  // its output is still on the way
  const auto stream = ReadAll(call->reader.get());
  EXPECT_TRUE(stream.status.ok()) << stream.status.error_message();
  EXPECT_EQ(stream.messages.size(), 4097u);
  ExpectNothingIsLeft();
}

TEST_F(LimitsTest, ACancelledCallEndsItsRequestWhereverItIs) {
  EngineOptions options;
  options.scheduler.max_num_seqs = 1;
  Start(std::move(options));
  ASSERT_TRUE(SetEngine().ok());
  const auto running = StartCall(Request("0", 10000));
  WaitUntilQueued(1);
  engine_->Step();
  const auto waiting = StartCall(Request("0", 10000));
  WaitUntilQueued(1);
  for (Call* call : {running.get(), waiting.get()}) {
    call->context.TryCancel();
    EXPECT_EQ(ReadAll(call->reader.get()).status.error_code(), grpc::StatusCode::CANCELLED);
  }
  RunEngine();
  ExpectNothingIsLeft();
  EXPECT_EQ(Metric("thermocline_requests_finished_total{reason=\"cancelled\"}"), 2.0);
}

TEST_F(LimitsTest, ACancelledUnaryCallEndsItsRequest) {
  ASSERT_TRUE(SetEngine().ok());
  grpc::ClientContext context;
  v1::GenerateResponse response;
  auto call = std::async(std::launch::async, [&] {
    return stub_->GenerateUnary(&context, Request("0", 10000), &response);
  });
  WaitUntilQueued(1);
  engine_->Step();
  context.TryCancel();
  EXPECT_EQ(call.get().error_code(), grpc::StatusCode::CANCELLED);
  RunEngine();
  ExpectNothingIsLeft();
  EXPECT_EQ(Metric("thermocline_requests_finished_total{reason=\"cancelled\"}"), 1.0);
}

TEST_F(LimitsTest, AFullQueueRefusesWithAHintWhenToRetry) {
  EngineOptions options;
  options.max_waiting = 2;
  Start(std::move(options));
  ASSERT_TRUE(SetEngine().ok());
  const auto one = StartCall(Request("a", 1)), two = StartCall(Request("a", 1));
  WaitUntilQueued(2);
  const auto refused = StartCall(Request("a", 1));
  const auto stream = ReadAll(refused->reader.get());
  EXPECT_EQ(stream.status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(Hint(refused->context), "1000");
  v1::ScoreRequest score;
  score.set_text("a");
  v1::ScoreResponse scored;
  grpc::ClientContext context;
  EXPECT_EQ(stub_->Score(&context, score, &scored).error_code(),
            grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(Hint(context), "1000");
  EXPECT_EQ(Metric("thermocline_requests_rejected_total{reason=\"queue_full\"}"), 2.0);
  RunEngine();
  EXPECT_TRUE(ReadAll(one->reader.get()).status.ok());
  EXPECT_TRUE(ReadAll(two->reader.get()).status.ok());
}

TEST_F(LimitsTest, LoadingAndDrainingRefuseWithAHintAndInvalidRequestsWithout) {
  const auto hint_of = [&](const v1::GenerateRequest& request, grpc::StatusCode code) {
    const auto call = StartCall(request);
    EXPECT_EQ(ReadAll(call->reader.get()).status.error_code(), code);
    return Hint(call->context);
  };
  EXPECT_EQ(hint_of(Request("a", 1), grpc::StatusCode::UNAVAILABLE), "1000");
  Serve();
  EXPECT_EQ(hint_of(Request("a", -1), grpc::StatusCode::INVALID_ARGUMENT), "");
  EXPECT_EQ(hint_of(Request("a", 1), grpc::StatusCode::OK), "");
  engine_->Drain();
  EXPECT_EQ(hint_of(Request("a", 1), grpc::StatusCode::UNAVAILABLE), "1000");
}

}  // namespace
}  // namespace thermocline
