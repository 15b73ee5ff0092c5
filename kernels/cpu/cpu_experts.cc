#include "kernels/cpu/cpu_experts.h"

#include <algorithm>
#include <thread>

#include "kernels/check.h"

namespace thermocline {
namespace {

constexpr int64_t kRowsPerTask = 128;
constexpr TokenRole kRoles[] = {TokenRole::kPrompt, TokenRole::kGenerated};
constexpr auto kRelaxed = std::memory_order_relaxed;
constexpr auto kAcquire = std::memory_order_acquire;
constexpr auto kAcqRel = std::memory_order_acq_rel;

int TasksOf(int64_t rows) { return static_cast<int>((rows + kRowsPerTask - 1) / kRowsPerTask); }

}  // namespace

CpuExperts::CpuExperts(const CpuKernels& kernels, const WeightDot& dot, WorkerPool* pool)
    : kernels_(kernels),
      dot_(dot),
      pool_(pool),
      workers_(static_cast<size_t>(pool->num_threads())) {}

int64_t CpuExperts::WorkspaceBytes(const StepSizes& sizes, const Forms& forms, int num_threads) {
  constexpr int64_t kPointers = 9 * sizeof(void*);  // of a pair: itself, its rows in 4 forms each
  const int64_t hidden = sizes.expert_pairs * sizes.expert_width;
  // All tokens may go to one expert.
  const int64_t worker = sizes.expert_tokens *
                         (2 * kRowsPerTask * int64_t{sizeof(float)} + 4 * int64_t{sizeof(void*)});
  return RoundedBytes(forms, sizes.expert_tokens * sizes.expert_cols) +
         hidden * int64_t{sizeof(float)} + RoundedBytes(forms, hidden) +
         sizes.expert_pairs * kPointers + num_threads * worker;
}

void CpuExperts::Start(const ExpertBatch& batch, absl::Span<ExpertWork> experts) {
  batch_ = &batch;
  works_ = experts;
}

void CpuExperts::PrepareTokens() {
  const ExpertWeights& shape = batch_->shape;
  const int64_t width = shape.gate.rows();
  TC_CHECK(shape.up.rows() == width && shape.down.cols() == width &&
           shape.down.rows() == batch_->out.cols() && shape.gate.cols() == batch_->x.cols());
  if (num_experts_ < works_.size()) {
    num_experts_ = works_.size();
    experts_ = std::make_unique<Expert[]>(num_experts_);
  }
  int64_t num_pairs = 0;
  for (size_t e = 0; e < works_.size(); ++e) {
    TC_CHECK(works_[e].rows.size() == works_[e].out_rows.size());
    experts_[e].first_pair = num_pairs;
    num_pairs += static_cast<int64_t>(works_[e].rows.size());
  }
  Forms of_x, of_hidden;
  dot_.Note(shape.gate, &of_x);
  dot_.Note(shape.up, &of_x);
  dot_.Note(shape.down, &of_hidden);
  const bool by_role =
      dot_.RolesDiffer(shape.gate) || dot_.RolesDiffer(shape.up) || dot_.RolesDiffer(shape.down);
  const TensorView& x = batch_->x;
  input_.Reset(of_x, x.rows(), x.cols());
  if (of_x.any()) {
    pool_->ForRows(x.rows(), x.cols(),
                   [&](int64_t n) { input_.Fill(kernels_, n, x.Row<float>(n)); });
  }
  const size_t elems = static_cast<size_t>(num_pairs * width);
  if (hidden_.size() < elems) {
    hidden_ = {};
    hidden_.resize(elems);
  }
  rounded_hidden_.Reset(of_hidden, num_pairs, width);
  rounds_hidden_ = of_hidden.any();
  for (size_t e = 0; e < works_.size(); ++e) {
    Expert& expert = experts_[e];
    for (Part& part : expert.parts) {
      part.pairs.clear();
      part.input.Clear();
      part.hidden.Clear();
    }
    for (size_t i = 0; i < works_[e].rows.size(); ++i) {
      const int32_t n = works_[e].rows[i];
      const int64_t pair = expert.first_pair + static_cast<int64_t>(i);
      const TokenRole role = by_role ? batch_->roles[static_cast<size_t>(n)] : TokenRole::kPrompt;
      Part& part = expert.parts[static_cast<size_t>(role)];
      part.pairs.push_back(static_cast<int64_t>(i));
      input_.AppendTo(n, x.Row<float>(n), &part.input);
      rounded_hidden_.AppendTo(pair, &hidden_[static_cast<size_t>(pair * width)], &part.hidden);
    }
  }
}

absl::Status CpuExperts::Finish(ExpertFeed* feed) {
  if (works_.empty()) return absl::OkStatus();
  PrepareTokens();
  num_gates_ = TasksOf(batch_->shape.gate.rows());
  num_downs_ = TasksOf(batch_->out.cols());
  for (size_t e = 0; e < works_.size(); ++e) {
    Expert& expert = experts_[e];
    expert.next_gate.store(0, kRelaxed);
    expert.gates_left.store(num_gates_, kRelaxed);
    expert.next_down.store(0, kRelaxed);
    expert.downs_left.store(num_downs_, kRelaxed);
    expert.hidden_ready.store(false, kRelaxed);
  }
  first_.store(0, kRelaxed);
  left_.store(static_cast<int>(works_.size()), kRelaxed);
  pool_->Together(
      [&](int worker) { Loop(feed, worker == 0, &workers_[static_cast<size_t>(worker)]); });
  return absl::OkStatus();
}

void CpuExperts::Loop(ExpertFeed* feed, bool tends, Worker* worker) {
  while (true) {
    const uint32_t seen = feed != nullptr ? feed->Epoch() : 0;
    if (feed != nullptr && tends) feed->Tend();
    if (left_.load(kAcquire) == 0) return;
    if (TryTask(feed, worker)) continue;
    if (feed == nullptr) {
      std::this_thread::yield();  // the last gates are being computed
    } else if (!feed->Help()) {
      feed->Sleep(seen, tends);
    }
  }
}

bool CpuExperts::TryTask(ExpertFeed* feed, Worker* worker) {
  size_t first = first_.load(kRelaxed);
  for (size_t e = first; e < works_.size(); ++e) {
    Expert& expert = experts_[e];
    if (expert.next_down.load(kRelaxed) >= num_downs_) {  // all handed out
      if (e == first && first_.compare_exchange_strong(first, e + 1, kRelaxed)) first = e + 1;
      continue;
    }
    // Acquire, here and below: sees the weights, and the hidden activations.
    const Arrival* arrival = works_[e].arrival.load(kAcquire);
    if (arrival == nullptr) continue;
    int task;
    if (expert.next_gate.load(kRelaxed) < num_gates_ && arrival->gate_up_left.load(kAcquire) == 0 &&
        (task = expert.next_gate.fetch_add(1, kRelaxed)) < num_gates_) {
      if (!arrival->failed.load(kAcquire)) GateUp(e, task, worker);
      // The last one rounds what all have written.
      if (expert.gates_left.fetch_sub(1, kAcqRel) > 1) return true;
      if (!arrival->failed.load(kAcquire)) RoundHidden(e);
      expert.hidden_ready.store(true, std::memory_order_release);
      if (feed != nullptr) feed->Raise();
      return true;
    }
    if (expert.hidden_ready.load(kAcquire) && arrival->down_left.load(kAcquire) == 0 &&
        (task = expert.next_down.fetch_add(1, kRelaxed)) < num_downs_) {
      Down(e, task, arrival->failed.load(kAcquire), worker);  // final: both counts are 0
      if (expert.downs_left.fetch_sub(1, kAcqRel) > 1) return true;
      works_[e].done.store(true, std::memory_order_release);
      left_.fetch_sub(1, kAcqRel);
      if (feed != nullptr) feed->Raise();
      return true;
    }
  }
  return false;
}

const uint8_t* CpuExperts::After(size_t e, const TensorView& matrix, int64_t row) const {
  const int64_t next = row + (pool_->num_threads() - 1) * kRowsPerTask;
  if (next < matrix.rows()) return PanelOf(matrix, next);
  const bool was_gate = matrix.data == works_[e].weights.gate.data;
  if (was_gate) return PanelOf(works_[e].weights.down, 0);
  if (e + 1 == works_.size() || experts_[e + 1].next_gate.load(kRelaxed) >= num_gates_)
    return nullptr;
  const Arrival* arrival = works_[e + 1].arrival.load(kAcquire);
  // An expert that failed before it had a slot has arrived nowhere.
  const bool here = arrival != nullptr && !works_[e + 1].weights.gate.empty();
  return here ? PanelOf(works_[e + 1].weights.gate, 0) : nullptr;
}

void CpuExperts::GateUp(size_t e, int task, Worker* worker) {
  const ExpertWeights& w = works_[e].weights;
  const Expert& expert = experts_[e];
  const int64_t width = w.gate.rows(), first = task * kRowsPerTask,
                last = std::min(width, first + kRowsPerTask), count = last - first;
  const auto activate =
      batch_->activation == Activation::kSwigluOai ? kernels_.swiglu_oai : kernels_.silu_mul;
  for (const TokenRole role : kRoles) {
    const Part& part = expert.parts[static_cast<size_t>(role)];
    if (part.pairs.empty()) continue;
    const size_t num_tokens = part.pairs.size(), rows = static_cast<size_t>(count);
    worker->gate.resize(num_tokens * rows);
    worker->up.resize(num_tokens * rows);
    worker->gate_out.clear();
    worker->up_out.clear();
    for (size_t i = 0; i < num_tokens; ++i) {
      worker->gate_out.push_back(&worker->gate[i * rows]);
      worker->up_out.push_back(&worker->up[i * rows]);
    }
    dot_.Run(w.gate, w.gate_bias, first, last, role, part.input, PanelOf(w.up, first),
             worker->gate_out.data(), &worker->scratch);
    dot_.Run(w.up, w.up_bias, first, last, role, part.input, After(e, w.gate, last),
             worker->up_out.data(), &worker->scratch);
    for (size_t i = 0; i < num_tokens; ++i) {
      const int64_t pair = expert.first_pair + part.pairs[i];
      activate(worker->gate_out[i], worker->up_out[i], count,
               &hidden_[static_cast<size_t>(pair * width + first)]);
    }
  }
}

void CpuExperts::RoundHidden(size_t e) {
  if (!rounds_hidden_) return;
  const int64_t width = batch_->shape.down.cols(), first = experts_[e].first_pair;
  for (int64_t pair = first; pair < first + static_cast<int64_t>(works_[e].rows.size()); ++pair) {
    rounded_hidden_.Fill(kernels_, pair, &hidden_[static_cast<size_t>(pair * width)]);
  }
}

void CpuExperts::Down(size_t e, int task, bool failed, Worker* worker) {
  const ExpertWeights& w = works_[e].weights;
  const int64_t first = task * kRowsPerTask,
                last = std::min(batch_->out.cols(), first + kRowsPerTask);
  for (const TokenRole role : kRoles) {
    const Part& part = experts_[e].parts[static_cast<size_t>(role)];
    if (part.pairs.empty()) continue;
    worker->gate_out.clear();
    for (const int64_t pair : part.pairs) {
      const int32_t row = works_[e].out_rows[static_cast<size_t>(pair)];
      worker->gate_out.push_back(batch_->out.Row<float>(row) + first);
      if (failed) std::fill_n(worker->gate_out.back(), last - first, 0.0f);
    }
    if (failed) continue;
    dot_.Run(w.down, w.down_bias, first, last, role, part.hidden, After(e, w.down, last),
             worker->gate_out.data(), &worker->scratch);
  }
}

}  // namespace thermocline
