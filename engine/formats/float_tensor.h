// Tensors of any weight format as f32, and f32 as F32, F16 or BF16.
#ifndef THERMOCLINE_ENGINE_FORMATS_FLOAT_TENSOR_H_
#define THERMOCLINE_ENGINE_FORMATS_FLOAT_TENSOR_H_

#include <cstdint>
#include <vector>

#include "kernels/dtype.h"

namespace thermocline {

std::vector<float> ToFloats(DType dtype, const uint8_t* bytes, int64_t num_elems);
// Rounds to nearest, ties to even. Other types are our own bug (engine/convert/quantize_model.h
// quantises).
std::vector<uint8_t> FromFloats(DType dtype, const std::vector<float>& values);

}  // namespace thermocline

#endif  // THERMOCLINE_ENGINE_FORMATS_FLOAT_TENSOR_H_
