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

// Path of a folder or file of tests/data/golden. Every clean clone has them.
std::string GoldenPath(const std::string& name);
// Path under ../shared, which holds what is too big for the repository; "" when absent.
std::string SharedPath(const std::string& name);
// Path of the demo model's first shard.
std::string DemoPath();

// A reference checkpoint: a folder with config.json, safetensors and reference.safetensors.
struct Golden {
  std::string path;  // of the folder
  std::vector<int32_t> prompt;
  std::vector<int32_t> greedy;      // continuation of the prompt; empty: the reference has none
  PlainTensor logits;               // [T, vocab] f32
  std::vector<PlainTensor> hidden;  // [T, hidden] after each layer, the first of the embedding, the
                                    // last after the final norm; empty: the reference has none
};
// Failures to read fail the test.
Golden LoadGolden(const std::string& folder);

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

// From now on the first logit that is not finite fails the test in which it is computed: greedy
// decoding passes over NaN, so tokens alone would not show it. The options' own observer is kept.
void ExpectFiniteLogits(EngineOptions* options);
// An engine whose logits must be finite, or a test failure (null).
std::unique_ptr<Engine> MakeEngine(EngineOptions options);
std::vector<int32_t> ToTokens(const PlainTensor& tensor);
// The JSON objects of a file, one a line.
std::vector<nlohmann::ordered_json> ReadLines(const std::string& path);
// Largest |a - b| over the row, divided by `largest`, the largest |reference| of the whole tensor.
// Infinity, which is above every tolerance, when one of the values is not finite or all of the
// reference is zero.
double MaxError(const std::vector<float>& actual, const float* reference, double largest);
// Largest |value|; infinity when one is not finite.
double Largest(const std::vector<float>& values);

}  // namespace thermocline

#endif  // THERMOCLINE_TESTS_SUPPORT_GOLDEN_H_
