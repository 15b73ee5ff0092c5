// EngineSnapshot: a consistent picture of the engine after its last step.
#ifndef THERMOCLINE_ENGINE_ENGINE_SNAPSHOT_H_
#define THERMOCLINE_ENGINE_ENGINE_SNAPSHOT_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "engine/load_model.h"
#include "scheduler/scheduler.h"

namespace thermocline {

// Of all steps since the start.
struct StepStats {
  int64_t num_steps = 0;
  int64_t prompt_tokens = 0;     // computed
  int64_t generated_tokens = 0;  // delivered
  double step_seconds = 0.0;     // summed
  StageSeconds stage_seconds = {};
};

struct EngineSnapshot : StepStats {
  int num_running = 0;
  int num_waiting = 0;
  bool draining = false;
  int kv_blocks_used = 0;
  int kv_blocks_total = 0;
  int64_t num_preemptions = 0;
  int64_t expert_bytes_computed = 0;
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

// The engine thread. `draining` is left to the caller.
EngineSnapshot TakeSnapshot(const StepStats& steps, const Scheduler& scheduler,
                            const LoadedModel& model);

}  // namespace thermocline

#endif  // THERMOCLINE_ENGINE_ENGINE_SNAPSHOT_H_
