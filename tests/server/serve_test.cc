// `thermocline serve` as a process: health while it loads, serves and drains; what ends a drain;
// signals; what it says on standard error.
#include <grpcpp/grpcpp.h>
#include <sys/stat.h>

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "tests/support/alphabet.h"
#include "tests/support/child_process.h"
#include "tests/support/golden.h"
#include "tests/support/health.h"
#include "tests/support/wait_for.h"
#include "thermocline/v1/control.grpc.pb.h"
#include "thermocline/v1/inference.grpc.pb.h"

namespace thermocline {
namespace {

constexpr char kInference[] = "thermocline.v1.Inference";
constexpr char kControl[] = "thermocline.v1.Control";

// A folder whose config.json is a pipe: loading stands still until somebody writes it.
class SlowModel {
 public:
  SlowModel() : folder_("slow-model") {
    std::filesystem::create_directory(folder_.path());
    std::filesystem::create_symlink(GoldenPath("llama3-rope") + "/model.safetensors",
                                    folder_.path() + "/model.safetensors");
    EXPECT_EQ(mkfifo(pipe().c_str(), 0600), 0);
  }
  const std::string& path() const { return folder_.path(); }
  void Arrive() const {
    std::ifstream config(GoldenPath("llama3-rope") + "/config.json");
    std::ofstream(pipe()) << config.rdbuf();
  }

 private:
  std::string pipe() const { return folder_.path() + "/config.json"; }
  TemporaryFile folder_;
};

class ServeTest : public testing::Test {
 protected:
  ServeTest() : data_socket_("data"), control_socket_("control") {}

  void Start(const std::string& model, const std::vector<std::string>& more = {}) {
    std::vector<std::string> args = {THERMOCLINE_PROGRAM,
                                     "serve",
                                     model,
                                     "--listen",
                                     data_address(),
                                     "--control-listen",
                                     control_address(),
                                     "--metrics-listen",
                                     ""};
    args.insert(args.end(), more.begin(), more.end());
    server_ = std::make_unique<ChildProcess>("serve", args);
    grpc::ChannelArguments arguments;  // a connection that holds 16 KiB of unread output
    arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
    arguments.SetInt(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, 16384);
    arguments.SetMaxReceiveMessageSize(-1);
    stub_ = v1::Inference::NewStub(
        grpc::CreateCustomChannel(data_address(), grpc::InsecureChannelCredentials(), arguments));
    control_stub_ = v1::Control::NewStub(
        grpc::CreateChannel(control_address(), grpc::InsecureChannelCredentials()));
  }
  std::string data_address() const { return "unix:" + data_socket_.path(); }
  std::string control_address() const { return "unix:" + control_socket_.path(); }

  Health HealthOf(const std::string& address, const std::string& service) {
    Health health = Health::kUnknown;
    const grpc::Status status = CheckHealth(address, service, &health);
    EXPECT_TRUE(status.ok()) << status.error_message() << server_->err();
    return health;
  }
  void ExpectHealth(Health expected) {
    EXPECT_EQ(HealthOf(data_address(), ""), expected);
    EXPECT_EQ(HealthOf(data_address(), kInference), expected);
    ChildProcess check("healthcheck",
                       {THERMOCLINE_PROGRAM, "healthcheck", "--address", data_address()});
    EXPECT_EQ(check.Wait(), expected == Health::kServing ? 0 : 1);
    EXPECT_EQ(check.out(), expected == Health::kServing ? "serving\n" : "");
    EXPECT_NE(check.err().find(expected == Health::kServing ? "" : "not serving"),
              std::string::npos);
  }
  template <class Condition>
  void WaitUntil(Condition condition) {
    if (!WaitFor(condition)) FAIL() << "what was waited for did not happen: " << server_->err();
  }
  void WaitUntilServing() {
    WaitUntil([&] { return HealthOf(data_address(), kInference) == Health::kServing; });
  }
  std::string State() {
    grpc::ClientContext context;
    context.set_wait_for_ready(true);
    v1::ServerInfo info;
    EXPECT_TRUE(control_stub_->GetServerInfo(&context, {}, &info).ok());
    return info.state();
  }
  void WaitUntilDraining() {
    WaitUntil([&] { return State() == "draining"; });
  }
  void Drain() {
    grpc::ClientContext context;
    v1::DrainResponse response;
    EXPECT_TRUE(control_stub_->Drain(&context, {}, &response).ok());
    WaitUntilDraining();
  }
  grpc::Status GenerateOne() {
    grpc::ClientContext context;
    v1::GenerateRequest request;
    v1::GenerateResponse response;
    request.mutable_tokens()->add_ids(1);
    request.mutable_params()->set_max_tokens(1);
    return stub_->GenerateUnary(&context, request, &response);
  }

