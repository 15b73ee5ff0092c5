#include "engine/formats/float_tensor.h"

#include <cstring>

#include "kernels/check.h"
#include "kernels/quant/float_bits.h"
#include "kernels/quant/registry.h"

namespace thermocline {

std::vector<float> ToFloats(DType dtype, const uint8_t* bytes, int64_t num_elems) {
  const WeightFormat& format = GetFormat(dtype);
  std::vector<float> values(static_cast<size_t>(num_elems));
  format.decode(bytes, num_elems / format.block_elems, values.data());
  return values;
}

std::vector<uint8_t> FromFloats(DType dtype, const std::vector<float>& values) {
  std::vector<uint8_t> bytes(
      static_cast<size_t>(BytesOf(dtype, static_cast<int64_t>(values.size()))));
  if (dtype == DType::kF32) {
    std::memcpy(bytes.data(), values.data(), bytes.size());
    return bytes;
  }
  TC_CHECK(dtype == DType::kF16 || dtype == DType::kBF16);
  for (size_t i = 0; i < values.size(); ++i) {
    const uint16_t half =
        dtype == DType::kF16 ? FloatToHalf(values[i]) : FloatToBfloat16(values[i]);
    std::memcpy(&bytes[2 * i], &half, 2);
  }
  return bytes;
}

}  // namespace thermocline
