// WaitFor: for what other threads or processes do.
#ifndef THERMOCLINE_TESTS_SUPPORT_WAIT_FOR_H_
#define THERMOCLINE_TESTS_SUPPORT_WAIT_FOR_H_

#include <chrono>
#include <thread>

namespace thermocline {

// Looks every millisecond, long enough for any machine; false if it does not come true.
template <class Condition>
bool WaitFor(Condition condition) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::minutes(5);
  while (!condition()) {
    if (std::chrono::steady_clock::now() >= end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

}  // namespace thermocline

#endif  // THERMOCLINE_TESTS_SUPPORT_WAIT_FOR_H_
