#include "engine/formats/gguf_types.h"

#include "absl/strings/str_cat.h"
#include "kernels/check.h"
#include "kernels/quant/registry.h"

namespace thermocline {
namespace {

struct TypeNumber {
  uint32_t ggml_type;
  DType dtype;
};

constexpr TypeNumber kTypes[] = {
    {0, DType::kF32},     {1, DType::kF16},     {2, DType::kQ4_0},  {3, DType::kQ4_1},
    {6, DType::kQ5_0},    {7, DType::kQ5_1},    {8, DType::kQ8_0},  {10, DType::kQ2_K},
    {11, DType::kQ3_K},   {12, DType::kQ4_K},   {13, DType::kQ5_K}, {14, DType::kQ6_K},
    {20, DType::kIQ4_NL}, {23, DType::kIQ4_XS}, {26, DType::kI32},  {30, DType::kBF16},
    {39, DType::kMXFP4},
};

}  // namespace

absl::StatusOr<DType> DTypeOfGgml(uint32_t ggml_type) {
  std::string supported;
  for (const TypeNumber& type : kTypes) {
    if (type.ggml_type == ggml_type) return type.dtype;
    absl::StrAppend(&supported, supported.empty() ? "" : ", ", GetFormat(type.dtype).name);
  }
  return absl::UnimplementedError(
      absl::StrCat("ggml type ", ggml_type, " is not supported; supported are ", supported));
}

uint32_t GgmlTypeOf(DType dtype) {
  for (const TypeNumber& type : kTypes) {
    if (type.dtype == dtype) return type.ggml_type;
  }
  TC_CHECK(false) << "no GGUF type for " << GetFormat(dtype).name;
  return 0;
}

int64_t GgufFileType(DType dtype) {
  switch (dtype) {
    case DType::kF16:
      return 1;
    case DType::kQ4_0:
      return 2;
    case DType::kQ8_0:
      return 7;
    case DType::kQ4_K:
      return 15;
    case DType::kQ5_K:
      return 17;
    case DType::kQ6_K:
      return 18;
    case DType::kIQ4_NL:
      return 25;
    case DType::kBF16:
      return 32;
    case DType::kMXFP4:
      return 38;
    default:
      return 0;
  }
}

}  // namespace thermocline
