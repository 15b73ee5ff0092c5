#include "kernels/cpu/worker_pool.h"

#include "kernels/check.h"
#include "kernels/cpu/topology.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace thermocline {
namespace {

// About 40 us: longer than the gap between two regions of a step, shorter than a scheduling
// quantum.
constexpr int kSpinsBeforePark = 1000;

void Pause() {
#if defined(__x86_64__)
  _mm_pause();
#endif
}

}  // namespace

WorkerPool::WorkerPool(int num_threads, bool pin) {
  TC_CHECK(num_threads >= 1);
  threads_.reserve(static_cast<size_t>(num_threads - 1));
  for (int worker = 1; worker < num_threads; ++worker) {
    threads_.emplace_back([this, worker, pin] {
      if (pin) PinToCore(worker);
      WorkerLoop(worker);
    });
  }
}

WorkerPool::~WorkerPool() {
  stop_.store(true, std::memory_order_relaxed);
  epoch_.fetch_add(1, std::memory_order_release);
  epoch_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void WorkerPool::Run(int64_t num_tasks, absl::FunctionRef<void(int64_t, int)> fn) {
  if (threads_.empty() || num_tasks <= 1) {
    for (int64_t task = 0; task < num_tasks; ++task) fn(task, 0);
    return;
  }
  job_ = {&fn, num_tasks};
  next_task_.store(0, std::memory_order_relaxed);
  state_.store(kOpen, std::memory_order_release);  // publishes the job
  epoch_.fetch_add(1, std::memory_order_release);
  epoch_.notify_all();
  TakeTasks(0);
  state_.fetch_and(~kOpen, std::memory_order_relaxed);
  // Acquire: what the workers wrote becomes visible here.
  for (int spins = 0; state_.load(std::memory_order_acquire) != 0; ++spins) {
    if (spins < kSpinsBeforePark) {
      Pause();
    } else {
      std::this_thread::yield();  // a worker was descheduled inside: let it have this core
    }
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

void WorkerPool::TakeTasks(int worker) {
  while (true) {
    const int64_t task = next_task_.fetch_add(1, std::memory_order_relaxed);
    if (task >= job_.num_tasks) return;
    (*job_.fn)(task, worker);
  }
}

void WorkerPool::WorkerLoop(int worker) {
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
    if (!Enter()) continue;
    TakeTasks(worker);
    state_.fetch_sub(1, std::memory_order_release);
  }
}

}  // namespace thermocline
