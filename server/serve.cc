#include "server/serve.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "kernels/host_memory_info.h"
#include "server/engine_watch.h"
#include "server/grpc/control_service.h"
#include "server/grpc/inference_service.h"
#include "server/log.h"
#include "server/metrics.h"

namespace thermocline {
namespace {

constexpr char kInferenceService[] = "thermocline.v1.Inference";
constexpr char kControlService[] = "thermocline.v1.Control";

// SIGTERM and SIGINT are blocked in every thread and taken here.
class SignalWatch {
 public:
  SignalWatch() {
    sigemptyset(&set_);
    sigaddset(&set_, SIGTERM);
    sigaddset(&set_, SIGINT);
    pthread_sigmask(SIG_BLOCK, &set_, nullptr);
    signal(SIGPIPE, SIG_IGN);
  }
  // The signal that came within `milliseconds`, or 0.
  int Wait(int milliseconds) const {
    const timespec timeout = {milliseconds / 1000, (milliseconds % 1000) * 1000000L};
    const int signal = sigtimedwait(&set_, nullptr, &timeout);
    return signal > 0 ? signal : 0;
  }

 private:
  sigset_t set_;
};

struct Listener {
  std::unique_ptr<grpc::Server> server;

  Listener() = default;
  explicit Listener(std::unique_ptr<grpc::Server> s) : server(std::move(s)) {}
  Listener(Listener&&) = default;
  Listener& operator=(Listener&&) = default;
  // Without a deadline gRPC would wait for open streams (a health watch, say) for ever.
  ~Listener() { Shutdown(2.0); }

  void Shutdown(double seconds) const {
    if (server == nullptr) return;
    server->Shutdown(std::chrono::system_clock::now() +
                     std::chrono::milliseconds(static_cast<int64_t>(seconds * 1e3)));
  }

