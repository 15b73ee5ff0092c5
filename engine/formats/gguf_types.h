// Numbers that the GGUF format gives to types. Source: docs/gguf.md and ggml.h of ggml.
#ifndef THERMOCLINE_ENGINE_FORMATS_GGUF_TYPES_H_
#define THERMOCLINE_ENGINE_FORMATS_GGUF_TYPES_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "kernels/dtype.h"

namespace thermocline {

// Of metadata values.
enum class GgufType : uint32_t {
  kU8,
  kI8,
  kU16,
  kI16,
  kU32,
  kI32,
  kF32,
  kBool,
  kString,
  kArray,
  kU64,
  kI64,
  kF64,
};

// Of tokens, in tokenizer.ggml.token_type.
enum GgufTokenType : int64_t {
  kNormalToken = 1,
  kUnknownToken = 2,
  kControlToken = 3,
  kUserDefinedToken = 4,
  kUnusedToken = 5,
  kByteToken = 6,
};

// Of tensors. UNIMPLEMENTED lists the supported ones.
absl::StatusOr<DType> DTypeOfGgml(uint32_t ggml_type);
uint32_t GgmlTypeOf(DType dtype);

// Of files, in general.file_type: the number of llama.cpp (llama_ftype) for a file whose matrices
// are mostly of this type; K-quants as its medium mixes.
int64_t GgufFileType(DType dtype);

}  // namespace thermocline

#endif  // THERMOCLINE_ENGINE_FORMATS_GGUF_TYPES_H_
