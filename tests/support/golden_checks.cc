#include "tests/support/golden_checks.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

namespace thermocline {
namespace {

// The token after the last one of the reference's prompt.
int32_t FirstGreedy(const PlainTensor& logits) {
  const auto last_row = logits.f32.end() - logits.shape[1];
  return static_cast<int32_t>(std::max_element(last_row, logits.f32.end()) - last_row);
}

}  // namespace

EngineOptions ExactOptions(const std::string& model_path, const std::string& backend) {
  EngineOptions options;
  options.model_path = model_path;
  options.backend = backend;
  options.num_threads = 2;
  options.activations = Activations::kF32;
  options.kv_dtype = DType::kF32;
  return options;
}

double ToleranceOf(const std::string& backend) {
  return backend == "reference" ? kReferenceTolerance : kCpuTolerance;
}

void ExpectLogits(const ScoreOutput& output, const PlainTensor& expected, double tolerance) {
  const size_t vocab = static_cast<size_t>(expected.shape[1]);
  const double largest = Largest(expected.f32);
  ASSERT_EQ(output.logits.size(), static_cast<size_t>(expected.shape[0]));
  for (size_t t = 0; t < output.logits.size(); ++t) {
    ASSERT_EQ(output.logits[t].size(), vocab);
    ASSERT_LE(MaxError(output.logits[t], &expected.f32[t * vocab], largest), tolerance)
        << "token " << t;
  }
}

void ExpectHiddenStatesAndLogits(const Golden& golden, EngineOptions options) {
  const double tolerance = ToleranceOf(options.backend);
  // The reference reports the last one after the final norm, the engine before it.
  const size_t num_compared = golden.hidden.empty() ? 0 : golden.hidden.size() - 1;
  std::set<size_t> compared;
  options.hidden_observer = [&](int layer, const Batch&, absl::Span<const float> hidden) {
    const size_t l = static_cast<size_t>(layer);
    if (l >= num_compared) return;
    const std::vector<float>& expected = golden.hidden[l].f32;
    ASSERT_EQ(hidden.size(), expected.size());
    const std::vector<float> actual(hidden.begin(), hidden.end());
    ASSERT_LE(MaxError(actual, expected.data(), Largest(expected)), tolerance) << "layer " << l;
    compared.insert(l);
  };
  const std::unique_ptr<Engine> engine = MakeEngine(std::move(options));
  ASSERT_NE(engine, nullptr);
  const ScoreOutput output = Score(engine.get(), golden.prompt);
  EXPECT_EQ(compared.size(), num_compared);
  ExpectLogits(output, golden.logits, tolerance);
}

void ExpectGreedy(const Golden& golden, EngineOptions alone, EngineOptions among_others) {
  constexpr int64_t kWithoutReference = 24;
  const int64_t count =
      golden.greedy.empty() ? kWithoutReference : static_cast<int64_t>(golden.greedy.size());
  const std::unique_ptr<Engine> engine = MakeEngine(std::move(alone));
  ASSERT_NE(engine, nullptr);
  const std::vector<int32_t> continuation = Greedy(engine.get(), {golden.prompt}, count)[0];
  if (golden.greedy.empty()) {
    ASSERT_EQ(continuation.size(), static_cast<size_t>(count));
    EXPECT_EQ(continuation[0], FirstGreedy(golden.logits));
  } else {
    ASSERT_EQ(continuation, golden.greedy);
  }
  among_others.scheduler.max_batch_tokens = 33;  // chunks that straddle sequences
  const std::unique_ptr<Engine> busy = MakeEngine(std::move(among_others));
  ASSERT_NE(busy, nullptr);
  // Among shorter prompts of the same text.
  std::vector<std::vector<int32_t>> prompts = {golden.prompt};
  for (size_t n = 1; n < golden.prompt.size(); n += 7)
    prompts.emplace_back(golden.prompt.begin(), golden.prompt.begin() + static_cast<ptrdiff_t>(n));
  prompts.push_back(golden.prompt);
  const auto outputs = Greedy(busy.get(), prompts, count);
  EXPECT_EQ(outputs.front(), continuation);
  EXPECT_EQ(outputs.back(), continuation);
  EXPECT_EQ(busy->Snapshot().kv_blocks_used, 0);
}

}  // namespace thermocline