  void SetServing(const char* service, bool serving) const {
    if (server == nullptr || server->GetHealthCheckService() == nullptr) return;
    server->GetHealthCheckService()->SetServingStatus(service, serving);
  }
  void SetAllServing(bool serving) const {
    if (server == nullptr || server->GetHealthCheckService() == nullptr) return;
    server->GetHealthCheckService()->SetServingStatus(serving);
  }
};

absl::StatusOr<Listener> Listen(const std::string& address, grpc::Service* service,
                                int64_t max_message_bytes) {
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort(address, grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(service);
  builder.SetMaxReceiveMessageSize(static_cast<int>(max_message_bytes));
  // SO_REUSEPORT would let a second server share the port in silence.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  // Peers that vanish without a word are noticed within a minute or so.
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 60000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 20000);
  Listener listener(builder.BuildAndStart());
  if (listener.server == nullptr || (port == 0 && address.rfind("unix:", 0) != 0)) {
    return absl::UnavailableError(
        absl::StrCat("cannot listen on ", address, ": in use or not an address"));
  }
  return listener;
}

// Experts of all layers.
int SlotsOfAll(const Engine& engine) {
  int count = 0;
  for (const ExpertLayout& layout : engine.expert_files().layouts()) {
    if (layout.bytes > 0) count += engine.expert_files().num_experts();
  }
  return count;
}

void LogModel(const Engine& engine, const ServeOptions& options) {
  const ModelDims& dims = engine.dims();
  LogInfo(engine.DescribeBackend());
  for (const std::string& line : engine.DescribeKernels()) LogInfo("kernels: " + line);
  LogInfo(absl::StrCat("model ", engine.checkpoint().path(), ": ", dims.architecture, ", ",
                       dims.num_hidden_layers, " layers, hidden ", dims.hidden_size, ", ",
                       dims.num_experts, " experts, ", dims.num_experts_per_tok, " per token"));
  const MemoryPlan& plan = engine.memory_plan();
  LogInfo(absl::StrCat("memory: ", Megabytes(engine.memory_needs().limit),
                       ", of which dense weights ", Megabytes(engine.weights().dense_bytes()),
                       ", KV cache ", Megabytes(engine.kv_bytes()), " (", plan.kv_tokens,
                       " tokens), steps of ", plan.step_tokens, " tokens ",
                       Megabytes(plan.step_bytes), "; context ", engine.max_context(), " tokens"));
  if (dims.num_experts > 0) {
    const int all = SlotsOfAll(engine);
    LogInfo(absl::StrCat("experts: ", engine.experts().num_host_slots(), " of ", all,
                         " fit in memory (", Megabytes(plan.expert_bytes), " of ",
                         Megabytes(engine.expert_files().total_bytes()), ")",
                         plan.all_resident ? "" : ", the others are read when needed"));
  }
  if (const int64_t swap = SwapBytes(); swap > 0) {
    LogWarning(absl::StrCat("the system may move experts to its ", Megabytes(swap),
                            " of swap, which is slower than reading them; swapoff, or a container "
                            "whose memory and swap limits are the same, keeps them in memory"));
  }
  LogInfo(absl::StrCat("experts are read by ", engine.experts().fetcher().reader().Describe()));
  if (engine.tokenizer() == nullptr) {
    LogWarning(
        absl::StrCat("no tokenizer: ", engine.tokenizer_error(), "; only token ids are accepted"));
  }
  const std::string port = options.listen.substr(options.listen.rfind(':') + 1);
  LogInfo(absl::StrCat("serving on ", options.listen,
                       "; try: thermocline-client --address localhost:", port, " chat \"Hello!\""));
}

// True when nothing runs or waits any more and all output is delivered within the time; false after
// a second signal or too long.
bool DrainWithin(Engine* engine, const InferenceService& inference, const SignalWatch& signals,
                 double seconds) {
  const double end = engine->Now() + seconds;
  do {
    const EngineSnapshot snapshot = engine->Snapshot();
    const bool idle = snapshot.num_running == 0 && snapshot.num_waiting == 0;
    if (idle && inference.num_open_calls() == 0) return true;
    if (signals.Wait(50) != 0) return false;
  } while (engine->Now() < end);
  return false;
}

}  // namespace

absl::Status Serve(ServeOptions options) {
  const SignalWatch signals;
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();

  std::atomic<bool> drain_requested{false};
  Metrics metrics;
  InferenceService inference(&metrics);
  ControlService control([&] { drain_requested.store(true); });
  absl::StatusOr<Listener> data =
      Listen(options.listen, inference.service(), options.max_message_bytes);
  if (!data.ok()) return data.status();
  data->SetAllServing(false);
  data->SetServing(kInferenceService, false);
  Listener admin;
  if (!options.control_listen.empty()) {
    absl::StatusOr<Listener> listener = Listen(options.control_listen, control.service(), 1 << 20);
    if (!listener.ok()) return listener.status();
    admin = *std::move(listener);
    admin.SetServing(kControlService, true);
  }
  if (!options.metrics_listen.empty()) {
    if (absl::Status s = metrics.Listen(options.metrics_listen); !s.ok()) return s;
  }

  LogInfo(absl::StrCat("loading ", options.engine.model_path));
  // The model loads on the thread that will run it.
  std::atomic<Engine*> loaded{nullptr};
  std::atomic<bool> load_ended{false};
  absl::Status load_status;
  std::unique_ptr<Engine> engine;
  std::thread engine_thread([&] {
    absl::StatusOr<std::unique_ptr<Engine>> created = Engine::Create(std::move(options.engine));
    load_status = created.status();
    if (created.ok()) engine = *std::move(created);
    loaded.store(engine.get());
    load_ended.store(true);
    if (engine != nullptr) engine->Run();
  });
  bool stop = false;
  while (!load_ended.load() && !stop) stop = signals.Wait(20) != 0;
  while (!load_ended.load()) {  // a load cannot be cut short, but a second signal ends the process
    if (signals.Wait(20) != 0) _exit(1);
  }
  if (engine == nullptr) {
    engine_thread.join();
    return load_status;
  }
  LogModel(*engine, options);
  metrics.SetSource([&engine] { return engine->Snapshot(); });
  control.SetEngine(engine.get());
  if (absl::Status s = inference.SetEngine(engine.get()); !s.ok()) {
    LogWarning(absl::StrCat("the chat template does not compile, Chat is off: ", s.message()));
  }
  data->SetServing(kInferenceService, true);
  data->SetAllServing(true);

  EngineWatch watch(engine->memory_plan().all_resident);
  while (!stop && !drain_requested.load()) {
    for (const EngineWatch::Line& line : watch.Look(engine->Snapshot(), engine->Now())) {
      line.warning ? LogWarning(line.text) : LogInfo(line.text);
    }
    stop = signals.Wait(100) != 0;
  }
  LogInfo("draining: new requests are refused, running ones finish");
  data->SetServing(kInferenceService, false);
  data->SetAllServing(false);
  engine->Drain();
  const bool clean = DrainWithin(engine.get(), inference, signals, options.drain_seconds);
  if (!clean) LogWarning("requests still running are aborted");
  engine->Stop();
  engine_thread.join();
  engine->AbortAll(absl::UnavailableError("the server is stopping"));
  // What is left are health watches and reflection streams.
  data->Shutdown(1.0);
  admin.Shutdown(1.0);
  metrics.SetSource(nullptr);
  LogInfo("stopped");
  return absl::OkStatus();
}

}  // namespace thermocline
