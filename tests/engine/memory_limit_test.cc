// A model within a budget: what does not fit is refused when it is loaded, with the numbers (a
// container that grows beyond its limit would be killed), and limits that change while it serves
// cost experts, never an answer.
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/step_memory.h"
#include "tests/support/golden.h"
#include "tests/support/recording_sink.h"

namespace thermocline {
namespace {

constexpr int64_t kNoLimit = std::numeric_limits<int64_t>::max();

class MemoryLimit : public testing::Test {
 protected:
  EngineOptions Options(const std::string& model, int64_t available) {
    reading_ = {.held = 0, .available = available, .limits = {kNoLimit, kNoLimit}};
    EngineOptions options;
    options.model_path = GoldenPath(model);
    options.num_threads = 1;
    options.read_memory = [this] { return reading_; };
    options.now = [this] { return now_; };
    options.kv_tokens = 64;
    options.scheduler.max_num_seqs = 2;
    options.scheduler.max_batch_tokens = 16;
    return options;
  }
  static void ExpectRefused(EngineOptions options, const std::string& part) {
    const absl::Status status = Engine::Create(std::move(options)).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
    EXPECT_NE(status.message().find(part), std::string::npos) << status;
  }
  // Everything that is counted.
  static int64_t Planned(const Engine& engine) {
    const MemoryPlan& plan = engine.memory_plan();
    const MemoryNeeds& needs = engine.memory_needs();
    return needs.held + needs.dense + needs.staging + needs.states + plan.kv_bytes(needs) +
           plan.step_bytes + plan.expert_bytes;
  }
  // The least budget with which everything fits.
  int64_t Enough(const std::string& model) {
    const auto engine = MakeEngine(Options(model, int64_t{1} << 30));
    int64_t limit = Planned(*engine);
    while (limit - MemoryReserve(limit) < Planned(*engine)) limit += 1000;
    return limit;
  }

