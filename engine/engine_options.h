// EngineOptions: what model to load, how to compute it, and with how much memory.
#ifndef THERMOCLINE_ENGINE_ENGINE_OPTIONS_H_
#define THERMOCLINE_ENGINE_ENGINE_OPTIONS_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/types/span.h"
#include "engine/model/model.h"
#include "engine/pass/expert_store.h"
#include "engine/pass/forward_pass.h"
#include "engine/request.h"
#include "engine/weights/weight_store.h"
#include "kernels/backend.h"
#include "kernels/host_memory_info.h"
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
  int64_t kv_tokens = 0;  // tokens of all sequences; 0: chosen from the memory budget
  int block_size = 16;
  int max_waiting = 256;  // requests in the queue
  // max_batch_tokens 0: chosen from the memory budget; max_prompt_logits is chosen from it.
  SchedulerOptions scheduler = {.max_batch_tokens = 0};
  // Bytes that the process may hold in all. Unset: what the system and its control groups leave.
  std::optional<int64_t> memory;
  // Slots of each layer in host memory. Unset: as many as the memory budget holds.
  std::optional<int> host_experts;
  std::string expert_policy = "lru";
  // Lines that say where experts are to be (Placement::Parse); those of which they say nothing are
  // placed by the cache.
  std::string placement;
  // Create returns once the dense weights are there; experts come in behind, or with the first step
  // that needs them.
  bool fill_behind = false;
  LoadProgress progress;
  std::function<double()> now;                 // seconds, monotonic; unset: steady_clock
  std::function<MemoryReading()> read_memory;  // unset: ReadMemory

  // For tests: a second device that holds the first `device_experts` experts of every layer,
  // another dense backend, and harsher memory.
  std::unique_ptr<Backend> dense_backend;
  std::unique_ptr<Backend> device_backend;
  int device_experts = 0;
  bool poison_evicted = false;
  ExpertStore::MakeReader make_reader;  // another reader of experts
  std::chrono::nanoseconds read_deadline = std::chrono::seconds(30);
  std::optional<uint64_t> shuffle_kv_seed;
  HiddenObserver hidden_observer;
  // Every row of logits: request, position of the token it follows.
  std::function<void(RequestId, int64_t position, absl::Span<const float> logits)> logits_observer;
};

}  // namespace thermocline

#endif  // THERMOCLINE_ENGINE_ENGINE_OPTIONS_H_
