// Host allocations for backends whose memory the CPU reads.
#ifndef THERMOCLINE_KERNELS_HOST_MEMORY_H_
#define THERMOCLINE_KERNELS_HOST_MEMORY_H_

#include "absl/status/statusor.h"
#include "kernels/buffer.h"

namespace thermocline {

// Large allocations are aligned to 2 MiB and offered to the kernel as transparent huge pages; small
// ones to 64 bytes. RESOURCE_EXHAUSTED when the system refuses. At least one byte is allocated.
absl::StatusOr<Buffer> AllocateHost(int64_t bytes);

}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_HOST_MEMORY_H_
