// Models of random weights in the shapes of known ones: for speed, where no real file is at hand.
#ifndef THERMOCLINE_ENGINE_MODEL_CONVERT_RANDOM_MODEL_H_
#define THERMOCLINE_ENGINE_MODEL_CONVERT_RANDOM_MODEL_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace thermocline {

// "olmoe7b" (OLMoE-1B-7B), "qwen30b" (Qwen3-30B-A3B), "qwen8b" (12 of its 48 layers), "tiny".
std::vector<std::string> RandomModelShapes();

// Writes a GGUF file (architecture qwen3moe, no tokenizer) for `spec`, SHAPE or SHAPE:TYPE with a
// weight type that can be written; q4_k, the default, gives half of the down matrices, the values
// and the head q6_k, as llama.cpp's Q4_K_M does. Routing is near uniform, the worst case for a
// cache. INVALID_ARGUMENT names what is allowed.
absl::Status WriteRandomModel(absl::string_view spec, const std::string& path);

}  // namespace thermocline

#endif  // THERMOCLINE_ENGINE_MODEL_CONVERT_RANDOM_MODEL_H_