  double now_ = 0.0;
  MemoryReading reading_;
};

const std::vector<std::vector<int32_t>> kPrompts = {{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, {11, 12, 13}};

TEST_F(MemoryLimit, FewerExpertsFitIntoLessMemoryAndTheAnswerIsTheSame) {
  const int64_t enough = Enough("qwen3_moe");
  auto engine = MakeEngine(Options("qwen3_moe", enough));
  EXPECT_TRUE(engine->memory_plan().all_resident);
  const std::vector<std::vector<int32_t>> answer = Greedy(engine.get(), kPrompts, 8);
  int before = engine->experts().num_host_slots();
  int64_t limit = enough;
  while (true) {
    limit -= 20000;
    absl::StatusOr<std::unique_ptr<Engine>> less = Engine::Create(Options("qwen3_moe", limit));
    if (!less.ok()) {
      EXPECT_EQ(less.status().code(), absl::StatusCode::kResourceExhausted);
      break;
    }
    EXPECT_LE(Planned(**less), limit - MemoryReserve(limit));
    EXPECT_LE((*less)->experts().num_host_slots(), before);
    EXPECT_FALSE((*less)->memory_plan().all_resident);
    before = (*less)->experts().num_host_slots();
    EXPECT_EQ((*less)->experts().host().allowed_bytes(), (*less)->memory_plan().expert_bytes);
    EXPECT_EQ(Greedy(less->get(), kPrompts, 8), answer) << before << " slots";
  }
  EXPECT_LE(before, 3);
}

TEST_F(MemoryLimit, TheBudgetOfTheOptionsCountsWhatIsHeldAlready) {
  const int64_t enough = Enough("qwen3_moe");
  EngineOptions options = Options("qwen3_moe", int64_t{1} << 30);
  options.memory = enough + 320000;  // with what is kept free of it
  reading_.held = 300000;
  EXPECT_TRUE(MakeEngine(std::move(options))->memory_plan().all_resident);
  options = Options("qwen3_moe", int64_t{1} << 30);
  options.memory = enough;
  reading_.held = 300000;
  EXPECT_FALSE(MakeEngine(std::move(options))->memory_plan().all_resident);
  // More than there is does not help.
  options = Options("qwen3_moe", enough - 300000);
  options.memory = int64_t{1} << 30;
  EXPECT_FALSE(MakeEngine(std::move(options))->memory_plan().all_resident);
}

TEST_F(MemoryLimit, WhatCanNeverFitIsRefusedWithTheNumbers) {
  const auto engine = MakeEngine(Options("qwen3_moe", int64_t{1} << 30));
  const std::string dense = absl::StrCat(
      "it needs ",
      absl::StrFormat("%.1f MB", static_cast<double>(engine->memory_needs().dense) / 1e6),
      " for dense weights");
  ExpectRefused(Options("qwen3_moe", 100000), dense);
  ExpectRefused(Options("qwen3_moe", 100000), "does not fit into 0.1 MB of memory");
  EngineOptions options = Options("qwen3_moe", int64_t{1} << 24);
  options.kv_tokens = 1 << 20;
  ExpectRefused(std::move(options), "for a KV cache of 1048576 tokens");
  options = Options("qwen3_moe", int64_t{1} << 24);
  options.scheduler.max_batch_tokens = 1 << 20;
  ExpectRefused(std::move(options), "for steps of 1048576 tokens");
  options = Options("qwen3_moe", Enough("qwen3_moe") - 100000);
  options.host_experts = 16;
  ExpectRefused(std::move(options), "for the experts");
  // Sequences of a recurrent model take memory however short they are.
  options = Options("lfm2_moe", int64_t{1} << 24);
  options.scheduler.max_num_seqs = 1 << 20;
  ExpectRefused(std::move(options), "MB for a KV cache of 64 tokens");
}

TEST_F(MemoryLimit, LimitsAreFollowedWhileServing) {
  auto engine = MakeEngine(Options("qwen3_moe", Enough("qwen3_moe")));
  const std::vector<std::vector<int32_t>> answer = Greedy(engine.get(), kPrompts, 8);
  const int all = engine->experts().num_host_slots();
  const int64_t slot = engine->experts().host().size_classes()[0].slot_bytes;
  const auto slots_with = [&](int64_t soft, int64_t hard) {
    reading_.limits = {.hard = hard, .soft = soft};
    now_ += 0.1;
    engine->Step();
    now_ += 10.0;
    EXPECT_EQ(Greedy(engine.get(), kPrompts, 8), answer);
    EXPECT_EQ(engine->Snapshot().expert_bytes_allowed, engine->experts().num_host_slots() * slot);
    return engine->experts().num_host_slots();
  };
  const int64_t limit = engine->memory_needs().limit;
  const int less = slots_with(limit - 5 * slot, kNoLimit);
  EXPECT_LE(less, all - 4);
  EXPECT_GE(less, all - 6);
  EXPECT_EQ(slots_with(kNoLimit, limit - 5 * slot), less);
  EXPECT_EQ(slots_with(limit, limit), all);
  EXPECT_EQ(slots_with(0, kNoLimit), 1);  // never below what can go on
  // What was given up comes back by itself.
  reading_.limits = {.hard = kNoLimit, .soft = kNoLimit};
  now_ += 10.0;
  do {
    engine->Step();
  } while (engine->Snapshot().filling);
  EXPECT_EQ(engine->experts().host().resident_bytes(), engine->expert_files().total_bytes());
  EXPECT_EQ(slots_with(kNoLimit, kNoLimit), all);
  // Noise is no change.
  EXPECT_EQ(slots_with(limit - limit / 200, kNoLimit), all);
  EXPECT_EQ(slots_with(limit + 5 * slot, limit + 5 * slot), all);  // not beyond the first budget
}

TEST_F(MemoryLimit, AGivenNumberOfExpertsStaysAsItIs) {
  EngineOptions options = Options("qwen3_moe", int64_t{1} << 30);
  options.host_experts = 4;
  const auto engine = MakeEngine(std::move(options));
  const int slots = engine->experts().num_host_slots();
  reading_.limits = {.hard = 1, .soft = 1};
  now_ += 10.0;
  engine->Step();
  EXPECT_EQ(engine->experts().num_host_slots(), slots);
}

// A step takes the memory that was measured beforehand without computing anything, to the byte.
class StepMemoryTest : public testing::TestWithParam<const char*> {};

TEST_P(StepMemoryTest, IsWhatAStepTakes) {
  constexpr int kTokens = 24, kContext = 64;
  EngineOptions options;
  options.model_path = GoldenPath(GetParam());
  options.num_threads = 1;
  options.max_context = kContext;
  options.kv_tokens = kContext;
  options.scheduler = {.max_batch_tokens = kTokens, .max_num_seqs = 1};
  const auto engine = MakeEngine(std::move(options));
  ASSERT_NE(engine, nullptr);
  const int64_t before = engine->scratch().capacity_bytes();
  std::vector<int32_t> prompt(kTokens + 1);
  for (size_t i = 0; i < prompt.size(); ++i) prompt[i] = static_cast<int32_t>(i);
  ASSERT_FALSE(Score(engine.get(), prompt).logits.empty());
  EXPECT_EQ(engine->scratch().capacity_bytes(),
            before == 0 ? engine->scratch().reserve_bytes() : before);
  EXPECT_GE(engine->scratch().peak_bytes(), engine->scratch().reserve_bytes() * 9 / 10);
}

INSTANTIATE_TEST_SUITE_P(All, StepMemoryTest,
                         testing::Values("qwen3_moe", "deepseek_v2", "qwen3_next", "lfm2_moe",
                                         "gpt_oss", "longcat_flash", "llama"),
                         [](const auto& test) { return std::string(test.param); });

}  // namespace
}  // namespace thermocline
