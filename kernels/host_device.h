// HostDevice: the CPU's own memory. Every copy and operation is done when its call returns.
#ifndef THERMOCLINE_KERNELS_HOST_DEVICE_H_
#define THERMOCLINE_KERNELS_HOST_DEVICE_H_

#include "kernels/device.h"

namespace thermocline {

class HostDevice : public Device {
 public:
  MemoryKind memory_kind() const override { return MemoryKind::kHost; }
  absl::StatusOr<Buffer> Allocate(MemoryKind kind, int64_t bytes) override;
  MemoryInfo memory() const override;

  void Copy(Queue queue, const void* from, void* to, int64_t bytes) override;
  EventId Record(Queue) override { return 0; }
  void WaitOn(Queue, EventId) override {}
  bool Passed(EventId) override { return true; }
  absl::Status Wait(EventId) override { return absl::OkStatus(); }
  absl::Status health() const override { return absl::OkStatus(); }
};

}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_HOST_DEVICE_H_
