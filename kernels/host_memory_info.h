// How much memory this process holds, may still take, and may hold in all.
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

// Bytes of this process that the kernel can only swap: RssAnon and RssShmem of /proc/self/status. 0
// when they cannot be read.
int64_t OwnMemoryBytes(const std::string& root = "");

// Bytes that this process may hold in all, as the control groups say now and as far as others in
// the same groups leave them; int64_t's largest number: no limit.
struct MemoryLimits {
  int64_t hard = 0;  // v2 memory.max, v1 memory.limit_in_bytes: beyond it processes are killed
  // v2 memory.high: beyond it they are slowed down; v1 memory.soft_limit_in_bytes: what they are to
  // come down to when memory is short. Both may be changed at any time.
  int64_t soft = 0;
};
MemoryLimits GroupMemoryLimits(const std::string& root = "");

// Bytes of swap that memory of this process may go to: SwapTotal of /proc/meminfo, but none where
// one of its control groups has v2 memory.swap.max or v1 memory.swappiness 0.
int64_t SwapBytes(const std::string& root = "");

// All of it at one moment.
struct MemoryReading {
  int64_t held = 0;       // OwnMemoryBytes
  int64_t available = 0;  // AvailableMemoryBytes
  MemoryLimits limits;    // GroupMemoryLimits
};
MemoryReading ReadMemory(const std::string& root = "");

}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_HOST_MEMORY_INFO_H_
