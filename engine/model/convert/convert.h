// Hugging Face folder to GGUF, with the names and metadata that llama.cpp expects.
//
// Nothing here knows an architecture: reading a model's configuration notes the metadata
// (engine/model/config_reader.h), and its tensor table says where each tensor comes from and what
// GGUF calls it (engine/weights/tensor_table.h).
#ifndef THERMOCLINE_ENGINE_MODEL_CONVERT_CONVERT_H_
#define THERMOCLINE_ENGINE_MODEL_CONVERT_CONVERT_H_

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "kernels/dtype.h"

namespace thermocline {

struct ConvertOptions {
  std::string input;   // folder
  std::string output;  // .gguf file
  bool replace = false;
  // F32, F16 or BF16 for matrices; unset: as the folder has them. Norms, biases and routers become
  // F32, MXFP4 stays.
  std::optional<DType> type;
  std::function<void(int64_t done, int64_t total)> progress;  // bytes of tensors
  std::function<void(const std::string& message)> warn;
};

// UNIMPLEMENTED for an architecture that GGUF does not know, INVALID_ARGUMENT for weights that are
// infinite, NaN or beyond the type's range. On an error no output is left.
absl::Status ConvertToGguf(const ConvertOptions& options);

}  // namespace thermocline

#endif  // THERMOCLINE_ENGINE_MODEL_CONVERT_CONVERT_H_