  // A call whose client has not begun to read; its messages do not fit the connection.
  struct Call {
    grpc::ClientContext context;
    std::unique_ptr<grpc::ClientReader<v1::GenerateResponse>> reader;
    int num_messages = 0;
    grpc::Status ReadToTheEnd() {
      for (v1::GenerateResponse message; reader->Read(&message);) ++num_messages;
      return reader->Finish();
    }
  };
  std::unique_ptr<Call> StartCall(int64_t max_tokens) {
    v1::GenerateRequest request;
    request.set_text("0");
    request.mutable_params()->set_max_tokens(max_tokens);
    request.mutable_params()->set_logprobs(20);
    request.mutable_params()->mutable_sampling()->set_temperature(0.0f);
    auto call = std::make_unique<Call>();
    call->reader = stub_->Generate(&call->context, request);
    return call;
  }
  // Waits until the engine has generated so many tokens, and runs nothing more if they are all.
  void WaitForTokens(int64_t count, bool all) {
    WaitUntil([&] {
      grpc::ClientContext context;
      v1::LoadInfo load;
      EXPECT_TRUE(control_stub_->GetLoad(&context, {}, &load).ok());
      return load.generated_tokens() >= count && (!all || load.requests_running() == 0);
    });
  }
  bool Said(const std::string& part) const {
    return server_->err().find(part) != std::string::npos;
  }

