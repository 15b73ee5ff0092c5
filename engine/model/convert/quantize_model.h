// GGUF to GGUF with other types of weights.
#ifndef THERMOCLINE_ENGINE_MODEL_CONVERT_QUANTIZE_MODEL_H_
#define THERMOCLINE_ENGINE_MODEL_CONVERT_QUANTIZE_MODEL_H_

#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/dtype.h"

namespace thermocline {

struct QuantizeOptions {
  std::string input;
  std::string output;
  bool replace = false;
  DType type = DType::kQ4_K;
  // The type everywhere: without it, tensors that matter more get more bits (TypeFor).
  bool pure = false;
  // Tensors whose whole name a regular expression (PCRE2) matches get its type; the first rule that
  // matches decides, before all else.
  std::vector<std::pair<std::string, DType>> rules;
  std::string importance_path;  // empty: none
  // Quantised tensors are quantised again; else they stay as they are.
  bool requantize = false;
  int num_threads = 0;                                        // 0: one a core
  std::function<void(int64_t done, int64_t total)> progress;  // bytes of the input
  std::function<void(const std::string& message)> warn;
};

struct QuantizeResult {
  int64_t input_bytes = 0, output_bytes = 0;  // of tensors
  std::map<std::string, int64_t> bytes_by_type;
};

// INVALID_ARGUMENT for rules, types or importances that do not fit, and for weights that are
// infinite, NaN or beyond their new type's range. On an error no output is left.
absl::StatusOr<QuantizeResult> QuantizeModel(const QuantizeOptions& options);

// What decides a tensor's type when no rule does.
struct TensorRole {
  std::string name;
  std::vector<int64_t> shape;
  int layer = -1;  // of "blk.N."; -1: none
  int num_layers = 0;
  bool tied = false;  // the embedding is the output as well
};

// Vectors, norms, routers and convolutions: small, or decisive.
bool IsKeptInF32(const std::string& name, const std::vector<int64_t>& shape);

// F32 for what is kept. The output, and the embedding when tied,
// get Q6_K (Q8_0 for Q8_0 and MXFP4); value projections and every down projection of the first and
// last eighth of the layers and every third between get Q6_K when the type is Q4_K or Q5_K; MXFP4
// is for experts only, the rest gets Q8_0. A type whose blocks do not fit the rows gives way to
// IQ4_NL or Q8_0, or at last F16. After the mixes of llama-quant.cpp of llama.cpp.
DType TypeFor(DType type, bool pure, const TensorRole& role);

// "q4_k" or "Q4_K_M" and so on to a type that can be written. INVALID_ARGUMENT lists the names.
absl::StatusOr<DType> ParseQuantizedType(const std::string& text);

}  // namespace thermocline

#endif  // THERMOCLINE_ENGINE_MODEL_CONVERT_QUANTIZE_MODEL_H_
