#include "kernels/cpu/expert_ffn.h"

#include <algorithm>
#include <thread>

#include "kernels/check.h"

namespace thermocline {
namespace {

constexpr int64_t kRowsPerTask = 128;

}  // namespace

ExpertFfn::ExpertFfn(const CpuKernels& kernels, const WeightDot& dot, WorkerPool* pool)
    : kernels_(kernels),
      dot_(dot),
      pool_(pool),
      workers_(static_cast<size_t>(pool->num_threads())) {}

void ExpertFfn::PlanTasks(const Layer& layer) {
  tasks_.clear();
  const auto add = [&](int e, bool down, int64_t num_rows) {
    int count = 0;
    for (int64_t r = 0; r < num_rows; r += kRowsPerTask, ++count) {
      tasks_.push_back({e, down, r, std::min(num_rows, r + kRowsPerTask)});
    }
    return count;
  };
  const int num_experts = static_cast<int>(layer.experts.size());
  if (pending_size_ < layer.experts.size()) {
    pending_size_ = layer.experts.size();
    pending_ = std::make_unique<std::atomic<int>[]>(pending_size_);
  }
  // An expert's down tasks come after the next one's gate and up: by then it is ready.
  for (int e = 0; e < num_experts; ++e) {
    const ExpertWork& expert = layer.experts[static_cast<size_t>(e)];
    pending_[static_cast<size_t>(e)].store(add(e, false, expert.gate.rows()),
                                           std::memory_order_relaxed);
    if (e > 0) add(e - 1, true, layer.experts[static_cast<size_t>(e - 1)].down.rows());
  }
  add(num_experts - 1, true, layer.experts.back().down.rows());
}

void ExpertFfn::PrepareExperts(const Layer& layer) {
  width_ = layer.experts[0].gate.rows();
  FormsNeeded needed;
  int64_t num_pairs = 0;
  if (experts_.size() < layer.experts.size()) experts_.resize(layer.experts.size());
  for (size_t e = 0; e < layer.experts.size(); ++e) {
    const ExpertWork& work = layer.experts[e];
    TC_CHECK(work.gate.rows() == width_ && work.up.rows() == width_ && work.down.cols() == width_ &&
             work.rows.size() == work.slots.size());
    experts_[e].first_pair = num_pairs;
    num_pairs += static_cast<int64_t>(work.rows.size());
    dot_.Note(work.down, &needed);
  }
  const size_t elems = static_cast<size_t>(num_pairs * width_);
  if (hidden_.size() < elems) hidden_.resize(elems);
  if (needed.small) hidden_small_.Reset(ActivationForm::kSmallInt8, num_pairs, width_);
  if (needed.super) hidden_super_.Reset(ActivationForm::kSuperInt8, num_pairs, width_);
  for (size_t e = 0; e < layer.experts.size(); ++e) {
    Expert& expert = experts_[e];
    expert.input.Clear();
    expert.hidden.Clear();
    for (size_t i = 0; i < layer.experts[e].rows.size(); ++i) {
      const int32_t n = layer.experts[e].rows[i];
      const int64_t pair = expert.first_pair + static_cast<int64_t>(i);
      expert.input.f32.push_back(layer.x.Row<float>(n));
      if (layer.small != nullptr) expert.input.small.push_back(layer.small->row(n));
      if (layer.super != nullptr) expert.input.super.push_back(layer.super->row(n));
      expert.hidden.f32.push_back(&hidden_[static_cast<size_t>(pair * width_)]);
      if (needed.small) expert.hidden.small.push_back(hidden_small_.row(pair));
      if (needed.super) expert.hidden.super.push_back(hidden_super_.row(pair));
    }
  }
}

const uint8_t* ExpertFfn::WeightsOf(const Layer& layer, const Task& task) {
  const ExpertWork& work = layer.experts[static_cast<size_t>(task.expert)];
  return WeightDot::AddressOf(task.down ? work.down : work.gate, task.first_row);
}

void ExpertFfn::GateUp(const Layer& layer, const Task& task, const uint8_t* next, Worker* worker) {
  const ExpertWork& work = layer.experts[static_cast<size_t>(task.expert)];
  const Expert& expert = experts_[static_cast<size_t>(task.expert)];
  const int64_t num_pairs = static_cast<int64_t>(work.rows.size());
  const int64_t count = task.last_row - task.first_row;
  worker->gate.resize(static_cast<size_t>(num_pairs * count));
  worker->up.resize(static_cast<size_t>(num_pairs * count));
  worker->gate_out.clear();
  worker->up_out.clear();
  for (int64_t i = 0; i < num_pairs; ++i) {
    worker->gate_out.push_back(&worker->gate[static_cast<size_t>(i * count)]);
    worker->up_out.push_back(&worker->up[static_cast<size_t>(i * count)]);
  }
  dot_.Run(work.gate, work.gate_bias, task.first_row, task.last_row, expert.input,
           WeightDot::AddressOf(work.up, task.first_row), worker->gate_out.data(),
           &worker->scratch);
  dot_.Run(work.up, work.up_bias, task.first_row, task.last_row, expert.input, next,
           worker->up_out.data(), &worker->scratch);
  const auto activate =
      layer.activation == Activation::kSwigluOai ? kernels_.swiglu_oai : kernels_.silu_mul;
  for (int64_t i = 0; i < num_pairs; ++i) {
    const int64_t pair = expert.first_pair + i;
    activate(worker->gate_out[static_cast<size_t>(i)], worker->up_out[static_cast<size_t>(i)],
             count, &hidden_[static_cast<size_t>(pair * width_ + task.first_row)]);
  }
  std::atomic<int>& pending = pending_[static_cast<size_t>(task.expert)];
  // The last one rounds the hidden activations. acq_rel: it sees what the others wrote.
  if (pending.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
  const ActivationForm form = dot_.FormFor(work.down);
  if (form != ActivationForm::kF32) {
    QuantizedActivations& rounded =
        form == ActivationForm::kSmallInt8 ? hidden_small_ : hidden_super_;
    for (int64_t i = 0; i < num_pairs; ++i) {
      const int64_t pair = expert.first_pair + i;
      rounded.Fill(kernels_, pair, &hidden_[static_cast<size_t>(pair * width_)]);
    }
  }
  pending.store(-1, std::memory_order_release);
}

void ExpertFfn::Down(const Layer& layer, const Task& task, const uint8_t* next, Worker* worker) {
  const ExpertWork& work = layer.experts[static_cast<size_t>(task.expert)];
  // Tasks are handed out in order, so every gate and up task is done or running: the wait is short.
  const std::atomic<int>& pending = pending_[static_cast<size_t>(task.expert)];
  while (pending.load(std::memory_order_acquire) >= 0) std::this_thread::yield();
  worker->gate_out.clear();
  for (int32_t slot : work.slots) {
    worker->gate_out.push_back(layer.out.Row<float>(slot) + task.first_row);
  }
  dot_.Run(work.down, work.down_bias, task.first_row, task.last_row,
           experts_[static_cast<size_t>(task.expert)].hidden, next, worker->gate_out.data(),
           &worker->scratch);
}

void ExpertFfn::Run(const Layer& layer) {
  if (layer.experts.empty()) return;
  PrepareExperts(layer);
  PlanTasks(layer);
  pool_->Run(static_cast<int64_t>(tasks_.size()), [&](int64_t i, int worker_idx) {
    const Task& task = tasks_[static_cast<size_t>(i)];
    Worker* worker = &workers_[static_cast<size_t>(worker_idx)];
    // Threads take turns, mostly.
    const size_t follower = static_cast<size_t>(i + pool_->num_threads());
    const uint8_t* next = follower < tasks_.size() ? WeightsOf(layer, tasks_[follower]) : nullptr;
    if (task.down) {
      Down(layer, task, next, worker);
    } else {
      GateUp(layer, task, next, worker);
    }
  });
}

}  // namespace thermocline
