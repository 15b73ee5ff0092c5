// Tensors of any weight format as f32, and f32 as F32, F16 or BF16.
#ifndef THERMOCLINE_ENGINE_FORMATS_FLOAT_TENSOR_H_
#define THERMOCLINE_ENGINE_FORMATS_FLOAT_TENSOR_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "kernels/dtype.h"

namespace thermocline {

std::vector<float> ToFloats(DType dtype, const uint8_t* bytes, int64_t num_elems);
// Rounds to nearest, ties to even. Other types are our own bug
// (engine/model/convert/quantize_model.h quantises).
std::vector<uint8_t> FromFloats(DType dtype, const std::vector<float>& values);

// True when none is infinite or NaN.
bool AllFinite(absl::Span<const float> values);
// Whether weights are finite and stay so in `stored`, whole blocks of `dtype` that hold them.
// INVALID_ARGUMENT names the tensor, the weight that is not finite or beyond the type's range, and
// the type.
absl::Status CheckRange(absl::string_view tensor, DType dtype, absl::Span<const float> weights,
                        const uint8_t* stored);

}  // namespace thermocline

#endif  // THERMOCLINE_ENGINE_FORMATS_FLOAT_TENSOR_H_
