// Quantisers: f32 weights to the blocks of a weight format.
//
// Each minimises sum of importance[i] * (w[i] - decoded[i])^2 over a block, importance being 1
// without a matrix and mixed with a little of its mean with one. Codes follow from the scales by
// rounding; the scales are searched: a first set by trying ranges, then alternately the best codes
// for the scales and the best scales for the codes (least squares), in the precision in which they
// are stored. Ranges and alternation as in k-quants (Kawrakow 2023, llama.cpp pull request 1684);
// the objective and the search over stored scales are ours.
#ifndef THERMOCLINE_KERNELS_QUANT_QUANTIZE_H_
#define THERMOCLINE_KERNELS_QUANT_QUANTIZE_H_

#include <cstdint>
#include <vector>

#include "kernels/dtype.h"

namespace thermocline {

// Types that QuantizeRow writes: F32, F16, BF16, Q8_0, Q4_0, Q4_K, Q5_K, Q6_K, IQ4_NL, MXFP4.
bool CanQuantize(DType dtype);
std::vector<DType> QuantizableTypes();

// One row of n weights, whole blocks of dtype; weights are finite. importance [n], finite and >= 0,
// or null. Writes BytesOf(dtype, n) bytes. Any thread; the result depends on nothing else.
void QuantizeRow(DType dtype, const float* weights, int64_t n, const float* importance,
                 uint8_t* out);

}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_QUANT_QUANTIZE_H_
