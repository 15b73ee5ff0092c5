#include "kernels/quant/registry.h"

#include <cstring>

#include "kernels/check.h"
#include "kernels/quant/decode.h"
#include "kernels/quant/iq4_nl.h"
#include "kernels/quant/iq4_xs.h"
#include "kernels/quant/mxfp4.h"
#include "kernels/quant/q2_k.h"
#include "kernels/quant/q3_k.h"
#include "kernels/quant/q4_0.h"
#include "kernels/quant/q4_1.h"
#include "kernels/quant/q4_k.h"
#include "kernels/quant/q5_0.h"
#include "kernels/quant/q5_1.h"
#include "kernels/quant/q5_k.h"
#include "kernels/quant/q6_k.h"
#include "kernels/quant/q8_0.h"

namespace thermocline {
namespace {

void DecodeF32(const uint8_t* blocks, int64_t num_blocks, float* out) {
  std::memcpy(out, blocks, static_cast<size_t>(num_blocks) * sizeof(float));
}

void DecodeF16(const uint8_t* blocks, int64_t num_blocks, float* out) {
  for (int64_t i = 0; i < num_blocks; ++i) out[i] = HalfToFloat(LoadU16(blocks + 2 * i));
}

void DecodeBf16(const uint8_t* blocks, int64_t num_blocks, float* out) {
  for (int64_t i = 0; i < num_blocks; ++i) out[i] = Bfloat16ToFloat(LoadU16(blocks + 2 * i));
}

template <class Format>
WeightFormat Entry() {
  return {Format::kDType, Format::kName, Format::kBlockElems, Format::kBlockBytes,
          &DecodeBlocks<Format>};
}

std::vector<WeightFormat> MakeFormats() {
  return {
      {DType::kF32, "F32", 1, 4, &DecodeF32},
      {DType::kF16, "F16", 1, 2, &DecodeF16},
      {DType::kBF16, "BF16", 1, 2, &DecodeBf16},
      {DType::kI32, "I32", 1, 4, nullptr},
      Entry<FormatQ4_0>(),
      Entry<FormatQ4_1>(),
      Entry<FormatQ5_0>(),
      Entry<FormatQ5_1>(),
      Entry<FormatQ8_0>(),
      Entry<FormatQ2K>(),
      Entry<FormatQ3K>(),
      Entry<FormatQ4K>(),
      Entry<FormatQ5K>(),
      Entry<FormatQ6K>(),
      Entry<FormatIq4Nl>(),
      Entry<FormatIq4Xs>(),
      Entry<FormatMxfp4>(),
  };
}

}  // namespace

const std::vector<WeightFormat>& AllFormats() {
  static const std::vector<WeightFormat>* const formats =
      new std::vector<WeightFormat>(MakeFormats());
  return *formats;
}

const WeightFormat& GetFormat(DType dtype) {
  const WeightFormat& format = AllFormats()[static_cast<size_t>(dtype)];
  TC_CHECK(format.dtype == dtype) << "format table out of order at " << format.name;
  return format;
}

int64_t BytesOf(DType dtype, int64_t num_elems) {
  const WeightFormat& format = GetFormat(dtype);
  TC_CHECK(num_elems % format.block_elems == 0)
      << num_elems << " elements are not whole blocks of " << format.name;
  return num_elems / format.block_elems * format.block_bytes;
}

bool IsQuantized(DType dtype) { return GetFormat(dtype).block_elems > 1; }

}  // namespace thermocline
