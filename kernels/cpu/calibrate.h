// Measures which of the CPU kernels is fastest for how many tokens.
#ifndef THERMOCLINE_KERNELS_CPU_CALIBRATE_H_
#define THERMOCLINE_KERNELS_CPU_CALIBRATE_H_

#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "kernels/backend.h"

namespace thermocline {

// Times narrow and wide tiles of every format over weights that lie in memory, not in a cache, with
// all threads. Takes some seconds; `progress` (may be unset) hears the format's name.
absl::StatusOr<Calibration> CalibrateKernels(
    const std::string& isa, WorkerPool* pool,
    const std::function<void(absl::string_view)>& progress);

}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_CPU_CALIBRATE_H_
