// A backend whose memory has no bytes and whose operations compute nothing: a model's forward pass
// over it tells, in no time, what memory a step takes.
#ifndef THERMOCLINE_KERNELS_NULL_BACKEND_H_
#define THERMOCLINE_KERNELS_NULL_BACKEND_H_

#include <cstdint>
#include <memory>

#include "kernels/backend.h"

namespace thermocline {

// It has no experts. Shapes are checked as everywhere. `sizes`, which outlives it, learns the
// largest operation.
std::unique_ptr<Backend> MakeNullBackend(StepSizes* sizes);

}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_NULL_BACKEND_H_
