#include "kernels/worker_pool.h"

#include <pthread.h>
#include <time.h>

#include <algorithm>
#include <chrono>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"
#include "kernels/cpu/topology.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace thermocline {
namespace {

constexpr int kMaxThreads = 1024;
constexpr int64_t kInlineElems = 1 << 14;  // of ForRows: work below this stays on the caller

// About 40 us: longer than the gap between two regions of a step, shorter than a scheduling
// quantum.
constexpr int kSpinsBeforePark = 1000;

// A worker is left out when the time waited for it while it did not run exceeds this share of what
// it can contribute, one thread's part of all time.
constexpr double kWorthless = 0.7;
constexpr int64_t kShortWaitNs = 200'000;  // not worth looking at
constexpr int64_t kWindowNs = 50'000'000;
constexpr int64_t kShortestOutNs = 200'000'000, kLongestOutNs = 2'000'000'000;

int64_t NowNs() {
  return std::chrono::steady_clock::now().time_since_epoch() / std::chrono::nanoseconds(1);
}

// Processor time that a thread has had.
int64_t CpuTimeNs(std::thread* thread) {
  clockid_t clock;
  timespec time = {};
  if (pthread_getcpuclockid(thread->native_handle(), &clock) == 0) clock_gettime(clock, &time);
  return time.tv_sec * int64_t{1'000'000'000} + time.tv_nsec;
}

void Pause() {
#if defined(__x86_64__)
  _mm_pause();
#endif
}

}  // namespace

WorkerPool::WorkerPool(int num_threads, bool pin) {
  TC_CHECK(num_threads >= 1);
  for (int i = 1; i < num_threads; ++i) {
    workers_.push_back(std::make_unique<Worker>());
    Worker* worker = workers_.back().get();
    worker->next_out_ns = kShortestOutNs;
    worker->thread = std::thread([this, i, worker, pin] {
      if (pin) PinToCore(i);
      WorkerLoop(i, worker);
    });
  }
}

WorkerPool::~WorkerPool() {
  {
    const MutexLock lock(&mutex_);
    stop_.store(true, std::memory_order_relaxed);
  }
  stopped_.NotifyAll();
  epoch_.fetch_add(1, std::memory_order_release);
  epoch_.notify_all();
  for (const auto& worker : workers_) worker->thread.join();
}

absl::StatusOr<std::unique_ptr<WorkerPool>> WorkerPool::Create(int num_threads, bool pin) {
  if (num_threads < 0 || num_threads > kMaxThreads) {
    return absl::InvalidArgumentError(absl::StrCat(
        "threads = ", num_threads, ", but 0 (all cores) to ", kMaxThreads, " are allowed"));
  }
  if (num_threads == 0) num_threads = NumUsableCores();
  return std::make_unique<WorkerPool>(num_threads, pin && MayPin(num_threads));
}

void WorkerPool::ParallelFor(int64_t num_tasks, absl::FunctionRef<void(int64_t, int)> fn) {
  if (workers_.empty() || num_tasks <= 1) {
    for (int64_t task = 0; task < num_tasks; ++task) fn(task, 0);
    return;
  }
  std::atomic<int64_t> next_task{0};
  Together([&](int worker) {
    for (int64_t task; (task = next_task.fetch_add(1, std::memory_order_relaxed)) < num_tasks;) {
      fn(task, worker);
    }
  });
}

void WorkerPool::ForRows(int64_t num_rows, int64_t elems, absl::FunctionRef<void(int64_t)> fn) {
  const int64_t rows_per_task = std::max<int64_t>(1, kInlineElems / elems);
  ParallelFor((num_rows + rows_per_task - 1) / rows_per_task, [&](int64_t task, int) {
    const int64_t end = std::min(num_rows, (task + 1) * rows_per_task);
    for (int64_t n = task * rows_per_task; n < end; ++n) fn(n);
  });
}

void WorkerPool::Together(absl::FunctionRef<void(int)> loop) {
  loop_ = &loop;
  state_.store(kOpen, std::memory_order_release);  // publishes the loop
  epoch_.fetch_add(1, std::memory_order_release);
  epoch_.notify_all();
  loop(0);
  state_.fetch_and(~kOpen, std::memory_order_relaxed);
  WaitForWorkers();
}

void WorkerPool::WaitForWorkers() {
  // Acquire: what the workers wrote becomes visible here.
  for (int spins = 0; spins < kSpinsBeforePark; ++spins) {
    if (state_.load(std::memory_order_acquire) == 0) return;
    Pause();
  }
  for (const auto& worker : workers_) {
    worker->cpu_ns =
        worker->inside.load(std::memory_order_relaxed) ? CpuTimeNs(&worker->thread) : -1;
  }
  const int64_t begin = NowNs();
  while (state_.load(std::memory_order_acquire) != 0) std::this_thread::yield();
  Judge(begin, NowNs());
}

void WorkerPool::Judge(int64_t begin_ns, int64_t end_ns) {
  const int64_t waited = end_ns - begin_ns;
  if (waited < kShortWaitNs) return;
  for (const auto& worker : workers_) {
    if (worker->cpu_ns >= 0 && CpuTimeNs(&worker->thread) - worker->cpu_ns < waited / 2) {
      worker->stolen_ns += waited;
    }
  }
  const int64_t window = end_ns - window_begin_ns_;
  if (window < kWindowNs) return;
  window_begin_ns_ = end_ns;
  for (const auto& worker : workers_) {
    const double stolen = static_cast<double>(worker->stolen_ns) / static_cast<double>(window);
    worker->stolen_ns = 0;
    if (window > 4 * kWindowNs) continue;  // nothing was computed for a part of it
    if (stolen * num_threads() < kWorthless) {
      worker->next_out_ns = kShortestOutNs;
      continue;
    }
    worker->out_until_ns.store(end_ns + worker->next_out_ns, std::memory_order_relaxed);
    worker->next_out_ns = std::min(2 * worker->next_out_ns, kLongestOutNs);
  }
}

bool WorkerPool::Enter() {
  uint32_t state = state_.load(std::memory_order_relaxed);
  while ((state & kOpen) != 0) {
    // Acquire: sees the job that the open region belongs to.
    if (state_.compare_exchange_weak(state, state + 1, std::memory_order_acquire,
                                     std::memory_order_relaxed)) {
      return true;
    }
  }
  return false;
}

void WorkerPool::WorkerLoop(int index, Worker* worker) {
  uint32_t seen = 0;
  while (true) {
    uint32_t epoch = epoch_.load(std::memory_order_acquire);
    for (int spins = 0; epoch == seen && spins < kSpinsBeforePark; ++spins) {
      Pause();
      epoch = epoch_.load(std::memory_order_acquire);
    }
    if (epoch == seen) {
      epoch_.wait(seen, std::memory_order_acquire);
      continue;
    }
    seen = epoch;
    if (stop_.load(std::memory_order_relaxed)) return;
    if (const int64_t until = worker->out_until_ns.load(std::memory_order_relaxed); until != 0) {
      const MutexLock lock(&mutex_);
      while (!stop_.load(std::memory_order_relaxed) &&
             stopped_.WaitFor(&mutex_, std::chrono::nanoseconds(until - NowNs()))) {
      }
      worker->out_until_ns.store(0, std::memory_order_relaxed);
      continue;
    }
    if (!Enter()) continue;
    worker->inside.store(true, std::memory_order_relaxed);
    (*loop_)(index);
    worker->inside.store(false, std::memory_order_relaxed);
    state_.fetch_sub(1, std::memory_order_release);
  }
}

}  // namespace thermocline
