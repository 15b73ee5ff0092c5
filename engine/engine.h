// Engine: a loaded model with its scheduler, caches and step loop. Knows no RPC.
#ifndef THERMOCLINE_ENGINE_ENGINE_H_
#define THERMOCLINE_ENGINE_ENGINE_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/engine_options.h"
#include "engine/engine_snapshot.h"
#include "engine/load_model.h"
#include "engine/request_table.h"
#include "kernels/mutex.h"
#include "scheduler/scheduler.h"

namespace thermocline {

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
  EngineSnapshot Snapshot() const;
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
  // What steps compute in.
  const Scratch& scratch() const { return *loaded_->scratch; }
  const std::string& DescribeBackend() const { return loaded_->dense_backend->description; }
  // Which kernel computes what of this model, for the log.
  std::vector<std::string> DescribeKernels() const;
  // Lent to the engine thread between steps.
  WorkerPool* pool() { return loaded_->pool.get(); }
  const std::string& tokenizer_error() const { return loaded_->tokenizer_error; }

 private:
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
  void Admit(ServedRequest request);
  void ExpireDeadlines(double now);
  // Logits of the wanted rows, and each sequence's faults (ForwardPass::TakeFaults).
  absl::StatusOr<std::vector<absl::Status>> RunBatch(const Batch& batch,
                                                     std::vector<float>* logits);
  // Observers see every row; requests get the logits of their prompts and the tokens that follow.
  void DeliverRows(const Batch& batch, absl::Span<const float> logits, double now);
  void Finish(RequestId id, const RequestTable::End& end);
  void Publish();

  EngineOptions options_;
  std::unique_ptr<LoadedModel> loaded_;
  std::unique_ptr<Scheduler> scheduler_;
  std::unique_ptr<RequestTable> requests_;  // that the scheduler has

  // Where other threads meet the engine thread.
  mutable Mutex mutex_;
  CondVar wake_;
  std::vector<ServedRequest> inbox_ ABSL_GUARDED_BY(mutex_);
  std::vector<RequestId> cancels_ ABSL_GUARDED_BY(mutex_);
  EngineSnapshot snapshot_ ABSL_GUARDED_BY(mutex_);
  RequestId next_id_ ABSL_GUARDED_BY(mutex_) = 1;
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  StepStats steps_;
  std::unique_ptr<StageClock> clock_;
  double next_look_at_limits_ = 0.0;
};

}  // namespace thermocline

#endif  // THERMOCLINE_ENGINE_ENGINE_H_
