#include "engine/step_memory.h"

#include <algorithm>

#include "engine/pass/forward_pass.h"
#include "engine/weights/weight_store.h"
#include "kernels/null_backend.h"

namespace thermocline {
namespace {

// Notes what comes to a layer's experts.
class NoExperts : public RoutedExperts {
 public:
  explicit NoExperts(StepSizes* sizes) : sizes_(*sizes) {}

  absl::Status Plan(int, const TensorView& x, absl::Span<const TokenRole>,
                    const TensorView& ids) override {
    sizes_.expert_tokens = std::max(sizes_.expert_tokens, x.rows());
    sizes_.expert_pairs = std::max(sizes_.expert_pairs, ids.num_elems());
    sizes_.expert_cols = std::max(sizes_.expert_cols, x.cols());
    return absl::OkStatus();
  }
  void Start(Activation, const TensorView&) override {}
  absl::StatusOr<std::vector<LostRow>> Finish() override { return std::vector<LostRow>(); }

 private:
  StepSizes& sizes_;
};

// Values do not matter, only how many there are.
Batch BatchOf(const StepShape& shape) {
  const size_t tokens = static_cast<size_t>(shape.tokens), seqs = static_cast<size_t>(shape.seqs);
  Batch batch;
  for (std::vector<int32_t>* values :
       {&batch.token_ids, &batch.positions, &batch.seq_idx, &batch.slot_mapping}) {
    values->assign(tokens, 0);
  }
  batch.roles.assign(tokens, TokenRole::kPrompt);
  batch.seq_ids.assign(seqs, 0);
  batch.cu_seqlens.assign(seqs + 1, 0);
  batch.state_slots.assign(seqs, 0);
  batch.max_blocks = shape.blocks_per_seq;
  batch.block_tables.assign(seqs * static_cast<size_t>(shape.blocks_per_seq), 0);
  for (int row = 0; row < std::min(shape.logits_rows, shape.tokens); ++row) {
    batch.logits_rows.push_back(row);
  }
  return batch;
}

}  // namespace

absl::StatusOr<StepMemory> MeasureStep(const Checkpoint& checkpoint, const StepShape& shape,
                                       DType kv_dtype, Model* model) {
  constexpr int64_t kEndless = int64_t{1} << 45;  // addresses cost nothing
  StepMemory memory;
  const std::unique_ptr<Backend> backend = MakeNullBackend(&memory.sizes);
  absl::StatusOr<std::unique_ptr<WeightStore>> weights =
      WeightStore::Create(&checkpoint, TensorsOf(model), backend->device.get());
  if (!weights.ok()) return weights.status();
  if (absl::Status s = (*weights)->Allocate(); !s.ok()) return s;
  absl::StatusOr<std::unique_ptr<KvCache>> kv_cache =
      KvCache::Create(backend->device.get(), model->dims(),
                      {.dtype = kv_dtype, .num_blocks = 1, .block_size = 1, .num_state_slots = 1});
  if (!kv_cache.ok()) return kv_cache.status();
  NoExperts experts(&memory.sizes);
  Scratch scratch(backend->device.get(), kEndless);
  const Batch batch = BatchOf(shape);
  ForwardPass pass({.backend = backend.get(),
                    .kv_cache = kv_cache->get(),
                    .experts = &experts,
                    .scratch = &scratch,
                    .observer = nullptr,
                    .clock = nullptr},
                   batch);
  absl::StatusOr<TensorView> logits = model->Forward(&pass);
  if (!logits.ok()) return logits.status();
  memory.scratch = scratch.peak_bytes();
  memory.sizes.expert_width = shape.expert_width;
  constexpr int64_t kWord = sizeof(int32_t);
  constexpr int64_t kRowsOfPair = 5;   // as chosen, sorted by expert, and where results go
  constexpr int64_t kRowsOfToken = 8;  // of the batch, and faults
  memory.arrays = logits->bytes() + kRowsOfPair * kWord * memory.sizes.expert_pairs +
                  kRowsOfToken * kWord * shape.tokens;
  return memory;
}

}  // namespace thermocline
