// What memory one step takes, beside weights and KV cache: found by running the model over a
// backend that computes nothing.
#ifndef THERMOCLINE_ENGINE_STEP_MEMORY_H_
#define THERMOCLINE_ENGINE_STEP_MEMORY_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "engine/model/model.h"
#include "kernels/backend.h"

namespace thermocline {

// The largest step.
struct StepShape {
  int tokens = 0;
  int seqs = 0;
  int logits_rows = 0;     // at most tokens
  int blocks_per_seq = 0;  // of KV
  int expert_width = 0;    // of the widest expert; 0: the model has none
};

struct StepMemory {
  int64_t scratch = 0;  // bytes of tensors in the dense device's memory
  int64_t arrays = 0;   // bytes of host memory around the pass: batch, routing, logits
  StepSizes sizes;      // what backends take their own memory for (Backend::workspace_bytes)
};

// The model's weights, which may be there or not, are nowhere afterwards.
absl::StatusOr<StepMemory> MeasureStep(const Checkpoint& checkpoint, const StepShape& shape,
                                       DType kv_dtype, Model* model);

}  // namespace thermocline

#endif  // THERMOCLINE_ENGINE_STEP_MEMORY_H_
