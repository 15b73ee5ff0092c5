#include "engine/forward_pass.h"

namespace thermocline {

ForwardPass::ForwardPass(const Resources& resources, const Batch& batch)
    : resources_(resources), batch_(batch) {
  token_ids_ = Upload(batch.token_ids, {num_tokens()});
  positions_ = Upload(batch.positions, {num_tokens()});
  seq_idx_ = Upload(batch.seq_idx, {num_tokens()});
  slot_mapping_ = Upload(batch.slot_mapping, {num_tokens()});
  block_tables_ = Upload(batch.block_tables, {batch.num_seqs(), batch.max_blocks});
  for (int32_t row : batch.logits_rows)
    logits_roles_.push_back(batch.roles[static_cast<size_t>(row)]);
  logits_rows_ = Upload(batch.logits_rows, {num_logits()});
  state_slots_ = Upload(batch.state_slots, {batch.num_seqs()});
  cu_seqlens_ = Upload(batch.cu_seqlens, {batch.num_seqs() + 1});
}

StateArgs ForwardPass::State(int mixer, int64_t first, int64_t count) const {
  TensorView part = kv_cache().state(mixer);
  TC_CHECK(first + count <= part.cols());
  part.data = static_cast<char*>(part.data) + BytesOf(DType::kF32, first);
  part.shape[1] = count;
  return {part, state_slots_, cu_seqlens_, positions_};
}

TensorView ForwardPass::NewTensor(std::initializer_list<int64_t> shape, DType dtype) {
  TensorView view = MakeView(nullptr, dtype, shape);
  view.data = resources_.scratch->Allocate(view.bytes());
  return view;
}

TensorView ForwardPass::Upload(const std::vector<int32_t>& values,
                               std::initializer_list<int64_t> shape) {
  const TensorView view = NewTensor(shape, DType::kI32);
  backend().CopyFromHost(values.data(), view.data, view.bytes());
  return view;
}

absl::Status ForwardPass::Observe(int layer, const TensorView& hidden) {
  if (resources_.observer == nullptr || !*resources_.observer) return absl::OkStatus();
  std::vector<float> host(static_cast<size_t>(hidden.num_elems()));
  backend().CopyToHost(hidden.data, host.data(), hidden.bytes());
  if (absl::Status s = backend().Synchronize(); !s.ok()) return s;
  (*resources_.observer)(layer, batch_, host);
  return absl::OkStatus();
}

}  // namespace thermocline
