// How much memory this process may still take.
#ifndef THERMOCLINE_KERNELS_HOST_MEMORY_INFO_H_
#define THERMOCLINE_KERNELS_HOST_MEMORY_INFO_H_

#include <cstdint>
#include <string>

namespace thermocline {

// Bytes that can be taken without swapping or being killed: the least of MemAvailable of
// /proc/meminfo (4 GiB when it cannot be read) and of what each control group of this process has
// left: v2 memory.max and memory.high, v1 memory.limit_in_bytes, up to the root, with the page
// cache and slabs that the kernel gives back counted as free. Never negative. `root` precedes /proc
// and /sys (tests).
int64_t AvailableMemoryBytes(const std::string& root = "");

}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_HOST_MEMORY_INFO_H_
