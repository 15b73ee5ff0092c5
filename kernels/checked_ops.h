// CheckedOps: the operations of another DenseOps behind checks of every shape.
#ifndef THERMOCLINE_KERNELS_CHECKED_OPS_H_
#define THERMOCLINE_KERNELS_CHECKED_OPS_H_

#include <memory>

#include "kernels/dense_ops.h"

namespace thermocline {

// A wrong shape is our own bug and ends the program. Values (ids, slots, positions) lie on the
// device and are checked there, if anywhere.
std::unique_ptr<DenseOps> MakeCheckedOps(std::unique_ptr<DenseOps> inner);

}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_CHECKED_OPS_H_
