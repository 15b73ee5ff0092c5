// ImportanceMatrix: how much each input of each weight matrix matters, measured on some text.
#ifndef THERMOCLINE_ENGINE_MODEL_CONVERT_IMPORTANCE_MATRIX_H_
#define THERMOCLINE_ENGINE_MODEL_CONVERT_IMPORTANCE_MATRIX_H_

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace thermocline {

// Mean squares of the inputs of each tensor, by its GGUF name: [cols], or [num_experts * cols].
// Both formats of llama.cpp's llama-imatrix: GGUF and the older binary one.
struct ImportanceMatrix {
  std::map<std::string, std::vector<float>> values;
  int64_t num_chunks = 0;  // of text; 0: unknown

  // INVALID_ARGUMENT says what is wrong: not finite, negative, counts that do not fit.
  static absl::StatusOr<ImportanceMatrix> Read(const std::string& path);
};

}  // namespace thermocline

#endif  // THERMOCLINE_ENGINE_MODEL_CONVERT_IMPORTANCE_MATRIX_H_
