#include "engine/pass/forward_pass.h"

#include <limits>
#include <string>

#include "absl/strings/str_cat.h"

namespace thermocline {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

}  // namespace

ForwardPass::ForwardPass(const Resources& resources, const Batch& batch)
    : resources_(resources), batch_(batch) {
  token_ids_ = Upload(batch.token_ids.data(), {num_tokens()});
  positions_ = Upload(batch.positions.data(), {num_tokens()});
  seq_idx_ = Upload(batch.seq_idx.data(), {num_tokens()});
  slot_mapping_ = Upload(batch.slot_mapping.data(), {num_tokens()});
  block_tables_ = Upload(batch.block_tables.data(), {batch.num_seqs(), batch.max_blocks});
  for (int32_t row : batch.logits_rows)
    roles_of_logits_.push_back(batch.roles[static_cast<size_t>(row)]);
  roles_ = Upload(batch.roles.data(), {num_tokens()});
  logits_roles_ = Upload(roles_of_logits_.data(), {num_logits()});
  logits_rows_ = Upload(batch.logits_rows.data(), {num_logits()});
  state_slots_ = Upload(batch.state_slots.data(), {batch.num_seqs()});
  cu_seqlens_ = Upload(batch.cu_seqlens.data(), {batch.num_seqs() + 1});
  faults_ = Zeros(num_tokens());
  logits_faults_ = Zeros(num_logits());
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

TensorView ForwardPass::Upload(const void* values, std::initializer_list<int64_t> shape) {
  const TensorView view = NewTensor(shape, DType::kI32);
  device().Copy(Queue::kCompute, values, view.data, view.bytes());
  return view;
}

TensorView ForwardPass::Zeros(int64_t count) {
  const TensorView view = NewTensor({count}, DType::kI32);
  ops().Fill(MakeView(view.data, DType::kF32, {count}), 0.0f);  // the same bits
  return view;
}

int32_t ForwardPass::Code(const Check& check) {
  checks_.push_back(check);
  return static_cast<int32_t>(checks_.size());
}

absl::Status ForwardPass::FaultOf(int32_t code, int32_t position) const {
  const Check& check = checks_[static_cast<size_t>(code - 1)];
  std::string message = absl::StrCat("the ", check.what);
  if (check.layer >= 0) absl::StrAppend(&message, " of layer ", check.layer);
  absl::StrAppend(&message, " at position ", position, " hold NaN or infinity");
  if (check.limit < kInfinity) {
    const TensorView& keys = kv_cache().keys(check.layer);
    absl::StrAppend(&message, ", or numbers too large for a KV cache of ",
                    GetFormat(keys.dtype).name, ", which holds magnitudes below ", check.limit,
                    "; one of F32 or BF16 holds larger ones");
  }
  return absl::InternalError(message);
}

void ForwardPass::StoreKv(int mixer, const TensorView& k, const TensorView& v) {
  const TensorView &keys = kv_cache().keys(mixer), &values = kv_cache().values(mixer);
  const float limit = KvCache::Limit(keys.dtype);
  ops().MarkFaults(k, limit, Code({"keys", mixer, limit}), faults_);
  if (!v.empty()) ops().MarkFaults(v, limit, Code({"values", mixer, limit}), faults_);
  ops().StoreKv(k, v, slot_mapping(), keys, values);
}

absl::StatusOr<std::vector<absl::Status>> ForwardPass::TakeFaults(const TensorView& logits) {
  std::vector<int32_t> faults(static_cast<size_t>(num_tokens()));
  std::vector<int32_t> logits_faults(static_cast<size_t>(num_logits()));
  if (num_logits() > 0) {
    ops().MarkFaults(logits, kInfinity, Code({"logits", -1, kInfinity}), logits_faults_);
  }
  device().Copy(Queue::kCompute, faults_.data, faults.data(), faults_.bytes());
  device().Copy(Queue::kCompute, logits_faults_.data, logits_faults.data(), logits_faults_.bytes());
  if (absl::Status s = device().Synchronize(); !s.ok()) return s;
  for (size_t i = 0; i < logits_faults.size(); ++i) {
    int32_t& fault = faults[static_cast<size_t>(batch_.logits_rows[i])];
    if (fault == 0) fault = logits_faults[i];
  }
  // Of each sequence the fault that came up first: what attention spreads to other tokens is later.
  std::vector<absl::Status> statuses(static_cast<size_t>(batch_.num_seqs()));
  std::vector<int32_t> first(statuses.size(), std::numeric_limits<int32_t>::max());
  for (size_t n = 0; n < faults.size(); ++n) {
    const size_t seq = static_cast<size_t>(batch_.seq_idx[n]);
    if (faults[n] == 0 || faults[n] >= first[seq]) continue;
    first[seq] = faults[n];
    statuses[seq] = FaultOf(faults[n], batch_.positions[n]);
  }
  for (const RoutedExperts::LostRow& row : lost_) {
    const size_t seq = static_cast<size_t>(batch_.seq_idx[static_cast<size_t>(row.token)]);
    if (first[seq] >= 0) statuses[seq] = row.status;  // what came of it is no news
    first[seq] = -1;
  }
  return statuses;
}

void ForwardPass::Lose(const std::vector<RoutedExperts::LostRow>& rows) {
  lost_.insert(lost_.end(), rows.begin(), rows.end());
}

absl::Status ForwardPass::Observe(int layer, const TensorView& hidden) {
  const Check check =
      layer == 0 ? Check{"embedding", -1, kInfinity} : Check{"hidden state", layer - 1, kInfinity};
  ops().MarkFaults(hidden, kInfinity, Code(check), faults_);
  if (resources_.observer == nullptr || !*resources_.observer) return absl::OkStatus();
  std::vector<float> host(static_cast<size_t>(hidden.num_elems()));
  device().Copy(Queue::kCompute, hidden.data, host.data(), hidden.bytes());
  if (absl::Status s = device().Synchronize(); !s.ok()) return s;
  (*resources_.observer)(layer, batch_, host);
  return absl::OkStatus();
}

}  // namespace thermocline
