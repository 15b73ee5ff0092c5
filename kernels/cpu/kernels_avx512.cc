// The avx512 level: AVX-512 F, BW, DQ, VL and VNNI.
#include "kernels/cpu/vec_avx512.h"
// After the vector types:
#include "kernels/cpu/kernels_impl.h"

namespace thermocline {

const CpuKernels& Avx512Kernels() {
  static const CpuKernels kernels = MakeKernels("avx512");
  return kernels;
}

}  // namespace thermocline
