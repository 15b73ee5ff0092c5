#include "server/grpc/control_service.h"

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <chrono>

#include "server/grpc/convert.h"
#include "server/version.h"
#include "thermocline/v1/control.grpc.pb.h"

namespace thermocline {

class ControlService::Impl : public v1::Control::CallbackService {
 public:
  explicit Impl(std::function<void()> drain) : drain_(std::move(drain)) {}

  void SetEngine(Engine* engine) { engine_.store(engine, std::memory_order_release); }

  grpc::ServerUnaryReactor* GetServerInfo(grpc::CallbackServerContext* context,
                                          const v1::GetServerInfoRequest*,
                                          v1::ServerInfo* info) override {
    info->set_version(kVersion);
    info->set_uptime_seconds(
        std::chrono::duration<double>(std::chrono::steady_clock::now() - started_).count());
    Engine* engine = engine_.load(std::memory_order_acquire);
    info->set_state(engine == nullptr             ? "loading"
                    : engine->Snapshot().draining ? "draining"
                                                  : "serving");
    if (engine != nullptr) info->set_backend(engine->DescribeBackend());
    return Done(context, grpc::Status::OK);
  }

  grpc::ServerUnaryReactor* GetModelInfo(grpc::CallbackServerContext* context,
                                         const v1::GetModelInfoRequest*,
                                         v1::ModelInfo* info) override {
    Engine* engine = engine_.load(std::memory_order_acquire);
    if (engine == nullptr) return Done(context, Loading());
    const ModelDims& dims = engine->dims();
    info->set_path(engine->checkpoint().path());
    info->set_architecture(dims.architecture);
    info->set_vocab_size(dims.vocab_size);
    info->set_hidden_size(dims.hidden_size);
    info->set_num_hidden_layers(dims.num_hidden_layers);
    info->set_num_experts(dims.num_experts);
    info->set_num_experts_per_tok(dims.num_experts_per_tok);
    info->set_max_context(engine->max_context());
    info->set_weight_bytes(engine->weights().dense_bytes() + engine->expert_files().total_bytes());
    info->set_kv_cache_bytes(engine->kv_bytes());
    info->set_has_tokenizer(engine->tokenizer() != nullptr);
    info->set_has_chat_template(engine->tokenizer() != nullptr &&
                                !engine->tokenizer()->chat_template().empty());
    return Done(context, grpc::Status::OK);
  }

  grpc::ServerUnaryReactor* GetLoad(grpc::CallbackServerContext* context, const v1::GetLoadRequest*,
                                    v1::LoadInfo* info) override {
    Engine* engine = engine_.load(std::memory_order_acquire);
    if (engine == nullptr) return Done(context, Loading());
    const EngineSnapshot snapshot = engine->Snapshot();
    info->set_requests_running(snapshot.num_running);
    info->set_requests_waiting(snapshot.num_waiting);
    info->set_kv_blocks_used(snapshot.kv_blocks_used);
    info->set_kv_blocks_total(snapshot.kv_blocks_total);
    info->set_steps(snapshot.num_steps);
    info->set_prompt_tokens(snapshot.prompt_tokens);
    info->set_generated_tokens(snapshot.generated_tokens);
    info->set_preemptions(snapshot.num_preemptions);
    return Done(context, grpc::Status::OK);
  }

  grpc::ServerUnaryReactor* GetExpertMap(grpc::CallbackServerContext* context,
                                         const v1::GetExpertMapRequest*,
                                         v1::ExpertMap* map) override {
    Engine* engine = engine_.load(std::memory_order_acquire);
    if (engine == nullptr) return Done(context, Loading());
    const EngineSnapshot snapshot = engine->Snapshot();
    for (size_t l = 0; l < snapshot.heat.size(); ++l) {
      v1::ExpertMap::Layer* layer = map->add_layers();
      layer->set_layer(static_cast<int32_t>(l));
      layer->mutable_tokens()->Assign(snapshot.heat[l].begin(), snapshot.heat[l].end());
      layer->mutable_resident()->Assign(snapshot.resident[l].begin(), snapshot.resident[l].end());
      layer->set_hits(snapshot.experts[l].hits);
      layer->set_misses(snapshot.experts[l].misses);
      layer->set_evictions(snapshot.experts[l].evictions);
      layer->set_bytes_read(snapshot.experts[l].bytes_read);
    }
    return Done(context, grpc::Status::OK);
  }

  grpc::ServerUnaryReactor* Drain(grpc::CallbackServerContext* context, const v1::DrainRequest*,
                                  v1::DrainResponse*) override {
    drain_();
    return Done(context, grpc::Status::OK);
  }

 private:
  static grpc::Status Loading() {
    return ToGrpc(absl::UnavailableError("the model is still loading"));
  }
  static grpc::ServerUnaryReactor* Done(grpc::CallbackServerContext* context,
                                        const grpc::Status& status) {
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    reactor->Finish(status);
    return reactor;
  }

  std::function<void()> drain_;
  std::atomic<Engine*> engine_{nullptr};
  const std::chrono::steady_clock::time_point started_ = std::chrono::steady_clock::now();
};

ControlService::ControlService(std::function<void()> drain)
    : impl_(std::make_unique<Impl>(std::move(drain))) {}
ControlService::~ControlService() = default;
grpc::Service* ControlService::service() { return impl_.get(); }
void ControlService::SetEngine(Engine* engine) { impl_->SetEngine(engine); }

}  // namespace thermocline
