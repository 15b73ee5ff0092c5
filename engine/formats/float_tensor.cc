#include "engine/formats/float_tensor.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "absl/strings/str_cat.h"
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

bool AllFinite(absl::Span<const float> values) {
  return std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); });
}

absl::Status CheckRange(absl::string_view tensor, DType dtype, absl::Span<const float> weights,
                        const uint8_t* stored) {
  const auto is_wrong = [](float v) { return !std::isfinite(v); };
  const auto wrong = std::find_if(weights.begin(), weights.end(), is_wrong);
  if (wrong != weights.end()) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor \"", tensor, "\" holds ", *wrong, ", but weights are finite numbers"));
  }
  const WeightFormat& format = GetFormat(dtype);
  const std::vector<float> held = ToFloats(dtype, stored, static_cast<int64_t>(weights.size()));
  const auto lost = std::find_if(held.begin(), held.end(), is_wrong);
  if (lost == held.end()) return absl::OkStatus();
  // A block's scale follows from its largest weight.
  const size_t elems = static_cast<size_t>(format.block_elems);
  const absl::Span<const float> block =
      weights.subspan(static_cast<size_t>(lost - held.begin()) / elems * elems, elems);
  const float largest = *std::max_element(
      block.begin(), block.end(), [](float a, float b) { return std::fabs(a) < std::fabs(b); });
  return absl::InvalidArgumentError(absl::StrCat("tensor \"", tensor, "\" holds ", largest,
                                                 ", which is beyond the range of ", format.name));
}

}  // namespace thermocline
