// Device: the memory, queues and copies of one place where tensors lie and operations run.
//
// What is enqueued runs later, in order within its queue and in any order between queues, unless
// one queue waits for an event of another. Nothing here waits for it but Wait. Called by one
// thread, the engine's; the memory of Allocate may be freed by any.
#ifndef THERMOCLINE_KERNELS_DEVICE_H_
#define THERMOCLINE_KERNELS_DEVICE_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/buffer.h"

namespace thermocline {

// A point in a queue. 0 is the point before everything, which has always passed.
using EventId = uint64_t;

// Operations run on kCompute; copies on any.
enum class Queue : uint8_t { kCompute, kCopyIn, kCopyOut };
inline constexpr int kNumQueues = 3;

// Bytes. The host's are those that its control groups leave (kernels/host_memory.h).
struct MemoryInfo {
  int64_t total = 0;
  int64_t free = 0;
};

class Device {
 public:
  virtual ~Device() = default;

  // Where the operations of this device read and write.
  virtual MemoryKind memory_kind() const = 0;
  // Memory of a kind, aligned to 64 bytes, contents undefined. kHost and kPinned can be read by the
  // CPU. RESOURCE_EXHAUSTED when there is none.
  virtual absl::StatusOr<Buffer> Allocate(MemoryKind kind, int64_t bytes) = 0;
  absl::StatusOr<Buffer> Allocate(int64_t bytes) { return Allocate(memory_kind(), bytes); }
  virtual MemoryInfo memory() const = 0;

  // Copies between any two of host memory and this device's. Both sides stay alive, and `from`
  // unchanged, until the copy has passed.
  virtual void Copy(Queue queue, const void* from, void* to, int64_t bytes) = 0;
  // Marks the end of what the queue holds so far.
  virtual EventId Record(Queue queue) = 0;
  // What is enqueued from here on in `queue` starts after the event. The caller goes on.
  virtual void WaitOn(Queue queue, EventId event) = 0;
  // Whether everything before the event is done. Does not wait.
  virtual bool Passed(EventId event) = 0;
  // Returns when everything before the event is done, with the first error that the device met.
  virtual absl::Status Wait(EventId event) = 0;
  // UNAVAILABLE for good once the device is lost.
  virtual absl::Status health() const = 0;

  // Waits for the queue.
  absl::Status Synchronize(Queue queue = Queue::kCompute) { return Wait(Record(queue)); }
};

}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_DEVICE_H_
