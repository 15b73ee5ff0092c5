// ForwardPass: one step's inputs in device memory, scratch memory, and the ways to reach KV and
// experts.
#ifndef THERMOCLINE_ENGINE_PASS_FORWARD_PASS_H_
#define THERMOCLINE_ENGINE_PASS_FORWARD_PASS_H_

#include <functional>
#include <initializer_list>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/pass/kv_cache.h"
#include "engine/pass/routed_experts.h"
#include "engine/pass/scratch.h"
#include "engine/pass/stage_clock.h"
#include "kernels/backend.h"
#include "scheduler/batch.h"

namespace thermocline {

// Sees the residual stream: layer 0 is the embedding, layer l the output of the l-th; [N, hidden]
// f32 in host memory.
using HiddenObserver =
    std::function<void(int layer, const Batch& batch, absl::Span<const float> hidden)>;

class ForwardPass {
 public:
  struct Resources {
    Backend* backend = nullptr;
    KvCache* kv_cache = nullptr;
    RoutedExperts* experts = nullptr;
    Scratch* scratch = nullptr;
    const HiddenObserver* observer = nullptr;  // null or empty: nobody looks
    StageClock* clock = nullptr;               // null: nobody counts
  };

  // Enqueues the copies of the batch's arrays. `batch` outlives the pass.
  ForwardPass(const Resources& resources, const Batch& batch);

  DenseOps& ops() const { return *resources_.backend->dense; }
  Device& device() const { return *resources_.backend->device; }
  KvCache& kv_cache() const { return *resources_.kv_cache; }
  RoutedExperts& experts() const { return *resources_.experts; }
  Scratch& scratch() const { return *resources_.scratch; }

  int64_t num_tokens() const { return batch_.num_tokens(); }
  absl::Span<const TokenRole> roles_of_tokens() const { return batch_.roles; }  // in host memory
  int64_t num_logits() const { return static_cast<int64_t>(batch_.logits_rows.size()); }
  // i32 arrays in device memory, uploaded once a step.
  const TensorView& roles() const { return roles_; }                // [N]
  const TensorView& logits_roles() const { return logits_roles_; }  // [num logits]
  const TensorView& token_ids() const { return token_ids_; }        // [N]
  const TensorView& positions() const { return positions_; }        // [N]
  const TensorView& seq_idx() const { return seq_idx_; }            // [N]
  const TensorView& slot_mapping() const { return slot_mapping_; }  // [N]
  const TensorView& block_tables() const { return block_tables_; }  // [S, max_blocks]
  const TensorView& logits_rows() const { return logits_rows_; }    // [num logits]

  // Elements [first, first + count) of a mixer's fixed-size state, with the batch's sequences.
  StateArgs State(int mixer, int64_t first, int64_t count) const;

  // Scratch in device memory, contents undefined, valid until the enclosing ScratchScope or the
  // step ends.
  TensorView NewTensor(std::initializer_list<int64_t> shape, DType dtype = DType::kF32);
  // After the embedding (layer 0) and after every layer: looks for NaN and infinity, lets the
  // observer see. hidden [N, hidden] f32.
  absl::Status Observe(int layer, const TensorView& hidden);
  // DenseOps::StoreKv into the mixer's cache; what its type cannot hold is a fault.
  void StoreKv(int mixer, const TensorView& k, const TensorView& v);
  // Looks at the logits too, then waits for the pass. Per sequence: OK, or INTERNAL naming the
  // first thing that was NaN, infinite or too large for the KV cache, with layer and position. The
  // outer status is the device's. logits [num logits, vocab] f32.
  absl::StatusOr<std::vector<absl::Status>> TakeFaults(const TensorView& logits);
  // Tokens whose results lack an expert: their sequences end with its error.
  void Lose(const std::vector<RoutedExperts::LostRow>& rows);
  // What was enqueued since the last call was `stage`.
  void Done(Stage stage) {
    if (resources_.clock != nullptr) resources_.clock->Done(stage);
  }

 private:
  struct Check {
    const char* what;  // with the layer's number behind it, unless that is negative
    int layer;
    float limit;  // of magnitudes
  };

  // Notes the check and returns its code.
  int32_t Code(const Check& check);
  absl::Status FaultOf(int32_t code, int32_t position) const;
  TensorView Zeros(int64_t count);
  TensorView Upload(const void* values, std::initializer_list<int64_t> shape);

  Resources resources_;
  const Batch& batch_;
  std::vector<TokenRole> roles_of_logits_;
  TensorView roles_, logits_roles_, token_ids_, positions_, seq_idx_, slot_mapping_, block_tables_,
      logits_rows_;
  TensorView state_slots_, cu_seqlens_;
  std::vector<Check> checks_;  // code i + 1 stands for checks_[i]
  std::vector<RoutedExperts::LostRow> lost_;
  TensorView faults_;         // [N] i32: 0, or the code of the first check that failed
  TensorView logits_faults_;  // [num logits] i32, likewise
};

// Gives back the scratch taken since its construction.
class ScratchScope {
 public:
  explicit ScratchScope(ForwardPass* pass) : scratch_(pass->scratch()), mark_(scratch_.Mark()) {}
  ~ScratchScope() { scratch_.Release(mark_); }
  ScratchScope(const ScratchScope&) = delete;
  ScratchScope& operator=(const ScratchScope&) = delete;

 private:
  Scratch& scratch_;
  Scratch::Position mark_;
};

}  // namespace thermocline

#endif  // THERMOCLINE_ENGINE_PASS_FORWARD_PASS_H_
