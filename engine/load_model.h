// LoadModel: from a path and options to everything that a step needs, within the memory budget.
#ifndef THERMOCLINE_ENGINE_LOAD_MODEL_H_
#define THERMOCLINE_ENGINE_LOAD_MODEL_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "cache/kv_block_pool.h"
#include "engine/engine_options.h"
#include "engine/memory_plan.h"
#include "engine/model/model.h"
#include "engine/pass/expert_store.h"
#include "engine/pass/kv_cache.h"
#include "engine/pass/scratch.h"
#include "engine/text/tokenizer/tokenizer.h"
#include "engine/weights/expert_files.h"
#include "engine/weights/weight_store.h"

namespace thermocline {

struct LoadedModel {
  int64_t kv_bytes() const { return plan.kv_bytes(needs) + needs.states; }

  // In construction order: later ones refer to earlier ones.
  std::unique_ptr<Checkpoint> checkpoint;
  std::unique_ptr<Tokenizer> tokenizer;  // null: none
  std::string tokenizer_error;
  std::unique_ptr<Model> model;
  std::unique_ptr<WorkerPool> pool;
  std::unique_ptr<Backend> host_backend;  // tier 1; the dense backend too, unless a test gives one
  std::unique_ptr<Backend> other_dense_backend;
  std::unique_ptr<Backend> device_backend;
  Backend* dense_backend = nullptr;
  std::unique_ptr<WeightStore> weights;
  std::unique_ptr<ExpertFiles> expert_files;
  std::unique_ptr<Placement> placement;
  MemoryNeeds needs;
  MemoryPlan plan;
  std::unique_ptr<ExpertStore> experts;
  DType kv_dtype = DType::kF16;
  int64_t max_context = 0;  // tokens of one sequence
  std::unique_ptr<KvBlockPool> kv_pool;
  std::unique_ptr<KvCache> kv_cache;
  std::unique_ptr<Scratch> scratch;
};

// Slow. Takes the backends out of `options` and fills in what they leave open (backend options and
// the scheduler's); read_memory must be set. Errors say what is wrong with which file or option;
// RESOURCE_EXHAUSTED says what each part of the memory would need.
absl::StatusOr<std::unique_ptr<LoadedModel>> LoadModel(EngineOptions* options);

}  // namespace thermocline

#endif  // THERMOCLINE_ENGINE_LOAD_MODEL_H_
