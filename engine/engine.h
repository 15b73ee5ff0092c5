// Engine: a loaded model with its scheduler, caches and step loop. Knows no RPC.
#ifndef THERMOCLINE_ENGINE_ENGINE_H_
#define THERMOCLINE_ENGINE_ENGINE_H_

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/expert_store.h"
#include "engine/forward_pass.h"
#include "engine/kv_cache.h"
#include "engine/models/model.h"
#include "engine/request.h"
#include "engine/text_stream.h"
#include "engine/tokenizer/tokenizer.h"
#include "engine/weight_store.h"
#include "kernels/mutex.h"
#include "scheduler/scheduler.h"

namespace thermocline {

struct EngineOptions {
  std::string model_path;
  std::string backend = "cpu";
  int num_threads = 0;      // 0: one a core that this process may use
  bool pin_threads = true;  // to cores of their own, if they have all of the machine's
  BackendOptions backend_options;
  std::optional<Activations> activations;  // unset: int8, or f32 for models stored as F32
  std::optional<DType> kv_dtype;           // unset: F16, or F32 for models stored as F32
  MlaForm mla_form = MlaForm::kAbsorbed;   // of models with latent attention
  int64_t max_context = 0;                 // tokens of one sequence; 0: the model's own limit
  int64_t kv_tokens = 0;  // tokens of all sequences; 0: chosen from the memory that is free
  int block_size = 16;
  int max_waiting = 256;  // requests in the queue
  SchedulerOptions scheduler;
  // Slots of each tier, per layer. Unset: all experts fit in host memory.
  std::optional<int> host_experts;
  std::string expert_policy = "lru";
  LoadProgress progress;
  std::function<double()> now;  // seconds, monotonic; unset: steady_clock
  // Bytes that may still be taken; unset: AvailableMemoryBytes.
  std::function<int64_t()> available_memory;

  // For tests: a second device that holds the first `device_experts` experts of every layer,
  // another dense backend, and harsher memory.
  std::unique_ptr<Backend> dense_backend;
  std::unique_ptr<Backend> device_backend;
  int device_experts = 0;
  bool poison_evicted = false;
  std::optional<uint64_t> shuffle_kv_seed;
  HiddenObserver hidden_observer;
  // Every row of logits: request, position of the token it follows.
  std::function<void(RequestId, int64_t position, absl::Span<const float> logits)> logits_observer;
};

// A consistent picture of the engine after its last step.
struct EngineLoad {
  int num_running = 0;
  int num_waiting = 0;
  int kv_blocks_used = 0;
  int kv_blocks_total = 0;
  int64_t num_steps = 0;
  int64_t prompt_tokens = 0;     // computed
  int64_t generated_tokens = 0;  // delivered
  int64_t num_preemptions = 0;
  double step_seconds = 0.0;  // summed
  StageSeconds stage_seconds = {};
  int64_t expert_bytes_computed = 0;
  bool draining = false;
  std::vector<ExpertStats> experts;         // per layer, host tier
  std::vector<std::vector<int64_t>> heat;   // [layer][expert]: tokens routed since the start
  std::vector<std::vector<bool>> resident;  // [layer][expert]: in host memory
};

class Engine {
 public:
  // Loads the model; slow. Errors say what is wrong with which file or option.
  static absl::StatusOr<std::unique_ptr<Engine>> Create(EngineOptions options);
  ~Engine();

  // ---- any thread ----

  // Queues a validated request; output goes to `sink` from the engine thread. RESOURCE_EXHAUSTED
  // when the queue is full, UNAVAILABLE when draining, INVALID_ARGUMENT from validation.
  absl::StatusOr<RequestId> Submit(GenerateRequest request, std::unique_ptr<ResponseSink> sink);
  // The request ends within one step; unknown ids are ignored.
  void Cancel(RequestId id);
  // Refuses new requests from now on.
  void Drain();
  EngineLoad Load() const;
  double Now() const { return options_.now(); }

  // ---- the engine thread ----

  // One step. False when there was nothing to do.
  bool Step();
  // Steps until Stop, sleeping while idle.
  void Run();
  // Ends Run after the current step. Any thread.
  void Stop();
  // Cancels everything that runs or waits.
  void AbortAll(const absl::Status& status);

