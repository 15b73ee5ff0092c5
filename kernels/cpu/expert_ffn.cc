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
  const size_t num_experts = layer.experts.size();
  if (progress_size_ < num_experts) {
    progress_size_ = num_experts;
    progress_ = std::make_unique<Progress[]>(num_experts);
    released_ = std::make_unique<std::atomic<int>[]>(num_experts);
  }
  const auto tasks_of = [](int64_t rows) { return (rows + kRowsPerTask - 1) / kRowsPerTask; };
  gates_per_expert_ = tasks_of(width_);
  downs_per_expert_ = tasks_of(layer.out.cols());
  num_gates_ = gates_per_expert_ * static_cast<int64_t>(num_experts);
  next_gate_.store(0, std::memory_order_relaxed);
  num_released_.store(0, std::memory_order_relaxed);
  first_released_.store(0, std::memory_order_relaxed);
  for (size_t e = 0; e < num_experts; ++e) {
    progress_[e].gates_left.store(static_cast<int>(gates_per_expert_), std::memory_order_relaxed);
    progress_[e].next_down.store(0, std::memory_order_relaxed);
    released_[e].store(-1, std::memory_order_relaxed);
  }
}

ExpertFfn::Task ExpertFfn::GateTask(const Layer& layer, int64_t i) const {
  const int expert = static_cast<int>(i / gates_per_expert_);
  const ExpertWork& work = layer.experts[static_cast<size_t>(expert)];
  const int64_t first = i % gates_per_expert_ * kRowsPerTask;
  Task task = {.expert = expert,
               .down = false,
               .first_row = first,
               .last_row = std::min(width_, first + kRowsPerTask)};
  // Threads take turns, mostly; after the last gates come the expert's down rows.
  const int64_t next = first + pool_->num_threads() * kRowsPerTask;
  task.next = next < width_ ? PanelOf(work.gate, next) : PanelOf(work.down, 0);
  return task;
}

ExpertFfn::Task ExpertFfn::DownTask(const Layer& layer, int expert, int64_t i) const {
  const ExpertWork& work = layer.experts[static_cast<size_t>(expert)];
  const int64_t first = i * kRowsPerTask;
  Task task = {.expert = expert,
               .down = true,
               .first_row = first,
               .last_row = std::min(work.down.rows(), first + kRowsPerTask)};
  const int64_t next = first + pool_->num_threads() * kRowsPerTask;
  const int64_t gate = next_gate_.load(std::memory_order_relaxed);
  if (next < work.down.rows()) {
    task.next = PanelOf(work.down, next);
  } else if (gate < num_gates_) {
    task.next = PanelOf(layer.experts[static_cast<size_t>(gate / gates_per_expert_)].gate,
                        gate % gates_per_expert_ * kRowsPerTask);
  }
  return task;
}

ExpertFfn::Task ExpertFfn::TakeTask(const Layer& layer) {
  const int num_experts = static_cast<int>(layer.experts.size());
  while (true) {
    int first = first_released_.load(std::memory_order_relaxed);
    if (first < num_experts) {
      // Acquire: sees the expert's hidden activations.
      const int expert = released_[static_cast<size_t>(first)].load(std::memory_order_acquire);
      if (expert >= 0) {
        const int i = progress_[static_cast<size_t>(expert)].next_down.fetch_add(
            1, std::memory_order_relaxed);
        if (i < downs_per_expert_) return DownTask(layer, expert, i);
        first_released_.compare_exchange_strong(first, first + 1, std::memory_order_relaxed);
        continue;
      }
    }
    if (next_gate_.load(std::memory_order_relaxed) < num_gates_) {
      const int64_t i = next_gate_.fetch_add(1, std::memory_order_relaxed);
      if (i < num_gates_) return GateTask(layer, i);
      continue;
    }
    std::this_thread::yield();  // the last gates are being computed
  }
}

void ExpertFfn::PrepareExperts(const Layer& layer) {
  width_ = layer.experts[0].gate.rows();
  FormsNeeded needed;
  int64_t num_pairs = 0;
  if (experts_.size() < layer.experts.size()) experts_.resize(layer.experts.size());
  for (size_t e = 0; e < layer.experts.size(); ++e) {
    const ExpertWork& work = layer.experts[e];
    TC_CHECK(work.gate.rows() == width_ && work.up.rows() == width_ && work.down.cols() == width_ &&
             work.down.rows() == layer.out.cols() && work.rows.size() == work.slots.size());
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

void ExpertFfn::GateUp(const Layer& layer, const Task& task, Worker* worker) {
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
           PanelOf(work.up, task.first_row), worker->gate_out.data(), &worker->scratch);
  dot_.Run(work.up, work.up_bias, task.first_row, task.last_row, expert.input, task.next,
           worker->up_out.data(), &worker->scratch);
  const auto activate =
      layer.activation == Activation::kSwigluOai ? kernels_.swiglu_oai : kernels_.silu_mul;
  for (int64_t i = 0; i < num_pairs; ++i) {
    const int64_t pair = expert.first_pair + i;
    activate(worker->gate_out[static_cast<size_t>(i)], worker->up_out[static_cast<size_t>(i)],
             count, &hidden_[static_cast<size_t>(pair * width_ + task.first_row)]);
  }
  // The last one rounds the hidden activations. acq_rel: it sees what the others wrote.
  Progress& progress = progress_[static_cast<size_t>(task.expert)];
  if (progress.gates_left.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
  const ActivationForm form = dot_.FormFor(work.down);
  if (form != ActivationForm::kF32) {
    QuantizedActivations& rounded =
        form == ActivationForm::kSmallInt8 ? hidden_small_ : hidden_super_;
    for (int64_t i = 0; i < num_pairs; ++i) {
      const int64_t pair = expert.first_pair + i;
      rounded.Fill(kernels_, pair, &hidden_[static_cast<size_t>(pair * width_)]);
    }
  }
  const int place = num_released_.fetch_add(1, std::memory_order_relaxed);
  released_[static_cast<size_t>(place)].store(task.expert, std::memory_order_release);
}

void ExpertFfn::Down(const Layer& layer, const Task& task, Worker* worker) {
  const ExpertWork& work = layer.experts[static_cast<size_t>(task.expert)];
  worker->gate_out.clear();
  for (int32_t slot : work.slots) {
    worker->gate_out.push_back(layer.out.Row<float>(slot) + task.first_row);
  }
  dot_.Run(work.down, work.down_bias, task.first_row, task.last_row,
           experts_[static_cast<size_t>(task.expert)].hidden, task.next, worker->gate_out.data(),
           &worker->scratch);
}

void ExpertFfn::Run(const Layer& layer) {
  if (layer.experts.empty()) return;
  PrepareExperts(layer);
  PlanTasks(layer);
  const int64_t num_tasks =
      num_gates_ + downs_per_expert_ * static_cast<int64_t>(layer.experts.size());
  pool_->Run(num_tasks, [&](int64_t, int worker_idx) {
    Worker* worker = &workers_[static_cast<size_t>(worker_idx)];
    const Task task = TakeTask(layer);
    if (task.down) {
      Down(layer, task, worker);
    } else {
      GateUp(layer, task, worker);
    }
  });
}

}  // namespace thermocline
