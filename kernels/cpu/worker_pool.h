// A fixed set of worker threads that run one parallel region at a time.
#ifndef THERMOCLINE_KERNELS_CPU_WORKER_POOL_H_
#define THERMOCLINE_KERNELS_CPU_WORKER_POOL_H_

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "absl/functional/function_ref.h"

namespace thermocline {

// The calling thread is worker 0. Workers spin for some tens of microseconds after a region and
// then park, so that a decode step pays no wake-ups between its regions while an idle server uses
// no CPU.
class WorkerPool {
 public:
  // num_threads >= 1, the caller included. `pin`: worker i stays on core i; the caller moves
  // freely.
  explicit WorkerPool(int num_threads, bool pin = false);
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  int num_threads() const { return static_cast<int>(threads_.size()) + 1; }

  // Calls fn(task, worker) once for every task in [0, num_tasks); tasks are handed out in ascending
  // order. Returns when all are done; everything fn wrote is then visible to the caller. One caller
  // at a time; fn must not call Run.
  void Run(int64_t num_tasks, absl::FunctionRef<void(int64_t task, int worker)> fn);

 private:
  struct Job {
    const absl::FunctionRef<void(int64_t, int)>* fn = nullptr;
    int64_t num_tasks = 0;
  };

  void WorkerLoop(int worker);
  void TakeTasks(int worker);
  // Joins the open region, if there is one.
  bool Enter();

  // A region is open while kOpen is set; the low bits count the workers inside. A worker that is
  // late, or was descheduled, finds the region closed and stays out: the caller waits only for
  // those who took part.
  static constexpr uint32_t kOpen = uint32_t{1} << 31;

  Job job_;  // written by Run while nobody is inside, read inside
  std::atomic<int64_t> next_task_{0};
  std::atomic<uint32_t> state_{0};
  std::atomic<uint32_t> epoch_{
      0};  // one more for every region, and for the stop: what parked workers watch
  std::atomic<bool> stop_{false};
  std::vector<std::thread> threads_;
};

}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_CPU_WORKER_POOL_H_
