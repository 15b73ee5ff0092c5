// Scratch: a stack of short-lived tensors in one device's memory, kept from step to step.
#ifndef THERMOCLINE_ENGINE_PASS_SCRATCH_H_
#define THERMOCLINE_ENGINE_PASS_SCRATCH_H_

#include <cstdint>
#include <vector>

#include "kernels/device.h"

namespace thermocline {

// Grows by chunks and never shrinks. Running out of memory for activations is a configuration error
// found at the first large step, so it is a CHECK and not a Status in every line of a model.
class Scratch {
 public:
  struct Position {
    size_t chunk = 0;
    int64_t offset = 0;
  };

  // `reserve`: bytes of the first chunk. A step that needs no more takes no other.
  explicit Scratch(Device* device, int64_t reserve = 0) : device_(device), reserve_(reserve) {}

  // 64-byte aligned; valid until a Release to an earlier mark.
  void* Allocate(int64_t bytes);
  Position Mark() const { return top_; }
  void Release(Position mark) { top_ = mark; }
  int64_t capacity_bytes() const;
  int64_t reserve_bytes() const { return reserve_; }
  // The most that was in use at once, of the first chunk.
  int64_t peak_bytes() const { return peak_; }

 private:
  Device* device_;
  const int64_t reserve_;
  int64_t peak_ = 0;
  std::vector<Buffer> chunks_;
  Position top_;
};

}  // namespace thermocline

#endif  // THERMOCLINE_ENGINE_PASS_SCRATCH_H_
