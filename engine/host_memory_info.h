// How much memory the machine has to give.
#ifndef THERMOCLINE_ENGINE_HOST_MEMORY_INFO_H_
#define THERMOCLINE_ENGINE_HOST_MEMORY_INFO_H_

#include <cstdint>

namespace thermocline {

// MemAvailable of /proc/meminfo in bytes, or 4 GiB when it cannot be read.
int64_t AvailableMemoryBytes();

}  // namespace thermocline

#endif  // THERMOCLINE_ENGINE_HOST_MEMORY_INFO_H_
