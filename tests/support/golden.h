// The reference checkpoints and the ways tests run a model.
#ifndef THERMOCLINE_TESTS_SUPPORT_GOLDEN_H_
#define THERMOCLINE_TESTS_SUPPORT_GOLDEN_H_

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "engine/formats/safetensors.h"
#include "nlohmann/json_fwd.hpp"

namespace thermocline {

// Bounds on logits, relative to the largest reference logit.
inline constexpr double kReferenceTolerance =
    2e-4;                                      // f32 loops against torch: different order of sums
inline constexpr double kCpuTolerance = 1e-3;  // vector sums and polynomial exp on top

// Path of a golden folder or file: the project's own copy (tests/data/golden) or ../shared/golden;
// "" when neither has it.
std::string GoldenPath(const std::string& name);
// Path under ../shared; "" when absent.
std::string SharedPath(const std::string& name);
// Path of the demo model's first shard.
std::string DemoPath();

struct ScoreOutput {
  std::vector<std::vector<float>> logits;    // [T][vocab]
  std::map<int, std::vector<float>> hidden;  // layer -> [T * hidden], single-request runs only
};
// Prompt logits of one request, alone.
ScoreOutput Score(Engine* engine, const std::vector<int32_t>& tokens);
// Greedy continuation of each prompt, all submitted together; ignores end tokens.
std::vector<std::vector<int32_t>> Greedy(Engine* engine,
                                         const std::vector<std::vector<int32_t>>& prompts,
                                         int64_t max_tokens);

// An engine or a test failure (null).
std::unique_ptr<Engine> MakeEngine(EngineOptions options);
std::vector<int32_t> ToTokens(const PlainTensor& tensor);
// The JSON objects of a file, one a line.
std::vector<nlohmann::ordered_json> ReadLines(const std::string& path);
// Largest |a - b| over the row divided by the largest |reference| of the whole tensor.
double MaxError(const std::vector<float>& actual, const float* reference, double largest);
double Largest(const std::vector<float>& values);

}  // namespace thermocline

#endif  // THERMOCLINE_TESTS_SUPPORT_GOLDEN_H_
