// The experts of one MoE layer as one parallel region.
//
// Tasks are (expert, 128 rows). A gate and up task computes both products of its rows and the
// activation between them; the last one of an expert rounds its hidden activations and releases the
// expert's down tasks. A thread takes a down task of a released expert if there is one, else the
// next gate and up task: nobody waits while anything can be computed, also when the system takes a
// thread off its core in the middle of a task.
#ifndef THERMOCLINE_KERNELS_CPU_EXPERT_FFN_H_
#define THERMOCLINE_KERNELS_CPU_EXPERT_FFN_H_

#include <atomic>
#include <memory>
#include <vector>

#include "kernels/cpu/weight_dot.h"
#include "kernels/cpu/worker_pool.h"

namespace thermocline {

class ExpertFfn {
 public:
  struct Layer {
    absl::Span<const ExpertWork> experts;
    Activation activation = Activation::kSilu;
    TensorView x;    // [N, hidden] f32
    TensorView out;  // [N * top_k, hidden] f32
    // Rows of x in the int8 forms that gate and up matrices need; null where none does.
    const QuantizedActivations* small = nullptr;
    const QuantizedActivations* super = nullptr;
  };

  // Both outlive it.
  ExpertFfn(const CpuKernels& kernels, const WeightDot& dot, WorkerPool* pool);

  // Backend::ExpertFfn.
  void Run(const Layer& layer);

 private:
  struct Task {
    int expert = 0;
    bool down = false;
    int64_t first_row = 0, last_row = 0;
    const uint8_t* next = nullptr;  // what its thread will probably read next
  };
  // One expert of the layer at hand. Its tokens are pairs [first_pair, first_pair + rows).
  struct Expert {
    int64_t first_pair = 0;
    TokenRows input, hidden;
  };
  struct Progress {
    std::atomic<int> gates_left;  // gate and up tasks still to finish
    std::atomic<int> next_down;   // down tasks handed out
  };
  struct Worker {
    WeightDotScratch scratch;
    std::vector<float> gate, up;  // [tokens, rows of a task]
    std::vector<float*> gate_out, up_out;
  };

  void PlanTasks(const Layer& layer);
  void PrepareExperts(const Layer& layer);
  // Waits until there is one.
  Task TakeTask(const Layer& layer);
  Task GateTask(const Layer& layer, int64_t i) const;
  Task DownTask(const Layer& layer, int expert, int64_t i) const;
  void GateUp(const Layer& layer, const Task& task, Worker* worker);
  void Down(const Layer& layer, const Task& task, Worker* worker);

  const CpuKernels& kernels_;
  const WeightDot& dot_;
  WorkerPool* pool_;
  int64_t width_ = 0;
  std::vector<Expert> experts_;
  // Gate and up tasks are handed out in order: all of expert 0, then of expert 1, ...
  int64_t gates_per_expert_ = 0, downs_per_expert_ = 0, num_gates_ = 0;
  std::atomic<int64_t> next_gate_{0};
  std::unique_ptr<Progress[]> progress_;
  // Experts whose hidden activations are ready, in the order in which they became so; -1: not yet.
  std::unique_ptr<std::atomic<int>[]> released_;
  std::atomic<int> num_released_{0};
  std::atomic<int> first_released_{0};  // that may have down tasks left
  size_t progress_size_ = 0;
  std::vector<float> hidden_;  // [pairs, width]
  QuantizedActivations hidden_small_, hidden_super_;
  std::vector<Worker> workers_;
};

}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_CPU_EXPERT_FFN_H_
