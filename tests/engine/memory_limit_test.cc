// What does not fit into memory is refused when the model is loaded, with the numbers: a container
// that grows beyond its limit would be killed.
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "tests/support/golden.h"

namespace thermocline {
namespace {

class MemoryLimit : public testing::Test {
 protected:
  static EngineOptions Options(const std::string& model, int64_t available) {
    EngineOptions options;
    options.model_path = GoldenPath(model);
    options.num_threads = 1;
    options.available_memory = [available] { return available; };
    options.kv_tokens = 16;
    options.scheduler.max_num_seqs = 2;
    options.scheduler.max_batch_tokens = 1;
    return options;
  }
  // What Create says.
  static absl::Status Load(EngineOptions options) {
    return Engine::Create(std::move(options)).status();
  }
  static void ExpectRefused(EngineOptions options, const std::string& part) {
    const absl::Status status = Load(std::move(options));
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
    EXPECT_NE(status.message().find(part), std::string::npos) << status;
  }
};

TEST_F(MemoryLimit, WeightsThatDoNotFitAreRefusedAndTheExpertsThatDoAreNamed) {
  const auto engine = MakeEngine(Options("qwen3_moe", int64_t{1} << 30));
  const int64_t dense = engine->weights().dense_bytes(),
                slot = engine->expert_files().total_bytes() / engine->expert_files().num_experts(),
                all = dense + engine->expert_files().total_bytes();
  EXPECT_TRUE(Load(Options("qwen3_moe", all)).ok());
  ExpectRefused(Options("qwen3_moe", all - 1),
                absl::StrCat("the weights need ", all, " bytes of memory, but ", all - 1,
                             " are available; 15 of 16 experts a layer would fit"));
  ExpectRefused(Options("qwen3_moe", dense + slot), "1 of 16 experts a layer would fit");
  // With as few as are said to fit it loads.
  EngineOptions few = Options("qwen3_moe", dense + 4 * slot);
  few.host_experts = 4;
  EXPECT_TRUE(Load(std::move(few)).ok());
  const absl::Status hopeless = Load(Options("qwen3_moe", dense + slot - 1));
  EXPECT_EQ(hopeless.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(hopeless.message().find("would fit"), std::string::npos) << hopeless;
}

TEST_F(MemoryLimit, AKvCacheThatDoesNotFitIsRefused) {
  EngineOptions options = Options("qwen3_moe", int64_t{1} << 24);
  options.kv_tokens = 1 << 20;
  ExpectRefused(std::move(options), "a KV cache of 1048576 tokens needs ");
  // Exactly what it needs is enough.
  const auto engine = MakeEngine(Options("qwen3_moe", int64_t{1} << 30));
  int calls = 0;
  options = Options("qwen3_moe", 0);
  const int64_t kv_bytes = engine->kv_bytes();
  options.available_memory = [&calls, kv_bytes] {
    return ++calls < 3 ? int64_t{1} << 30 : kv_bytes;  // the third question is the cache's
  };
  EXPECT_TRUE(Load(std::move(options)).ok());
  EXPECT_EQ(calls, 3);
  options = Options("qwen3_moe", 0);
  calls = 0;
  options.available_memory = [&calls, kv_bytes] {
    return ++calls < 3 ? int64_t{1} << 30 : kv_bytes - 1;
  };
  ExpectRefused(std::move(options), absl::StrCat("needs ", kv_bytes, " bytes, but ", kv_bytes - 1));
}

TEST_F(MemoryLimit, AKvCacheOfNoGivenSizeTakesAQuarterOfWhatIsFree) {
  const auto probe = MakeEngine(Options("qwen3_moe", int64_t{1} << 30));
  const int64_t token_bytes = probe->kv_bytes() / 16;
  int calls = 0;
  EngineOptions options = Options("qwen3_moe", 0);
  options.kv_tokens = 0;
  options.available_memory = [&calls, token_bytes] {
    return ++calls < 3 ? int64_t{1} << 30 : 4 * 64 * token_bytes;
  };
  EXPECT_EQ(MakeEngine(std::move(options))->kv_bytes(), 64 * token_bytes);
}

TEST_F(MemoryLimit, ActivationsAndStatesThatDoNotFitAreRefused) {
  const auto engine = MakeEngine(Options("qwen3_moe", int64_t{1} << 30));
  EngineOptions options =
      Options("qwen3_moe", engine->weights().dense_bytes() + engine->expert_files().total_bytes());
  options.scheduler.max_batch_tokens = 1 << 20;
  ExpectRefused(std::move(options), "a step of 1048576 tokens");
  // Eight f32 arrays as wide as the widest matrix that is not the vocabulary's: 96 here.
  options = Options("llama", int64_t{1} << 30);
  options.scheduler.max_batch_tokens = 1 << 20;
  ExpectRefused(std::move(options), "may need 3221225472 bytes");
  // Sequences of a recurrent model take memory however short they are.
  options = Options("lfm2_moe", int64_t{1} << 24);
  options.scheduler.max_num_seqs = 1 << 20;
  ExpectRefused(std::move(options), "the fixed-size state of 1048576 sequences");
}

}  // namespace
}  // namespace thermocline
