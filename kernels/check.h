// TC_CHECK aborts with a message on a broken invariant of our own; never used on input from
// outside.
#ifndef THERMOCLINE_KERNELS_CHECK_H_
#define THERMOCLINE_KERNELS_CHECK_H_

#include <sstream>

namespace thermocline::internal {

class CheckFailure {
 public:
  CheckFailure(const char* file, int line, const char* condition);
  [[noreturn]] ~CheckFailure();
  std::ostream& stream() { return stream_; }

 private:
  std::ostringstream stream_;
};

struct Voidify {
  void operator&(std::ostream&) {}
};

}  // namespace thermocline::internal

#define TC_CHECK(condition)                          \
  (condition) ? (void)0                              \
              : ::thermocline::internal::Voidify() & \
                    ::thermocline::internal::CheckFailure(__FILE__, __LINE__, #condition).stream()

#endif  // THERMOCLINE_KERNELS_CHECK_H_
