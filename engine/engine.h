// Engine: a loaded model with its scheduler, caches and step loop. Knows no RPC.
#ifndef THERMOCLINE_ENGINE_ENGINE_H_
#define THERMOCLINE_ENGINE_ENGINE_H_

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/engine_options.h"
#include "engine/load_model.h"
#include "engine/text/text_stream.h"
#include "kernels/mutex.h"
#include "scheduler/scheduler.h"

namespace thermocline {

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
  double expert_seconds = 0.0;              // in the experts of all layers, summed
  double expert_seconds_predicted = 0.0;    // by the cost model
  int64_t expert_bytes_allowed = 0;         // of the host's slots, by the limits of now
  int64_t expert_bytes_read = 0;            // from the files, with what direct reads add
  bool filling = false;                     // experts are still to come in
  absl::Status expert_failure;              // the first expert that could not be read
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

  const ModelDims& dims() const { return loaded_->model->dims(); }
  const Checkpoint& checkpoint() const { return *loaded_->checkpoint; }
  // Null for models without a tokenizer.
  const Tokenizer* tokenizer() const { return loaded_->tokenizer.get(); }
  int64_t max_context() const { return loaded_->max_context; }
  int64_t kv_bytes() const { return loaded_->kv_bytes(); }
  DType kv_dtype() const { return loaded_->kv_dtype; }
  const WeightStore& weights() const { return *loaded_->weights; }
  const ExpertStore& experts() const { return *loaded_->experts; }
  const ExpertFiles& expert_files() const { return *loaded_->expert_files; }
  const MemoryNeeds& memory_needs() const { return loaded_->needs; }
  const MemoryPlan& memory_plan() const { return loaded_->plan; }
  // Memory of the steps so far, and what the plan gives them.
  int64_t scratch_bytes() const { return loaded_->scratch->capacity_bytes(); }
  int64_t scratch_peak() const { return loaded_->scratch->peak_bytes(); }
  int64_t scratch_reserve() const { return loaded_->scratch->reserve_bytes(); }
  const std::string& DescribeBackend() const { return loaded_->dense_backend->description; }
  // Which kernel computes what of this model, for the log.
  std::vector<std::string> DescribeKernels() const;
  int num_threads() const { return loaded_->pool->num_threads(); }
  const std::string& tokenizer_error() const { return loaded_->tokenizer_error; }

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

  // Sleeps until a request or a cancellation comes, or Stop. What is still to be read of the
  // experts is read meanwhile. False: Stop.
  bool AwaitWork();
  bool IsCalled() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return stop_ || !inbox_.empty() || !cancels_.empty();
  }
  // Experts give up memory when the limits of the control groups say so, and take it again.
  void FollowMemoryLimits(double now);
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

  EngineOptions options_;
  std::unique_ptr<LoadedModel> loaded_;
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
  double next_look_at_limits_ = 0.0;
};

}  // namespace thermocline

#endif  // THERMOCLINE_ENGINE_ENGINE_H_
