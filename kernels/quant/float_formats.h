// F32, F16 and BF16 matrices in panels (kernels/quant/panels.h): [k / kTogether][16 rows][kTogether
// weights], and if k is odd the last weight of BF16 rows as [16 rows].
//
// BF16 lies in pairs, as the dot products of AVX512_BF16 and the second operand of AMX want them:
// oneDNN's format BA16a16b2a. Internal linkage: see float_bits.h.
#ifndef THERMOCLINE_KERNELS_QUANT_FLOAT_FORMATS_H_
#define THERMOCLINE_KERNELS_QUANT_FLOAT_FORMATS_H_

#include "kernels/dtype.h"

namespace thermocline {

struct FormatF32 {
  static constexpr DType kDType = DType::kF32;
  static constexpr int kBlockElems = 1;
  static constexpr int kBlockBytes = 4;
  static constexpr int kTogether = 1;
};

struct FormatF16 {
  static constexpr DType kDType = DType::kF16;
  static constexpr int kBlockElems = 1;
  static constexpr int kBlockBytes = 2;
  static constexpr int kTogether = 1;
};

struct FormatBf16 {
  static constexpr DType kDType = DType::kBF16;
  static constexpr int kBlockElems = 1;
  static constexpr int kBlockBytes = 2;
  static constexpr int kTogether = 2;
};

}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_QUANT_FLOAT_FORMATS_H_
