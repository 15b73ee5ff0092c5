// Causal attention over a paged cache, cut into tasks: prompt tokens in tiles that share the
// conversion of keys and values, generated tokens one by one.
#ifndef THERMOCLINE_KERNELS_CPU_PAGED_ATTENTION_H_
#define THERMOCLINE_KERNELS_CPU_PAGED_ATTENTION_H_

#include <vector>

#include "kernels/cpu/cpu_kernel_table.h"
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/onednn_attention.h"
#include "kernels/dense_ops.h"
#include "kernels/worker_pool.h"

namespace thermocline {

class PagedAttention {
 public:
  // Kernels and pool outlive it.
  PagedAttention(const CpuKernels& kernels, const CpuKernelTable& table, WorkerPool* pool);

  // DenseOps::Attention.
  void Run(const AttentionArgs& args);

 private:
  // Query heads [first_head, first_head + num_heads) of tokens [first_token, first_token +
  // num_tokens), which share a sequence: for one token whole groups or a part of one, for several
  // heads that share a key/value head.
  struct Task {
    int64_t first_token = 0, num_tokens = 1;
    int64_t first_head = 0, num_heads = 1;
  };
  struct Worker {
    std::vector<float> scratch;
    std::vector<const float*> q, sinks;
    std::vector<int64_t> first, last;
    std::vector<float*> out;
    OneDnnAttention onednn;
  };

  void PlanTasks(const AttentionArgs& args);
  // Adds the tasks of one run of tokens.
  void AddTasks(const AttentionArgs& args, int64_t first_token, int64_t num_tokens,
                int64_t heads_per_task);
  void AttendOne(const AttentionArgs& args, const Task& task, Worker* worker) const;
  void AttendTile(const AttentionArgs& args, const Task& task, Worker* worker) const;

  const CpuKernels& kernels_;
  const CpuKernelTable table_;
  WorkerPool* pool_;
  std::vector<Task> tasks_;
  std::vector<Worker> workers_;
};

}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_CPU_PAGED_ATTENTION_H_
