// What this machine can do at most, measured by the instructions that the kernels use.
#ifndef THERMOCLINE_KERNELS_CPU_PEAKS_H_
#define THERMOCLINE_KERNELS_CPU_PEAKS_H_

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "kernels/buffer.h"
#include "kernels/cpu/kernels.h"

namespace thermocline {

class PeakMeter {
 public:
  // `isa` as in BackendOptions; num_threads >= 1. Takes buffer_bytes of memory to read, which
  // should exceed every cache several times. RESOURCE_EXHAUSTED without it.
  static absl::StatusOr<std::unique_ptr<PeakMeter>> Create(const std::string& isa, int num_threads,
                                                           int64_t buffer_bytes);

  // One pass over the buffer by all threads, GB/s. Takes tenths of a second.
  double ReadGbPerSecond() const;
  // Byte products on all threads, Gop/s (a multiplication and an addition are two).
  double Int8GopPerSecond() const;
  // Cycles of a chain of dependent additions on one thread, GHz.
  static double ClockGhz();

  int64_t buffer_bytes() const { return buffer_.bytes(); }

 private:
  PeakMeter(const CpuKernels& kernels, int num_threads, Buffer buffer)
      : kernels_(kernels), num_threads_(num_threads), buffer_(std::move(buffer)) {}

  const CpuKernels& kernels_;
  const int num_threads_;
  Buffer buffer_;
};

}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_CPU_PEAKS_H_
