#include "kernels/host_device.h"

#include <unistd.h>

#include <cstring>

#include "kernels/check.h"
#include "kernels/host_memory.h"
#include "kernels/host_memory_info.h"

namespace thermocline {

absl::StatusOr<Buffer> HostDevice::Allocate(MemoryKind kind, int64_t bytes) {
  TC_CHECK(kind != MemoryKind::kDevice) << "the host has no device memory";
  return AllocateHost(bytes);
}

MemoryInfo HostDevice::memory() const {
  const int64_t pages = sysconf(_SC_PHYS_PAGES), page_bytes = sysconf(_SC_PAGESIZE);
  return {.total = pages * page_bytes, .free = AvailableMemoryBytes()};
}

void HostDevice::Copy(Queue, const void* from, void* to, int64_t bytes) {
  if (bytes > 0) std::memcpy(to, from, static_cast<size_t>(bytes));
}

}  // namespace thermocline
