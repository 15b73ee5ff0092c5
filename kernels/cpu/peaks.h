// What this machine can do at most, measured by the instructions that the kernels use.
#ifndef THERMOCLINE_KERNELS_CPU_PEAKS_H_
#define THERMOCLINE_KERNELS_CPU_PEAKS_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/buffer.h"
#include "kernels/cpu/kernels.h"
#include "kernels/worker_pool.h"

namespace thermocline {

class PeakMeter {
 public:
  // `isa` as in BackendOptions; the pool outlives the meter. Takes buffer_bytes of memory to read,
  // which should exceed every cache several times. RESOURCE_EXHAUSTED without it.
  static absl::StatusOr<std::unique_ptr<PeakMeter>> Create(const std::string& isa, WorkerPool* pool,
                                                           int64_t buffer_bytes);

  // Reads memory that is there instead, which outlives the meter. Nobody writes to it meanwhile.
  static absl::StatusOr<std::unique_ptr<PeakMeter>> Create(
      const std::string& isa, WorkerPool* pool, std::vector<absl::Span<const char>> memory);

  // One pass over the memory by all threads, GB/s. Takes tenths of a second.
  double ReadGbPerSecond() const;
  // Byte products on all threads, Gop/s (a multiplication and an addition are two).
  double Int8GopPerSecond() const;
  // Cycles of a chain of dependent additions on one thread, GHz.
  static double ClockGhz();

  int64_t memory_bytes() const;

 private:
  PeakMeter(const CpuKernels& kernels, WorkerPool* pool, Buffer buffer,
            std::vector<absl::Span<const char>> memory)
      : kernels_(kernels), pool_(pool), buffer_(std::move(buffer)), memory_(std::move(memory)) {}

  const CpuKernels& kernels_;
  WorkerPool* pool_;
  Buffer buffer_;  // empty: the memory is somebody else's
  std::vector<absl::Span<const char>> memory_;
};

}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_CPU_PEAKS_H_