  TemporaryFile data_socket_, control_socket_;
  std::unique_ptr<ChildProcess> server_;
  std::unique_ptr<v1::Inference::Stub> stub_;
  std::unique_ptr<v1::Control::Stub> control_stub_;
};

TEST_F(ServeTest, IsNotServingWhileItLoadsAndServesThen) {
  const SlowModel model;
  Start(model.path());
  ExpectHealth(Health::kNotServing);
  EXPECT_EQ(HealthOf(control_address(), kControl), Health::kServing);
  Health health = Health::kUnknown;
  EXPECT_EQ(CheckHealth(data_address(), "nobody", &health).error_code(),
            grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(State(), "loading");
  EXPECT_EQ(GenerateOne().error_code(), grpc::StatusCode::UNAVAILABLE);
  model.Arrive();
  WaitUntilServing();
  ExpectHealth(Health::kServing);
  EXPECT_EQ(State(), "serving");
  EXPECT_TRUE(GenerateOne().ok());
  server_->Signal(SIGINT);
  EXPECT_EQ(server_->Wait(), 0);
  EXPECT_EQ(server_->out(), "");
  EXPECT_TRUE(Said("loading " + model.path()));
  EXPECT_TRUE(Said("no tokenizer: "));
  EXPECT_TRUE(Said("stopped"));
  EXPECT_FALSE(Said("aborted"));
}

TEST_F(ServeTest, ASignalWhileItLoadsEndsItWhenItHasLoaded) {
  const SlowModel model;
  Start(model.path());
  EXPECT_EQ(State(), "loading");
  server_->Signal(SIGTERM);
  model.Arrive();
  EXPECT_EQ(server_->Wait(), 0);
  EXPECT_TRUE(Said("draining"));
  EXPECT_TRUE(Said("stopped"));
}

TEST_F(ServeTest, TwoSignalsWhileItLoadsEndItAtOnce) {
  const SlowModel model;
  Start(model.path());
  EXPECT_EQ(State(), "loading");
  server_->Signal(SIGTERM);
  server_->Signal(SIGINT);  // two of a kind might be taken for one
  EXPECT_EQ(server_->Wait(), 1);
  EXPECT_FALSE(Said("draining"));
}

// The engine has done its work, but the client has not read it: the drain waits for that.
TEST_F(ServeTest, ADrainRefusesTheNewAndDeliversWhatThereIs) {
  Start(alphabet::Path());
  WaitUntilServing();
  const auto call = StartCall(2000);
  WaitForTokens(2000, /*all=*/true);
  Drain();
  ExpectHealth(Health::kNotServing);
  EXPECT_EQ(HealthOf(control_address(), kControl), Health::kServing);
  EXPECT_EQ(GenerateOne().error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_TRUE(call->ReadToTheEnd().ok());
  EXPECT_EQ(call->num_messages, 2001);
  EXPECT_EQ(server_->Wait(), 0);
  EXPECT_FALSE(Said("aborted"));
}

TEST_F(ServeTest, ASecondSignalAbortsADrainThatWaitsForAClient) {
  Start(alphabet::Path());
  WaitUntilServing();
  const auto call = StartCall(2000);
  WaitForTokens(2000, /*all=*/true);
  Drain();
  server_->Signal(SIGTERM);
  EXPECT_EQ(server_->Wait(), 0);
  EXPECT_TRUE(Said("requests still running are aborted"));
  EXPECT_FALSE(call->ReadToTheEnd().ok());
}

TEST_F(ServeTest, ASecondSignalAbortsWhatRuns) {
  Start(alphabet::Path());
  WaitUntilServing();
  const auto call = StartCall(16000);
  WaitForTokens(1, /*all=*/false);
  server_->Signal(SIGTERM);
  WaitUntilDraining();
  server_->Signal(SIGINT);
  const grpc::Status status = call->ReadToTheEnd();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE) << status.error_message();
  EXPECT_GT(call->num_messages, 0);
  EXPECT_LT(call->num_messages, 16000);
  EXPECT_EQ(server_->Wait(), 0);
  EXPECT_TRUE(Said("requests still running are aborted"));
}

TEST_F(ServeTest, ADrainEndsAfterItsTimeWhateverRuns) {
  Start(alphabet::Path(), {"--drain-seconds", "0.1"});
  WaitUntilServing();
  const auto call = StartCall(16000);
  WaitForTokens(1, /*all=*/false);
  server_->Signal(SIGTERM);
  EXPECT_EQ(server_->Wait(), 0);
  EXPECT_TRUE(Said("requests still running are aborted"));
  EXPECT_FALSE(call->ReadToTheEnd().ok());
}

TEST_F(ServeTest, WatchersOfItsHealthAreToldAndDoNotKeepIt) {
  Start(alphabet::Path());
  WaitUntilServing();
  GenericCall watch(data_address(), "/grpc.health.v1.Health/Watch");
  watch.Write(HealthRequest(kInference));
  std::string bytes;
  ASSERT_TRUE(watch.Read(&bytes));
  EXPECT_EQ(HealthFromBytes(bytes), Health::kServing);
  server_->Signal(SIGTERM);
  ASSERT_TRUE(watch.Read(&bytes));
  EXPECT_EQ(HealthFromBytes(bytes), Health::kNotServing);
  EXPECT_EQ(server_->Wait(), 0);
}

TEST_F(ServeTest, ItsServicesCanBeFoundByReflection) {
  Start(alphabet::Path());
  GenericCall reflection(data_address(),
                         "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo");
  const grpc::Slice list_services(std::string("\x3A\x00", 2));  // field 7, a string, empty
  reflection.Write(grpc::ByteBuffer(&list_services, 1));
  std::string bytes;
  ASSERT_TRUE(reflection.Read(&bytes));
  EXPECT_NE(bytes.find(kInference), std::string::npos);
  EXPECT_EQ(bytes.find(kControl), std::string::npos);  // on its own listener
}

// gRPC's own limit would be 4 MiB.
TEST_F(ServeTest, TakesMessagesOfManyMegabytes) {
  Start(alphabet::Path());
  WaitUntilServing();
  grpc::ClientContext context;
  v1::TokenizeRequest request;
  v1::TokenizeResponse response;
  request.set_text(std::string(5 << 20, '!'));
  const grpc::Status status = stub_->Tokenize(&context, request, &response);
  EXPECT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(response.ids_size(), 5 << 20);
}

TEST_F(ServeTest, SaysWhatItServesAndWhere) {
  Start(alphabet::Path(), {"--host-experts", "2", "--kv-tokens", "4096", "--context", "100"});
  WaitUntilServing();
  server_->Signal(SIGTERM);
  EXPECT_EQ(server_->Wait(), 0);
  for (const std::string& part : std::vector<std::string>{
           alphabet::Path() + ": ", ", 2 layers, hidden 64, 4 experts, 2 per token",
           "KV cache 1.0 MB (4096 tokens), steps of 512 tokens ", "; context 100 tokens",
           "experts: 4 of 8 fit in memory (", absl::StrCat("serving on ", data_address(), ";")}) {
    EXPECT_TRUE(Said(part)) << part << "\n" << server_->err();
  }
  EXPECT_FALSE(Said("no tokenizer"));
  EXPECT_FALSE(Said("template"));
}

TEST_F(ServeTest, ATemplateThatDoesNotCompileIsAWarning) {
  TemporaryFile model("broken.gguf");
  alphabet::WriteVariant("{% endfor %}", "{% endfog %}", model.path());
  Start(model.path(), {"--log-level", "warn"});
  WaitUntilServing();
  EXPECT_TRUE(GenerateOne().ok());
  server_->Signal(SIGTERM);
  EXPECT_EQ(server_->Wait(), 0);
  EXPECT_TRUE(Said("the chat template does not compile"));
  EXPECT_FALSE(Said("serving on"));  // that is information, not a warning
}

}  // namespace
}  // namespace thermocline
