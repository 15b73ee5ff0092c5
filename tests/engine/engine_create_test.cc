// Options of an engine: limits, defaults, what follows from them.
#include "engine/engine.h"

#include <gtest/gtest.h>

#include "tests/support/alphabet.h"
#include "tests/support/golden.h"

namespace thermocline {
namespace {

// Keys and values of two layers with one head of 16, in f32.
constexpr int64_t kKvBytesPerToken = 2 * (16 + 16) * 4;

absl::StatusOr<std::unique_ptr<Engine>> Create(const std::function<void(EngineOptions*)>& change) {
  EngineOptions options;
  options.model_path = alphabet::Path();
  options.num_threads = 1;
  change(&options);
  return Engine::Create(std::move(options));
}

void ExpectRefused(absl::StatusCode code, const char* part,
                   const std::function<void(EngineOptions*)>& change) {
  const auto engine = Create(change);
  EXPECT_EQ(engine.status().code(), code) << engine.status();
  EXPECT_NE(engine.status().message().find(part), std::string::npos) << engine.status();
}

TEST(EngineCreate, LimitsOfOptionsAreKept) {
  const auto invalid = absl::StatusCode::kInvalidArgument;
  ExpectRefused(invalid, "block size = 0", [](EngineOptions* o) { o->block_size = 0; });
  ExpectRefused(invalid, "block size = 1025", [](EngineOptions* o) { o->block_size = 1025; });
  ExpectRefused(invalid, "max_batch_tokens = -1, but 0 to 1048576",
                [](EngineOptions* o) { o->scheduler.max_batch_tokens = -1; });
  ExpectRefused(invalid, "max_num_seqs = 0",
                [](EngineOptions* o) { o->scheduler.max_num_seqs = 0; });
  ExpectRefused(invalid, "1 or more", [](EngineOptions* o) { o->max_waiting = 0; });
  ExpectRefused(invalid, "memory = 0", [](EngineOptions* o) { o->memory = 0; });
  ExpectRefused(invalid, "1 to 16384", [](EngineOptions* o) { o->max_context = -1; });
  ExpectRefused(invalid, "context = 16385", [](EngineOptions* o) { o->max_context = 16385; });
  ExpectRefused(invalid, "kv_tokens = 2147483648",
                [](EngineOptions* o) { o->kv_tokens = int64_t{1} << 31; });
  ExpectRefused(invalid, "host experts = 0", [](EngineOptions* o) { o->host_experts = 0; });
  ExpectRefused(invalid, "num_experts = 4", [](EngineOptions* o) { o->host_experts = 5; });
  for (const std::function<void(EngineOptions*)>& smallest_and_largest :
       std::vector<std::function<void(EngineOptions*)>>{[](EngineOptions* o) {
                                                          o->block_size = 1;
                                                          o->kv_tokens = 1;
                                                          o->max_context = 1;
                                                          o->max_waiting = 1;
                                                          o->host_experts = 1;
                                                          o->scheduler = {.max_batch_tokens = 1,
                                                                          .max_num_seqs = 1};
                                                        },
                                                        [](EngineOptions* o) {
                                                          o->block_size = 1024;
                                                          o->max_context = 16384;
                                                          o->host_experts = 4;
                                                        }}) {
    const auto engine = Create(smallest_and_largest);
    EXPECT_TRUE(engine.ok()) << engine.status();
  }
}

TEST(EngineCreate, UnknownNamesAreRefused) {
  const auto named = [](const char* part, const std::function<void(EngineOptions*)>& change) {
    const auto engine = Create(change);
    EXPECT_FALSE(engine.ok());
    EXPECT_NE(engine.status().message().find(part), std::string::npos) << engine.status();
  };
  named("gpu", [](EngineOptions* o) { o->backend = "gpu"; });
  named("newest", [](EngineOptions* o) { o->expert_policy = "newest"; });
  named("/nowhere", [](EngineOptions* o) { o->model_path = "/nowhere"; });
}

TEST(EngineCreate, MemoryThatCannotBeHadIsFoundAtLoad) {
  ExpectRefused(absl::StatusCode::kResourceExhausted, "for steps of 1048576 tokens",
                [](EngineOptions* o) {
                  o->memory = int64_t{1} << 30;
                  o->scheduler.max_batch_tokens = 1 << 20;
                });
  // Gated DeltaNet keeps a state of fixed size for every sequence.
  ExpectRefused(absl::StatusCode::kResourceExhausted, "for a KV cache of", [](EngineOptions* o) {
    o->model_path = GoldenPath("qwen3_next");
    o->memory = int64_t{1} << 30;
    o->scheduler.max_num_seqs = 1 << 20;
  });
}

TEST(EngineCreate, KvTokensAreRoundedUpToBlocksAndBoundTheContext) {
  struct Case {
    int64_t kv_tokens, max_context;
    int blocks;
    int64_t context;
  };
  for (const Case& c : std::vector<Case>{
           {1, 0, 1, 16}, {16, 0, 1, 16}, {17, 0, 2, 32}, {64, 40, 4, 40}, {64, 64, 4, 64}}) {
    const auto engine = Create([&](EngineOptions* o) {
      o->kv_tokens = c.kv_tokens;
      o->max_context = c.max_context;
    });
    ASSERT_TRUE(engine.ok()) << engine.status();
    EXPECT_EQ((*engine)->Snapshot().kv_blocks_total, c.blocks) << c.kv_tokens;
    EXPECT_EQ((*engine)->max_context(), c.context) << c.kv_tokens;
    EXPECT_EQ((*engine)->kv_bytes(), c.blocks * 16 * kKvBytesPerToken);
  }
}

// As much as all sequences can need, but no more than 65536 tokens.
TEST(EngineCreate, KvMemoryIsChosenWhenNobodySaysHowMuch) {
  struct Case {
    int64_t max_context;
    int max_num_seqs, blocks;
  };
  for (const Case& c : std::vector<Case>{{64, 3, 12}, {8, 1, 1}, {0, 4, 4096}, {0, 64, 4096}}) {
    const auto engine = Create([&](EngineOptions* o) {
      o->max_context = c.max_context;
      o->scheduler.max_num_seqs = c.max_num_seqs;
    });
    ASSERT_TRUE(engine.ok()) << engine.status();
    EXPECT_EQ((*engine)->Snapshot().kv_blocks_total, c.blocks);
    EXPECT_EQ((*engine)->max_context(), c.max_context > 0 ? c.max_context : alphabet::kContext);
  }
}

TEST(EngineCreate, StatesOfSequencesCountAsKvMemory) {
  int64_t per_sequence = 0;
  for (int seqs : {1, 3}) {
    const auto engine = Create([&](EngineOptions* o) {
      o->model_path = GoldenPath("qwen3_next");
      o->kv_tokens = 16;
      o->scheduler.max_num_seqs = seqs;
    });
    ASSERT_TRUE(engine.ok()) << engine.status();
    const ModelDims& dims = (*engine)->dims();
    per_sequence = KvCache::BytesPerSequence(dims);
    EXPECT_GT(per_sequence, 0);
    EXPECT_EQ((*engine)->kv_bytes(),
              16 * KvCache::BytesPerToken(dims, (*engine)->kv_dtype()) + seqs * per_sequence);
  }
}

TEST(EngineCreate, ModelsStoredAsF32AreComputedInF32AndOthersNot) {
  const auto f32 = Create([](EngineOptions*) {});
  ASSERT_TRUE(f32.ok()) << f32.status();
  EXPECT_EQ((*f32)->kv_dtype(), DType::kF32);
  const auto told = Create([](EngineOptions* o) { o->kv_dtype = DType::kBF16; });
  ASSERT_TRUE(told.ok()) << told.status();
  EXPECT_EQ((*told)->kv_dtype(), DType::kBF16);
  const auto quantised =
      Create([](EngineOptions* o) { o->model_path = GoldenPath("gpt_oss-mxfp4"); });
  ASSERT_TRUE(quantised.ok()) << quantised.status();
  EXPECT_EQ((*quantised)->kv_dtype(), DType::kF16);
  const auto exact = Create([](EngineOptions* o) {
    o->model_path = GoldenPath("gpt_oss-mxfp4");
    o->activations = Activations::kF32;
  });
  ASSERT_TRUE(exact.ok()) << exact.status();
  EXPECT_NE((*exact)->DescribeBackend(), (*quantised)->DescribeBackend());
}

TEST(EngineCreate, AModelWithoutTokenizerSaysWhyAndTakesTokens) {
  const auto engine = Create([](EngineOptions* o) { o->model_path = GoldenPath("llama3-rope"); });
  ASSERT_TRUE(engine.ok()) << engine.status();
  EXPECT_EQ((*engine)->tokenizer(), nullptr);
  EXPECT_FALSE((*engine)->tokenizer_error().empty());
  EXPECT_EQ(Greedy(engine->get(), {{1, 2, 3}}, 4)[0].size(), 4u);
  const auto with = Create([](EngineOptions*) {});
  ASSERT_TRUE(with.ok());
  EXPECT_NE((*with)->tokenizer(), nullptr);
  EXPECT_EQ((*with)->tokenizer_error(), "");
}

TEST(EngineCreate, ProgressRunsUpToTheBytesThatAreLoaded) {
  for (int host_experts : {2, 4}) {
    std::vector<std::pair<int64_t, int64_t>> progress;
    const auto engine = Create([&](EngineOptions* o) {
      o->host_experts = host_experts;
      o->progress = [&](int64_t done, int64_t total) { progress.emplace_back(done, total); };
    });
    ASSERT_TRUE(engine.ok()) << engine.status();
    ASSERT_FALSE(progress.empty());
    const WeightStore& weights = (*engine)->weights();
    const int64_t total =
        weights.dense_bytes() + (*engine)->expert_files().total_bytes() * host_experts / 4;
    int64_t last = 0;
    for (const auto& [done, of] : progress) {
      EXPECT_GE(done, last);
      EXPECT_EQ(of, total);
      last = done;
    }
    EXPECT_EQ(last, total);
  }
}

}  // namespace
}  // namespace thermocline
