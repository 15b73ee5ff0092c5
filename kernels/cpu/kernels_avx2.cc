// The avx2 level: AVX2, FMA and F16C.
#include "kernels/cpu/vec_avx2.h"
// After the vector types:
#include "kernels/cpu/kernels_impl.h"

namespace thermocline {

const CpuKernels& Avx2Kernels() {
  static const CpuKernels kernels = MakeKernels("avx2");
  return kernels;
}

}  // namespace thermocline
