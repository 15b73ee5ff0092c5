// Scratch: a stack of short-lived tensors in one device's memory, kept from step to step.
#ifndef THERMOCLINE_ENGINE_SCRATCH_H_
#define THERMOCLINE_ENGINE_SCRATCH_H_

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

  explicit Scratch(Device* device) : device_(device) {}

  // 64-byte aligned; valid until a Release to an earlier mark.
  void* Allocate(int64_t bytes);
  Position Mark() const { return top_; }
  void Release(Position mark) { top_ = mark; }
  int64_t capacity_bytes() const;

 private:
  Device* device_;
  std::vector<Buffer> chunks_;
  Position top_;
};

}  // namespace thermocline

#endif  // THERMOCLINE_ENGINE_SCRATCH_H_
