// Which instruction-set levels the processor offers.
#ifndef THERMOCLINE_KERNELS_CPU_ISA_H_
#define THERMOCLINE_KERNELS_CPU_ISA_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "kernels/cpu/kernels.h"

namespace thermocline {

// Levels this processor runs, worst first: a prefix of {"scalar", "avx2", "avx512"}.
std::vector<std::string> AvailableIsaLevels();

// The kernels of a level. Empty means the environment variable THERMOCLINE_CPU_ISA, or else the
// best available. INVALID_ARGUMENT names the value and what this machine allows.
absl::StatusOr<const CpuKernels*> SelectKernels(absl::string_view level);

}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_CPU_ISA_H_
