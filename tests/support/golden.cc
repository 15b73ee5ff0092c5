#include "tests/support/golden.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "engine/formats/json.h"

namespace thermocline {
namespace {

const std::string kSource = THERMOCLINE_SOURCE_DIR;

// Collects one request's output.
class Collector : public ResponseSink {
 public:
  Collector(std::vector<int32_t>* tokens, std::vector<std::vector<float>>* logits)
      : tokens_(tokens), logits_(logits) {}
  bool OnDelta(Delta delta) override {
    for (const OutputToken& token : delta.tokens) tokens_->push_back(token.token);
    return true;
  }
  void OnPromptLogits(int64_t position, absl::Span<const float> logits) override {
    if (static_cast<int64_t>(logits_->size()) <= position)
      logits_->resize(static_cast<size_t>(position) + 1);
    (*logits_)[static_cast<size_t>(position)].assign(logits.begin(), logits.end());
  }
  void OnDone(const Result& result) override { EXPECT_TRUE(result.status.ok()) << result.status; }

 private:
  std::vector<int32_t>* tokens_;
  std::vector<std::vector<float>>* logits_;
};

}  // namespace

std::string GoldenPath(const std::string& name) { return kSource + "/tests/data/golden/" + name; }

std::string SharedPath(const std::string& name) {
  const std::string path = kSource + "/../shared/" + name;
  std::error_code error;
  return std::filesystem::exists(path, error) ? path : "";
}

std::string DemoPath() {
  return kSource + "/share/thermocline/demo/smollm2-135m-moe-00001-of-00002.gguf";
}

Golden LoadGolden(const std::string& folder) {
  Golden golden;
  golden.path = folder;
  auto tensors = ReadPlainTensors(folder + "/reference.safetensors");
  EXPECT_TRUE(tensors.ok()) << tensors.status();
  if (!tensors.ok()) return golden;
  golden.prompt = ToTokens((*tensors)["prompt"]);
  golden.greedy = ToTokens((*tensors)["greedy"]);
  golden.logits = std::move((*tensors)["logits"]);
  EXPECT_EQ(golden.logits.shape.size(), 2u) << folder;
  for (auto it = tensors->find("hidden.0"); it != tensors->end();
       it = tensors->find(absl::StrCat("hidden.", golden.hidden.size()))) {
    golden.hidden.push_back(std::move(it->second));
  }
  return golden;
}

ScoreOutput Score(Engine* engine, const std::vector<int32_t>& tokens) {
  ScoreOutput output;
  std::vector<int32_t> none;
  GenerateRequest request;
  request.prompt = tokens;
  request.max_tokens = 0;
  request.prompt_logits = true;
  const auto id = engine->Submit(request, std::make_unique<Collector>(&none, &output.logits));
  EXPECT_TRUE(id.ok()) << id.status();
  while (engine->Step()) {
  }
  return output;
}

std::vector<std::vector<int32_t>> Greedy(Engine* engine,
                                         const std::vector<std::vector<int32_t>>& prompts,
                                         int64_t max_tokens) {
  std::vector<std::vector<int32_t>> outputs(prompts.size());
  std::vector<std::vector<float>> unused;
  for (size_t i = 0; i < prompts.size(); ++i) {
    GenerateRequest request;
    request.prompt = prompts[i];
    request.max_tokens = max_tokens;
    request.sampling.temperature = 0.0f;
    request.ignore_eos = true;
    const auto id = engine->Submit(request, std::make_unique<Collector>(&outputs[i], &unused));
    EXPECT_TRUE(id.ok()) << id.status();
  }
  while (engine->Step()) {
  }
  return outputs;
}

void ExpectFiniteLogits(EngineOptions* options) {
  options->logits_observer = [observer = std::move(options->logits_observer), told = false](
                                 RequestId id, int64_t position,
                                 absl::Span<const float> logits) mutable {
    if (!told &&
        !std::all_of(logits.begin(), logits.end(), [](float v) { return std::isfinite(v); })) {
      ADD_FAILURE() << "a logit of request " << id << " at position " << position
                    << " is not finite";
      told = true;
    }
    if (observer) observer(id, position, logits);
  };
}

std::unique_ptr<Engine> MakeEngine(EngineOptions options) {
  ExpectFiniteLogits(&options);
  absl::StatusOr<std::unique_ptr<Engine>> engine = Engine::Create(std::move(options));
  EXPECT_TRUE(engine.ok()) << engine.status();
  return engine.ok() ? *std::move(engine) : nullptr;
}

std::vector<int32_t> ToTokens(const PlainTensor& tensor) {
  return std::vector<int32_t>(tensor.i64.begin(), tensor.i64.end());
}

std::vector<nlohmann::ordered_json> ReadLines(const std::string& path) {
  std::vector<nlohmann::ordered_json> lines;
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);) lines.push_back(*ParseOrderedJson(line));
  return lines;
}

double MaxError(const std::vector<float>& actual, const float* reference, double largest) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  if (!std::isfinite(largest) || largest <= 0.0) return kInfinity;
  double error = 0.0;
  for (size_t i = 0; i < actual.size(); ++i) {
    // std::max and comparisons lose a NaN.
    if (!std::isfinite(actual[i]) || !std::isfinite(reference[i])) return kInfinity;
    error = std::max(error,
                     std::fabs(static_cast<double>(actual[i]) - static_cast<double>(reference[i])));
  }
  return error / largest;
}

double Largest(const std::vector<float>& values) {
  double largest = 0.0;
  for (float value : values) {
    if (!std::isfinite(value)) return std::numeric_limits<double>::infinity();
    largest = std::max(largest, static_cast<double>(std::fabs(value)));
  }
  return largest;
}

}  // namespace thermocline
