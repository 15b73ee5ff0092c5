// The experts of one MoE layer as one parallel region.
//
// Tasks are (expert, 128 rows). A gate and up task computes both products of its rows and the
// activation between them; the last one of an expert rounds its hidden activations and releases the
// expert's down tasks, which are handed out one expert later: nobody waits for more than a task
// that is already running, and there is no barrier.
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
  };
  // One expert of the layer at hand. Its tokens are pairs [first_pair, first_pair + rows).
  struct Expert {
    int64_t first_pair = 0;
    TokenRows input, hidden;
  };
  struct Worker {
    WeightDotScratch scratch;
    std::vector<float> gate, up;  // [tokens, rows of a task]
    std::vector<float*> gate_out, up_out;
  };

  void PlanTasks(const Layer& layer);
  void PrepareExperts(const Layer& layer);
  // The weights that a task reads first.
  static const uint8_t* WeightsOf(const Layer& layer, const Task& task);
  // `next`: as in WeightDot::Run.
  void GateUp(const Layer& layer, const Task& task, const uint8_t* next, Worker* worker);
  void Down(const Layer& layer, const Task& task, const uint8_t* next, Worker* worker);

  const CpuKernels& kernels_;
  const WeightDot& dot_;
  WorkerPool* pool_;
  int64_t width_ = 0;
  std::vector<Task> tasks_;
  std::vector<Expert> experts_;
  // Gate and up tasks of each expert still to finish; -1: its hidden activations are ready.
  std::unique_ptr<std::atomic<int>[]> pending_;
  size_t pending_size_ = 0;
  std::vector<float> hidden_;  // [pairs, width]
  QuantizedActivations hidden_small_, hidden_super_;
  std::vector<Worker> workers_;
};

}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_CPU_EXPERT_FFN_H_
