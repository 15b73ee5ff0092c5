// WorkerPool: a fixed set of worker threads that run one parallel region at a time. The engine owns
// it and lends it to kernels, sampling and loading.
#ifndef THERMOCLINE_KERNELS_WORKER_POOL_H_
#define THERMOCLINE_KERNELS_WORKER_POOL_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "kernels/mutex.h"

namespace thermocline {

// The calling thread is worker 0. Workers spin for some tens of microseconds after a region and
// then park, so that a decode step pays no wake-ups between its regions while an idle server uses
// no CPU.
//
// Where other programs want the same cores, the system takes a worker off its core in the middle of
// a task, and short regions end by waiting for it. A worker that costs more than it gives in this
// way is left out for a while, longer each time.
class WorkerPool {
 public:
  // num_threads: 0 for one a core that this process may use (kernels/cpu/topology.h); `pin`: to
  // cores of their own, if they have all of the machine's. INVALID_ARGUMENT for a count out of
  // range.
  static absl::StatusOr<std::unique_ptr<WorkerPool>> Create(int num_threads, bool pin);

  // num_threads >= 1, the caller included. `pin`: worker i stays on core i; the caller moves
  // freely.
  explicit WorkerPool(int num_threads, bool pin = false);
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  int num_threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls fn(task, worker) once for every task in [0, num_tasks); tasks are handed out in ascending
  // order. Returns when all are done; everything fn wrote is then visible to the caller. One caller
  // at a time; fn must not open another region.
  void ParallelFor(int64_t num_tasks, absl::FunctionRef<void(int64_t task, int worker)> fn);
  // Calls fn(row) for rows [0, num_rows) of about `elems` simple operations each, several to a
  // task.
  void ForRows(int64_t num_rows, int64_t elems, absl::FunctionRef<void(int64_t row)> fn);
  // Calls loop(worker) on the caller, as worker 0, and on every other worker that comes while the
  // caller's has not returned; some may never come. Returns when all that came have left. For work
  // that is not known beforehand: the caller's loop ends when nothing is left for anybody.
  void Together(absl::FunctionRef<void(int worker)> loop);

 private:
  struct Worker {
    std::thread thread;
    std::atomic<bool> inside{false};       // a region
    std::atomic<int64_t> out_until_ns{0};  // left out until then (steady clock); 0: takes part
    // What the caller knows of it.
    int64_t stolen_ns = 0;    // waited for it while it did not run, in this window
    int64_t next_out_ns = 0;  // how long it will be left out next time
    int64_t cpu_ns = 0;       // processor time when the wait began; -1: not waited for
  };

  void WorkerLoop(int index, Worker* worker);
  // Returns when all workers have left the region.
  void WaitForWorkers();
  // Adds what the wait cost to the workers' accounts, and leaves out who costs too much.
  void Judge(int64_t begin_ns, int64_t end_ns);
  // Joins the open region, if there is one.
  bool Enter();

  // A region is open while kOpen is set; the low bits count the workers inside. A worker that is
  // late, or was descheduled, finds the region closed and stays out: the caller waits only for
  // those who took part.
  static constexpr uint32_t kOpen = uint32_t{1} << 31;

  // Written while nobody is inside, read inside.
  const absl::FunctionRef<void(int)>* loop_ = nullptr;
  std::atomic<uint32_t> state_{0};
  std::atomic<uint32_t> epoch_{
      0};  // one more for every region, and for the stop: what parked workers watch
  std::atomic<bool> stop_{false};
  Mutex mutex_;  // with stopped_: wakes workers that are left out; guards nothing else
  CondVar stopped_;
  int64_t window_begin_ns_ = 0;
  std::vector<std::unique_ptr<Worker>> workers_;  // without the caller
};

}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_WORKER_POOL_H_
