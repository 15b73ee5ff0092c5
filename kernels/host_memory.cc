#include "kernels/host_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "kernels/cpu/topology.h"

namespace thermocline {
namespace {

constexpr int64_t kHugePageBytes = int64_t{2} << 20;
constexpr int64_t kCacheLineBytes = 64;

void FreeHost(void*, void* data, int64_t) { std::free(data); }

}  // namespace

absl::StatusOr<Buffer> AllocateHost(int64_t bytes) {
  const int64_t wanted = std::max<int64_t>(bytes, 1);
  const bool large = wanted >= 4 * kHugePageBytes;
  const int64_t alignment = large ? kHugePageBytes : kCacheLineBytes;
  const int64_t rounded = (wanted + alignment - 1) / alignment * alignment;
  void* data = std::aligned_alloc(static_cast<size_t>(alignment), static_cast<size_t>(rounded));
  if (data == nullptr) {
    return absl::ResourceExhaustedError(
        absl::StrCat("cannot allocate ", bytes, " bytes of host memory"));
  }
  if (large) {
    // Only advice: a refusal costs speed, not correctness.
    InterleaveOverNodes(data, rounded);
    madvise(data, static_cast<size_t>(rounded), MADV_HUGEPAGE);
  }
  return Buffer(data, bytes, MemoryKind::kHost, &FreeHost, nullptr);
}

}  // namespace thermocline
