// The scalar level: what every x86-64 processor runs.
#include "kernels/cpu/vec_scalar.h"
// After the vector types:
#include "kernels/cpu/kernels_impl.h"

namespace thermocline {

const CpuKernels& ScalarKernels() {
  static const CpuKernels kernels = MakeKernels("scalar");
  return kernels;
}

}  // namespace thermocline
