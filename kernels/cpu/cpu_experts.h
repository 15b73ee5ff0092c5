// The experts of one MoE layer as one parallel region.
//
// Tasks are (expert, 128 rows). A gate and up task computes both products of its rows and the
// activation between them; the last one of an expert rounds its hidden activations, and its down
// tasks may begin. Threads take the first task, in the order of the experts, whose weights and
// inputs are there: nobody waits while anything can be computed, be it that the system takes a
// thread off its core in the middle of a task or that an expert is still being read. A thread
// without a task helps to bring pieces in. Tasks are not counted out beforehand: every thread loops
// until the layer is over, and the calling thread, which tends the feed, leaves last.
#ifndef THERMOCLINE_KERNELS_CPU_CPU_EXPERTS_H_
#define THERMOCLINE_KERNELS_CPU_CPU_EXPERTS_H_

#include <atomic>
#include <memory>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cpu/weight_dot.h"
#include "kernels/expert_ops.h"
#include "kernels/worker_pool.h"

namespace thermocline {

class CpuExperts : public ExpertOps {
 public:
  // The kernels and the pool outlive it.
  CpuExperts(const CpuKernels& kernels, const WeightDot& dot, WorkerPool* pool);

  // Bytes taken for the largest layer's tokens in these forms, and kept.
  static int64_t WorkspaceBytes(const StepSizes& sizes, const Forms& forms, int num_threads);

  void Start(const ExpertBatch& batch, absl::Span<ExpertWork> experts) override;
  absl::Status Finish(ExpertFeed* feed) override;

 private:
  // Tokens of an expert that the same kernels serve.
  struct Part {
    std::vector<int64_t> pairs;  // of the expert's
    TokenRows input, hidden;
  };
  // One expert of the layer at hand. Its tokens are pairs [first_pair, first_pair + rows).
  struct Expert {
    int64_t first_pair = 0;
    Part parts[2];                                 // by role; where roles do not differ, all of one
    std::atomic<int> next_gate{0}, gates_left{0};  // handed out; still to finish
    std::atomic<int> next_down{0}, downs_left{0};
    std::atomic<bool> hidden_ready{false};
  };
  struct Worker {
    WeightDotScratch scratch;
    std::vector<float> gate, up;  // [tokens of a part, rows of a task]
    std::vector<float*> gate_out, up_out;
  };

  // Room and pointers for the layer's tokens; x rounded into the forms that its experts need.
  void PrepareTokens();
  // Until the layer is over. `tends`: the calling thread.
  void Loop(ExpertFeed* feed, bool tends, Worker* worker);
  // Computes one task. False: no expert has one that can begin.
  bool TryTask(ExpertFeed* feed, Worker* worker);
  void GateUp(size_t e, int task, Worker* worker);
  // Of an expert whose gate and up tasks are done.
  void RoundHidden(size_t e);
  void Down(size_t e, int task, bool failed, Worker* worker);
  // What this thread will probably read after `matrix` up to `row`: threads take turns, mostly.
  const uint8_t* After(size_t e, const TensorView& matrix, int64_t row) const;

  const CpuKernels& kernels_;
  const WeightDot dot_;
  WorkerPool* pool_;
  const ExpertBatch* batch_ = nullptr;
  absl::Span<ExpertWork> works_;
  std::unique_ptr<Expert[]> experts_;
  size_t num_experts_ = 0;             // of experts_
  int num_gates_ = 0, num_downs_ = 0;  // tasks of each expert
  std::atomic<int> left_{0};           // experts that are not done
  std::atomic<size_t> first_{0};       // experts before it have no task to hand out
  RoundedActivations input_;           // rows of x
  std::vector<float> hidden_;          // [pairs, width]
  RoundedActivations rounded_hidden_;
  bool rounds_hidden_ = false;
  std::vector<Worker> workers_;
};

}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_CPU_CPU_EXPERTS_H_
