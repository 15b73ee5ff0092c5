// ServiceFixture: the gRPC services over a real connection, with the alphabet model and a clock of
// the test's own; the engine runs in a thread, or is stepped by the test.
#ifndef THERMOCLINE_TESTS_SERVER_SERVICE_FIXTURE_H_
#define THERMOCLINE_TESTS_SERVER_SERVICE_FIXTURE_H_

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "server/grpc/control_service.h"
#include "server/grpc/inference_service.h"
#include "server/metrics.h"
#include "tests/support/alphabet.h"
#include "tests/support/golden.h"
#include "tests/support/wait_for.h"
#include "thermocline/v1/control.grpc.pb.h"
#include "thermocline/v1/inference.grpc.pb.h"

namespace thermocline {

// All messages of a stream, and its end.
template <class Message>
struct Stream {
  std::vector<Message> messages;
  grpc::Status status;
};
template <class Message>
Stream<Message> ReadAll(grpc::ClientReader<Message>* reader) {
  Stream<Message> stream;
  for (Message message; reader->Read(&message);) stream.messages.push_back(message);
  stream.status = reader->Finish();
  return stream;
}

class ServiceFixture : public testing::Test {
 protected:
  void SetUp() override { Start({}); }
  void TearDown() override { Stop(); }

  // Servers listen; the model is not theirs yet.
  void Start(EngineOptions options) {
    Stop();
    if (options.model_path.empty()) options.model_path = alphabet::Path();
    if (options.kv_tokens == 0) options.kv_tokens = alphabet::kContext;
    options.now = [this] { return now_.load(); };
    options.num_threads = 1;
    engine_ = MakeEngine(std::move(options));
    ASSERT_NE(engine_, nullptr);
    metrics_ = std::make_unique<Metrics>();
    inference_ = std::make_unique<InferenceService>(metrics_.get());
    control_ = std::make_unique<ControlService>([this] { ++num_drains_; });
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(inference_->service());
    builder.RegisterService(control_->service());
    server_ = builder.BuildAndStart();
    ASSERT_NE(server_, nullptr);
    address_ = "127.0.0.1:" + std::to_string(port);
    const auto channel = grpc::CreateChannel(address_, grpc::InsecureChannelCredentials());
    stub_ = v1::Inference::NewStub(channel);
    control_stub_ = v1::Control::NewStub(channel);
  }
  // The model is loaded: calls are taken, and answered when the engine steps.
  absl::Status SetEngine() {
    metrics_->SetSource([this] { return engine_->Snapshot(); });
    control_->SetEngine(engine_.get());
    return inference_->SetEngine(engine_.get());
  }
  void Serve() {
    ASSERT_TRUE(SetEngine().ok());
    RunEngine();
  }
  void RunEngine() {
    thread_ = std::thread([this] { engine_->Run(); });
  }
  // Steps the engine in the test's thread until it has nothing to do, so that whoever waits for an
  // answer gets one.
  void StepToTheEnd() {
    while (engine_->Step()) {
    }
  }
  void Stop() {
    if (engine_ == nullptr) return;
    engine_->Stop();
    if (thread_.joinable()) thread_.join();
    engine_->AbortAll(absl::UnavailableError("stopping"));
    server_->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(5));
    metrics_->SetSource(nullptr);
    engine_.reset();
  }

  // Greedy, so that the output is the alphabet.
  static v1::GenerateRequest Request(const std::string& text, std::optional<int64_t> max_tokens) {
    v1::GenerateRequest request;
    request.set_text(text);
    if (max_tokens.has_value()) request.mutable_params()->set_max_tokens(*max_tokens);
    request.mutable_params()->mutable_sampling()->set_temperature(0.0f);
    return request;
  }
  grpc::Status Generate(const v1::GenerateRequest& request, v1::GenerateResponse* response) {
    grpc::ClientContext context;
    return stub_->GenerateUnary(&context, request, response);
  }
  v1::GenerateResponse Generate(const v1::GenerateRequest& request) {
    v1::GenerateResponse response;
    const grpc::Status status = Generate(request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response;
  }
  Stream<v1::GenerateResponse> GenerateStream(const v1::GenerateRequest& request) {
    grpc::ClientContext context;
    return ReadAll(stub_->Generate(&context, request).get());
  }
  // Whoever expects an error says which, and a part of its message.
  void ExpectRefused(const v1::GenerateRequest& request, grpc::StatusCode code,
                     const std::string& part) {
    v1::GenerateResponse response;
    const grpc::Status status = Generate(request, &response);
    EXPECT_EQ(status.error_code(), code) << part;
    EXPECT_NE(status.error_message().find(part), std::string::npos) << status.error_message();
  }

  template <class Condition>
  static void WaitUntil(Condition condition) {
    if (!WaitFor(condition)) ADD_FAILURE() << "what was waited for did not happen";
  }
  void WaitUntilQueued(int count) {
    WaitUntil([&] { return engine_->Snapshot().num_waiting == count; });
  }

  void ExpectNothingRuns() {
    WaitUntil([&] {
      const EngineSnapshot snapshot = engine_->Snapshot();
      return snapshot.num_running == 0 && snapshot.num_waiting == 0 && snapshot.kv_blocks_used == 0;
    });
  }
  // All calls are over, and the engine knows.
  void ExpectNothingIsLeft() {
    ExpectNothingRuns();
    WaitUntil([&] { return inference_->num_open_calls() == 0; });
  }

  // The value of a metric, spelt as in the exposition text: name{label="value"}; -1 when absent.
  double Metric(const std::string& name) const {
    const std::string text = "\n" + metrics_->Text();
    const size_t at = text.find("\n" + name + " ");
    return at == std::string::npos ? -1.0 : std::stod(text.substr(at + name.size() + 2));
  }

  std::atomic<double> now_{1000.0};  // seconds on the engine's clock
  std::atomic<int> num_drains_{0};
  std::unique_ptr<Metrics> metrics_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<InferenceService> inference_;
  std::unique_ptr<ControlService> control_;
  std::unique_ptr<grpc::Server> server_;
  std::string address_;
  std::unique_ptr<v1::Inference::Stub> stub_;
  std::unique_ptr<v1::Control::Stub> control_stub_;
  std::thread thread_;
};

}  // namespace thermocline

#endif  // THERMOCLINE_TESTS_SERVER_SERVICE_FIXTURE_H_
