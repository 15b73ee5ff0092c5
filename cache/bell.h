// Bell: an epoch to wait on. Raising it costs no system call while nobody sleeps.
#ifndef THERMOCLINE_CACHE_BELL_H_
#define THERMOCLINE_CACHE_BELL_H_

#include <atomic>
#include <chrono>
#include <cstdint>

#include "kernels/mutex.h"

namespace thermocline {

// Any thread. A sleeper reads the epoch before it looks for something to do; what it missed while
// it looked has moved the epoch, and Sleep returns at once.
class Bell {
 public:
  uint32_t Epoch() const { return epoch_.load(); }
  void Raise() {
    epoch_.fetch_add(1);
    if (sleepers_.load() == 0) return;
    { const MutexLock lock(&mutex_); }  // a sleeper is asleep by now, or has seen the new epoch
    moved_.NotifyAll();
  }
  // Until the epoch is no longer `seen`, but no longer than `time`.
  void Sleep(uint32_t seen, std::chrono::nanoseconds time) {
    const auto end = std::chrono::steady_clock::now() + time;
    const MutexLock lock(&mutex_);
    sleepers_.fetch_add(1);
    while (epoch_.load() == seen) {
      const auto left = end - std::chrono::steady_clock::now();
      if (left <= std::chrono::nanoseconds(0) || !moved_.WaitFor(&mutex_, left)) break;
    }
    sleepers_.fetch_sub(1);
  }

 private:
  std::atomic<uint32_t> epoch_{0};
  std::atomic<int> sleepers_{0};
  Mutex mutex_;  // guards nothing but the moment between looking and sleeping
  CondVar moved_;
};

}  // namespace thermocline

#endif  // THERMOCLINE_CACHE_BELL_H_