  // ---- const after Create ----

  const ModelDims& dims() const { return model_->dims(); }
  const Checkpoint& checkpoint() const { return *checkpoint_; }
  // Null for models without a tokenizer.
  const Tokenizer* tokenizer() const { return tokenizer_.get(); }
  int64_t max_context() const { return max_context_; }
  int64_t kv_bytes() const;
  DType kv_dtype() const { return kv_dtype_; }
  const WeightStore& weights() const { return *weights_; }
  const ExpertStore& experts() const { return *experts_; }
  const ExpertFiles& expert_files() const { return *expert_files_; }
  const std::string& DescribeBackend() const { return dense_backend_->description; }
  int num_threads() const { return pool_->num_threads(); }
  const std::string& tokenizer_error() const { return tokenizer_error_; }

 private:
  struct Active {
    RequestId id = 0;
    GenerateRequest request;
    std::unique_ptr<ResponseSink> sink;
    TextStream text{{}};
    double submitted = 0.0;
    double scheduled = -1.0;
    double first_token = -1.0;
    int64_t num_output = 0;
    int64_t max_output = 0;
  };

  explicit Engine(EngineOptions options);
  absl::Status Initialize();
  absl::Status CreateBackends();
  absl::Status CreateCaches();
  // RESOURCE_EXHAUSTED when the dense weights and the host's expert slots cannot fit: better than
  // being killed while they are read.
  absl::Status CheckWeightMemory(int host_slots) const;
  // RESOURCE_EXHAUSTED when a full step's activations cannot fit: found at load, not at the first
  // large request.
  absl::Status CheckActivationMemory() const;
  absl::Status LoadWeights();

  void DrainInbox();
  void Admit(Active active);
  void ExpireDeadlines(double now);
  // Logits of the wanted rows, and each sequence's faults (ForwardPass::TakeFaults).
  absl::StatusOr<std::vector<absl::Status>> RunBatch(const Batch& batch,
                                                     std::vector<float>* logits);
  void DeliverRow(const Batch& batch, size_t row, absl::Span<const float> logits, double now);
  void DeliverToken(Active* active, absl::Span<const float> logits, double now);
  void Finish(RequestId id, FinishReason reason, const absl::Status& status);
  void PublishLoad();

  // In construction order: later ones refer to earlier ones.
  EngineOptions options_;
  std::unique_ptr<Checkpoint> checkpoint_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::string tokenizer_error_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<WorkerPool> pool_;
  std::unique_ptr<Backend>
      host_backend_;  // tier 1; also the dense backend unless a test gives another
  std::unique_ptr<Backend> other_dense_backend_;
  std::unique_ptr<Backend> device_backend_;
  Backend* dense_backend_ = nullptr;
  std::unique_ptr<WeightStore> weights_;
  std::unique_ptr<ExpertFiles> expert_files_;
  std::unique_ptr<ExpertStore> experts_;
  DType kv_dtype_ = DType::kF16;
  int64_t max_context_ = 0;
  std::unique_ptr<KvBlockPool> kv_pool_;
  std::unique_ptr<KvCache> kv_cache_;
  std::unique_ptr<Scratch> scratch_;
  std::unique_ptr<Scheduler> scheduler_;
  std::map<RequestId, Active> active_;  // submitted to the scheduler

  // Where other threads meet the engine thread.
  mutable Mutex mutex_;
  CondVar wake_;
  std::vector<Active> inbox_ ABSL_GUARDED_BY(mutex_);
  std::vector<RequestId> cancels_ ABSL_GUARDED_BY(mutex_);
  EngineLoad load_ ABSL_GUARDED_BY(mutex_);
  RequestId next_id_ ABSL_GUARDED_BY(mutex_) = 1;
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  int64_t num_steps_ = 0, prompt_tokens_ = 0, generated_tokens_ = 0;
  double step_seconds_ = 0.0;
  std::unique_ptr<StageClock> clock_;
};

}  // namespace thermocline

#endif  // THERMOCLINE_ENGINE_ENGINE_H_
