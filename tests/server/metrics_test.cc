// Metrics: names, which are the contract, and values after known events, alone and over the wire.
#include "server/metrics.h"

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/server/service_fixture.h"
#include "tests/support/failing_backend.h"

namespace thermocline {
namespace {

const std::string kFirst = "thermocline_time_to_first_token_seconds",
                  kInter = "thermocline_inter_token_seconds", kQueue = "thermocline_queue_seconds",
                  kWhole = "thermocline_request_seconds";

std::string Finished(const std::string& reason) {
  return "thermocline_requests_finished_total{reason=\"" + reason + "\"}";
}
std::string Rejected(const std::string& reason) {
  return "thermocline_requests_rejected_total{reason=\"" + reason + "\"}";
}

class MetricsTest : public ServiceFixture {
 protected:
  void ExpectHistogram(const std::string& name, double count, double sum) const {
    EXPECT_EQ(Metric(name + "_count"), count) << name;
    EXPECT_NEAR(Metric(name + "_sum"), sum, 1e-9) << name;
  }
  Stream<v1::GenerateResponse> Finish(grpc::ClientReader<v1::GenerateResponse>* reader) {
    StepToTheEnd();
    return ReadAll(reader);
  }
};

TEST_F(MetricsTest, NamesAreTheContract) {
  EngineSnapshot snapshot;
  snapshot.experts.resize(1);
  metrics_->SetSource([snapshot] { return snapshot; });
  for (const char* name : {"thermocline_requests_running",
                           "thermocline_requests_waiting",
                           "thermocline_kv_blocks_used",
                           "thermocline_kv_cache_usage_ratio",
                           "thermocline_draining",
                           "thermocline_steps_total",
                           "thermocline_step_seconds_total",
                           "thermocline_stage_seconds_total{stage=\"embed\"}",
                           "thermocline_stage_seconds_total{stage=\"attention\"}",
                           "thermocline_stage_seconds_total{stage=\"router\"}",
                           "thermocline_stage_seconds_total{stage=\"experts\"}",
                           "thermocline_stage_seconds_total{stage=\"combine\"}",
                           "thermocline_stage_seconds_total{stage=\"head\"}",
                           "thermocline_stage_seconds_total{stage=\"sample\"}",
                           "thermocline_prompt_tokens_total",
                           "thermocline_generated_tokens_total",
                           "thermocline_preemptions_total",
                           "thermocline_expert_file_bytes_total",
                           "thermocline_expert_predicted_seconds_total",
                           "thermocline_expert_seconds_total",
                           "thermocline_expert_filling",
                           "thermocline_expert_memory_bytes",
                           "thermocline_expert_hits_total{layer=\"0\",tier=\"host\"}",
                           "thermocline_expert_misses_total{layer=\"0\",tier=\"host\"}",
                           "thermocline_expert_evictions_total{layer=\"0\",tier=\"host\"}",
                           "thermocline_expert_read_bytes_total{layer=\"0\",tier=\"host\"}",
                           "thermocline_requests_finished_total{reason=\"stop\"}",
                           "thermocline_requests_finished_total{reason=\"length\"}",
                           "thermocline_requests_finished_total{reason=\"cancelled\"}",
                           "thermocline_requests_finished_total{reason=\"deadline\"}",
                           "thermocline_requests_finished_total{reason=\"error\"}",
                           "thermocline_requests_rejected_total{reason=\"queue_full\"}",
                           "thermocline_requests_rejected_total{reason=\"invalid\"}",
                           "thermocline_requests_rejected_total{reason=\"unavailable\"}"}) {
    EXPECT_EQ(Metric(name), 0.0) << name;  // there from the start, so that rates can be had
  }
  for (const std::string& name : {kFirst, kInter, kQueue, kWhole}) {
    for (const char* bound : {"0.001", "0.0025", "0.005", "0.01", "0.025", "0.05", "0.1", "0.25",
                              "0.5", "1", "2.5", "5", "10", "30", "60", "120", "+Inf"}) {
      EXPECT_EQ(Metric(name + "_bucket{le=\"" + bound + "\"}"), 0.0) << name << bound;
    }
  }
}

TEST_F(MetricsTest, EventsAreBookedWhereTheyBelong) {
  metrics_->OnFirstToken(0.002);
  metrics_->OnInterToken(0.02);
  metrics_->OnInterToken(0.2);
  const auto done = [&](FinishReason reason, double queue, double total) {
    Result result;
    result.reason = reason;
    result.queue_seconds = queue;
    result.total_seconds = total;
    metrics_->OnDone(result);
  };
  done(FinishReason::kError, 3.0, 4.0);
  done(FinishReason::kStop, 0.0, 1.0);
  done(FinishReason::kStop, -1.0, 2.0);
  metrics_->OnReject("queue_full");
  ExpectHistogram(kFirst, 1, 0.002);
  EXPECT_EQ(Metric(kFirst + "_bucket{le=\"0.001\"}"), 0.0);
  EXPECT_EQ(Metric(kFirst + "_bucket{le=\"0.0025\"}"), 1.0);
  ExpectHistogram(kInter, 2, 0.22);
  ExpectHistogram(kQueue, 2, 3.0);  // the third was never scheduled
  ExpectHistogram(kWhole, 3, 7.0);
  EXPECT_EQ(Metric(Finished("stop")), 2.0);
  EXPECT_EQ(Metric(Finished("error")), 1.0);
  EXPECT_EQ(Metric(Finished("length")), 0.0);
  EXPECT_EQ(Metric(Rejected("queue_full")), 1.0);
  EXPECT_EQ(Metric(Rejected("invalid")), 0.0);
}

TEST_F(MetricsTest, TheEnginesLoadIsAskedForAtEveryScrape) {
  EXPECT_EQ(Metric("thermocline_requests_running"), -1.0);  // no model yet
  EngineSnapshot snapshot;
  snapshot.num_running = 1;
  snapshot.num_waiting = 2;
  snapshot.kv_blocks_used = 3;
  snapshot.kv_blocks_total = 4;
  snapshot.num_steps = 5;
  snapshot.step_seconds = 6.5;
  snapshot.prompt_tokens = 7;
  snapshot.generated_tokens = 8;
  snapshot.num_preemptions = 9;
  snapshot.draining = true;
  snapshot.stage_seconds[static_cast<size_t>(Stage::kHead)] = 1.5;
  snapshot.experts.resize(2);
  snapshot.experts[1].hits = 10;
  snapshot.experts[1].misses = 11;
  snapshot.experts[1].evictions = 12;
  snapshot.experts[1].bytes_read = 13;
  metrics_->SetSource([&snapshot] { return snapshot; });
  EXPECT_EQ(Metric("thermocline_requests_running"), 1.0);
  EXPECT_EQ(Metric("thermocline_requests_waiting"), 2.0);
  EXPECT_EQ(Metric("thermocline_kv_blocks_used"), 3.0);
  EXPECT_EQ(Metric("thermocline_kv_cache_usage_ratio"), 0.75);
  EXPECT_EQ(Metric("thermocline_steps_total"), 5.0);
  EXPECT_EQ(Metric("thermocline_step_seconds_total"), 6.5);
  EXPECT_EQ(Metric("thermocline_prompt_tokens_total"), 7.0);
  EXPECT_EQ(Metric("thermocline_generated_tokens_total"), 8.0);
  EXPECT_EQ(Metric("thermocline_preemptions_total"), 9.0);
  EXPECT_EQ(Metric("thermocline_draining"), 1.0);
  EXPECT_EQ(Metric("thermocline_stage_seconds_total{stage=\"head\"}"), 1.5);
  EXPECT_EQ(Metric("thermocline_stage_seconds_total{stage=\"sample\"}"), 0.0);
  EXPECT_EQ(Metric("thermocline_expert_hits_total{layer=\"1\",tier=\"host\"}"), 10.0);
  EXPECT_EQ(Metric("thermocline_expert_misses_total{layer=\"1\",tier=\"host\"}"), 11.0);
  EXPECT_EQ(Metric("thermocline_expert_evictions_total{layer=\"1\",tier=\"host\"}"), 12.0);
  EXPECT_EQ(Metric("thermocline_expert_read_bytes_total{layer=\"1\",tier=\"host\"}"), 13.0);
  EXPECT_EQ(Metric("thermocline_expert_hits_total{layer=\"0\",tier=\"host\"}"), 0.0);
  snapshot.kv_blocks_total = 0;  // nothing to divide by
  snapshot.draining = false;
  snapshot.num_running = 20;
  EXPECT_EQ(Metric("thermocline_kv_cache_usage_ratio"), 0.0);
  EXPECT_EQ(Metric("thermocline_draining"), 0.0);
  EXPECT_EQ(Metric("thermocline_requests_running"), 20.0);
  metrics_->SetSource(nullptr);
  EXPECT_EQ(Metric("thermocline_requests_running"), -1.0);
}

// A request submitted at 1000 of the engine's clock; steps at 1002, 1005 and 1009, each of no time.
TEST_F(MetricsTest, TimesOfARequestOverTheWire) {
  ASSERT_TRUE(SetEngine().ok());
  for (bool chat : {false, true}) {
    grpc::ClientContext context;
    std::unique_ptr<grpc::ClientReader<v1::GenerateResponse>> generate;
    std::unique_ptr<grpc::ClientReader<v1::ChatResponse>> talk;
    v1::ChatRequest request;
    request.add_messages()->set_role("user");
    request.mutable_messages(0)->set_content("0");
    *request.mutable_params() = Request("0", 3).params();
    if (chat) {
      talk = stub_->Chat(&context, request);
    } else {
      generate = stub_->Generate(&context, Request("0", 3));
    }
    WaitUntilQueued(1);
    for (double later : {2.0, 3.0, 4.0}) {
      now_ = now_ + later;
      engine_->Step();
    }
    StepToTheEnd();
    if (chat) {
      EXPECT_TRUE(ReadAll(talk.get()).status.ok());
    } else {
      EXPECT_TRUE(ReadAll(generate.get()).status.ok());
    }
    const double calls = chat ? 2.0 : 1.0;
    ExpectHistogram(kQueue, calls, calls * 2.0);
    ExpectHistogram(kFirst, calls, calls * 2.0);
    ExpectHistogram(kInter, calls * 2.0, calls * (3.0 + 4.0));
    ExpectHistogram(kWhole, calls, calls * 9.0);
    EXPECT_EQ(Metric(Finished("length")), calls);
  }
  EXPECT_EQ(Metric("thermocline_steps_total"), 6.0);
  EXPECT_EQ(Metric("thermocline_prompt_tokens_total"), 2.0 + 7.0);  // "<s>0", "<s>user:0"
  EXPECT_EQ(Metric("thermocline_generated_tokens_total"), 6.0);
}

TEST_F(MetricsTest, UnaryCallsAreTimedToo) {
  Serve();
  Generate(Request("0", 3));
  v1::ScoreRequest score;
  score.set_text("abc");
  v1::ScoreResponse scored;
  grpc::ClientContext context;
  ASSERT_TRUE(stub_->Score(&context, score, &scored).ok());
  ExpectHistogram(kFirst, 1, 0.0);
  ExpectHistogram(kInter, 2, 0.0);
  ExpectHistogram(kQueue, 2, 0.0);
  ExpectHistogram(kWhole, 2, 0.0);
  EXPECT_EQ(Metric(Finished("length")), 2.0);
}

TEST_F(MetricsTest, EveryEndIsCountedUnderItsReason) {
  const auto refused = [&](const v1::GenerateRequest& request) {
    v1::GenerateResponse response;
    EXPECT_FALSE(Generate(request, &response).ok());
  };
  refused(Request("a", 1));  // loading
  EXPECT_EQ(Metric(Rejected("unavailable")), 1.0);
  ASSERT_TRUE(SetEngine().ok());
  struct Case {
    std::string reason;
    v1::GenerateRequest request;
  };
  for (const auto& [reason, request] :
       std::vector<Case>{{"stop", Request("x", 9)}, {"length", Request("x", 1)}}) {
    grpc::ClientContext context;
    const auto reader = stub_->Generate(&context, request);
    WaitUntilQueued(1);
    EXPECT_TRUE(Finish(reader.get()).status.ok());
    EXPECT_EQ(Metric(Finished(reason)), 1.0) << reason;
  }
  {
    grpc::ClientContext context;
    const auto reader = stub_->Generate(&context, Request("x", 9));
    WaitUntilQueued(1);
    engine_->AbortAll(absl::UnavailableError("stopping"));
    EXPECT_EQ(ReadAll(reader.get()).status.error_code(), grpc::StatusCode::UNAVAILABLE);
    EXPECT_EQ(Metric(Finished("cancelled")), 1.0);
  }
  {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::hours(1));
    const auto reader = stub_->Generate(&context, Request("x", 9));
    WaitUntilQueued(1);
    now_ = now_ + 7200.0;
    Finish(reader.get());
    EXPECT_EQ(Metric(Finished("deadline")), 1.0);
  }
  refused(Request("a", -1));
  refused(Request("a", -1));
  engine_->Drain();
  EXPECT_EQ(Metric("thermocline_draining"), 1.0);
  refused(Request("a", 1));
  EXPECT_EQ(Metric(Rejected("unavailable")), 2.0);
  EXPECT_EQ(Metric(Rejected("invalid")), 2.0);
  EXPECT_EQ(Metric(Rejected("queue_full")), 0.0);
  EXPECT_EQ(Metric(Finished("stop")) + Metric(Finished("length")), 2.0);
  EXPECT_EQ(Metric(Finished("error")), 0.0);
}

TEST_F(MetricsTest, AnErrorOfTheEngineIsTheCallsAndIsCounted) {
  bool fail = false;
  EngineOptions options;
  options.dense_backend = MakeFailingBackend(&fail);
  Start(std::move(options));
  ASSERT_TRUE(SetEngine().ok());
  grpc::ClientContext context;
  const auto reader = stub_->Generate(&context, Request("a", 9));
  WaitUntilQueued(1);
  fail = true;
  const Stream<v1::GenerateResponse> stream = Finish(reader.get());
  EXPECT_EQ(stream.status.error_code(), grpc::StatusCode::INTERNAL);
  EXPECT_EQ(stream.status.error_message(), "the device is lost");
  EXPECT_TRUE(stream.messages.empty());
  EXPECT_EQ(Metric(Finished("error")), 1.0);
}

// What an HTTP client gets from a port of this machine.
std::string HttpGet(uint16_t port, const std::string& path) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  std::string answer;
  if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0) {
    const std::string request = "GET " + path + " HTTP/1.0\r\nHost: localhost\r\n\r\n";
    EXPECT_EQ(write(fd, request.data(), request.size()), static_cast<ssize_t>(request.size()));
    char bytes[4096];
    for (ssize_t got; (got = read(fd, bytes, sizeof(bytes))) > 0;)
      answer.append(bytes, static_cast<size_t>(got));
  }
  close(fd);
  return answer;
}

TEST_F(MetricsTest, AreServedOverHttpOnAPortOfTheirOwn) {
  // A port that was free a moment ago.
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(address);
  ASSERT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&address), length), 0);
  ASSERT_EQ(getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length), 0);
  close(fd);
  const uint16_t port = ntohs(address.sin_port);
  const std::string listen = "127.0.0.1:" + std::to_string(port);
  ASSERT_TRUE(metrics_->Listen(listen).ok());
  metrics_->OnReject("invalid");
  metrics_->SetSource([] {
    EngineSnapshot snapshot;
    snapshot.num_waiting = 3;
    return snapshot;
  });
  const std::string answer = HttpGet(port, "/metrics");
  EXPECT_NE(answer.find(Rejected("invalid") + " 1"), std::string::npos) << answer;
  EXPECT_NE(answer.find("thermocline_requests_waiting 3"), std::string::npos) << answer;
  Metrics other;
  const absl::Status taken = other.Listen(listen);
  EXPECT_EQ(taken.code(), absl::StatusCode::kUnavailable);
  EXPECT_NE(taken.message().find(listen), std::string::npos) << taken;
}

}  // namespace
}  // namespace thermocline
