// What the engine says about its work: times of a request, counters, memory, experts.
#include <numeric>

#include "tests/engine/engine_fixture.h"
#include "tests/support/tampering_backend.h"
#include "tests/support/test_backend.h"

namespace thermocline {
namespace {

using alphabet::Tokens;

class EngineLoadTest : public EngineTest {
 protected:
  // Every step takes half a second, between its beginning and its first token.
  EngineOptions SlowSteps() {
    EngineOptions options;
    options.hidden_observer = [this](int layer, const Batch&, absl::Span<const float>) {
      if (layer == alphabet::kNumLayers) now_ += 0.5;
    };
    return options;
  }
};

TEST_F(EngineLoadTest, TimesOfARequestCountFromItsSubmission) {
  EngineOptions options = SlowSteps();
  options.scheduler.max_num_seqs = 1;
  Start(std::move(options));
  Recording &first = NewRecording(), &second = NewRecording();
  Submit(Request("0", 3), &first);  // at 100
  now_ = 101.0;
  Submit(Request("0", 1), &second);
  now_ = 102.0;
  engine_->Step();  // 102 to 102.5
  now_ = 104.0;
  engine_->Step();
  now_ = 106.0;
  engine_->Step();  // until 106.5
  ASSERT_TRUE(first.done());
  EXPECT_EQ(first.result->queue_seconds, 2.0);
  EXPECT_EQ(first.result->first_token_seconds, 2.5);
  EXPECT_EQ(first.result->total_seconds, 6.5);
  engine_->Step();  // 106.5 to 107
  ASSERT_TRUE(second.done());
  EXPECT_EQ(second.result->queue_seconds, 5.5);
  EXPECT_EQ(second.result->first_token_seconds, 6.0);
  EXPECT_EQ(second.result->total_seconds, 6.0);
}

// A clock may begin at zero.
TEST_F(EngineLoadTest, TimeZeroIsATimeLikeAnyOther) {
  now_ = 0.0;
  Recording& r = NewRecording();
  Submit(Request("0", 2), &r);
  engine_->Step();
  now_ = 3.0;
  engine_->Step();
  ASSERT_TRUE(r.done());
  EXPECT_EQ(r.result->queue_seconds, 0.0);
  EXPECT_EQ(r.result->first_token_seconds, 0.0);
  EXPECT_EQ(r.result->total_seconds, 3.0);
}

TEST_F(EngineLoadTest, AQueueEndsWithTheFirstChunkOfAPrompt) {
  EngineOptions options = SlowSteps();
  options.scheduler.max_batch_tokens = 2;
  Start(std::move(options));
  Recording& r = NewRecording();
  Submit(Request("01234", 1), &r);
  now_ = 101.0;
  RunToTheEnd();  // 2 + 2 + 1 tokens: three steps
  EXPECT_EQ(r.result->queue_seconds, 1.0);
  EXPECT_EQ(r.result->first_token_seconds, 2.5);
  EXPECT_EQ(engine_->Snapshot().num_steps, 3);
}

TEST_F(EngineLoadTest, StepsAndStagesAccountForTheTime) {
  Start(SlowSteps());
  Recording& r = NewRecording();
  r.on_delta = [this] {
    now_ += 0.25;
    return true;
  };
  Submit(Request("0", 2), &r);
  RunToTheEnd();
  const EngineSnapshot snapshot = engine_->Snapshot();
  EXPECT_EQ(snapshot.step_seconds, 2 * (0.5 + 0.25));
  EXPECT_EQ(snapshot.stage_seconds[static_cast<size_t>(Stage::kSample)], 2 * 0.25);
  EXPECT_EQ(std::accumulate(snapshot.stage_seconds.begin(), snapshot.stage_seconds.end(), 0.0),
            snapshot.step_seconds);
}

TEST_F(EngineLoadTest, EveryStageHasTheTimeOfItsOperations) {
  EngineOptions options;
  options.backend = "reference";
  int num_combined = 0;
  options.dense_backend =
      MakeTamperingBackend(MakeTestBackend("reference"),
                           [&](const absl::string_view site, const TensorView&, const TensorView&) {
                             if (site == "EmbedTokens.out") now_ += 1.0;
                             if (site == "Attention.out") now_ += 2.0;
                             if (site == "RouteTopK.weights") now_ += 4.0;
                             if (site == "CombineExperts.acc") now_ += 16.0, ++num_combined;
                             if (site == "MatMul.out" && num_combined == 2)
                               now_ += 32.0;  // behind both layers
                           });
  Start(std::move(options));
  Recording& r = NewRecording();
  Submit(Request("0", 1), &r);
  RunToTheEnd();
  // Experts run on a backend of their own, where the clock stands.
  EXPECT_EQ(engine_->Snapshot().stage_seconds,
            (StageSeconds{1.0, 2 * 2.0, 2 * 4.0, 0.0, 2 * 16.0, 32.0, 0.0}));
}

// Somebody who asks while a step runs sees the requests that the step has taken from the inbox.
TEST_F(EngineLoadTest, RequestsInHandWaitUntilTheStepEnds) {
  EngineOptions options;
  options.scheduler.max_num_seqs = 1;
  Start(std::move(options));
  Recording &first = NewRecording(), &second = NewRecording();
  std::vector<int> waiting;
  first.on_delta = [&] {
    waiting.push_back(engine_->Snapshot().num_waiting);
    return true;
  };
  Submit(Request("0", 3), &first);
  engine_->Step();
  Submit(Request("1", 1), &second);
  engine_->Step();
  engine_->Step();
  EXPECT_EQ(waiting, (std::vector<int>{1, 1, 1}));
}

// Blocks of four tokens, prompts of five and of one.
TEST_F(EngineLoadTest, CountersAndBlocksByStep) {
  EngineOptions options;
  options.block_size = 4;
  options.kv_tokens = 64;
  Start(std::move(options));
  EXPECT_EQ(engine_->Snapshot().kv_blocks_total, 16);
  EXPECT_EQ(engine_->Snapshot().kv_blocks_used, 0);
  Recording &long_one = NewRecording(), &short_one = NewRecording();
  Submit(Request("01234", 5), &long_one);
  Submit(Request("9", 2), &short_one);
  EXPECT_EQ(engine_->Snapshot().num_running, 0);
  EXPECT_EQ(engine_->Snapshot().num_waiting, 2);
  struct Expected {
    int64_t prompt, generated;
    int running, blocks;
  };
  const std::vector<Expected> steps = {
      {6, 2, 2, 3},                // 5 and 1 tokens stored
      {6, 4, 1, 2},                // the short one has ended
      {6, 5, 1, 2},                // 7 tokens stored
      {6, 6, 1, 2}, {6, 7, 0, 0},  // the last of five is delivered, not stored
  };
  for (size_t i = 0; i < steps.size(); ++i) {
    EXPECT_TRUE(engine_->Step());
    const EngineSnapshot snapshot = engine_->Snapshot();
    EXPECT_EQ(snapshot.num_steps, static_cast<int64_t>(i + 1));
    EXPECT_EQ(snapshot.prompt_tokens, steps[i].prompt) << i;
    EXPECT_EQ(snapshot.generated_tokens, steps[i].generated) << i;
    EXPECT_EQ(snapshot.num_running, steps[i].running) << i;
    EXPECT_EQ(snapshot.num_waiting, 0);
    EXPECT_EQ(snapshot.kv_blocks_used, steps[i].blocks) << i;
    EXPECT_EQ(snapshot.num_preemptions, 0);
  }
  EXPECT_FALSE(engine_->Step());
  EXPECT_EQ(engine_->Snapshot().num_steps, 5);
  EXPECT_EQ(long_one.tokens, Tokens("56789"));
}

// Four blocks of two tokens hold two sequences of four. The second gives way when the first needs a
// third block (step 3), waits until that has ended (step 5) and computes its prompt again.
TEST_F(EngineLoadTest, PreemptionsAndWhatTheyComputeAgainAreCounted) {
  EngineOptions options;
  options.block_size = 2;
  options.kv_tokens = 8;
  Start(std::move(options));
  Recording &first = NewRecording(), &second = NewRecording();
  Submit(Request("012", 5), &first);
  Submit(Request("567", 5), &second);
  RunToTheEnd();
  const EngineSnapshot snapshot = engine_->Snapshot();
  EXPECT_EQ(snapshot.num_preemptions, 1);
  EXPECT_EQ(snapshot.num_steps, 8);
  EXPECT_EQ(snapshot.prompt_tokens, 3 + 3 + 3);
  EXPECT_EQ(snapshot.generated_tokens, 10);
  EXPECT_EQ(first.tokens, Tokens("34567"));
  EXPECT_EQ(second.tokens, Tokens("89012"));
  ExpectNothingIsLeft();
}

TEST_F(EngineLoadTest, TheLastTokenOfAStoppedOutputIsCounted) {
  Run(Request("x", 10));  // y, z, the end
  EXPECT_EQ(engine_->Snapshot().generated_tokens, 3);
  EXPECT_EQ(engine_->Snapshot().prompt_tokens, 1);
  Run(Request("ab", 0));
  EXPECT_EQ(engine_->Snapshot().generated_tokens, 3);
  EXPECT_EQ(engine_->Snapshot().prompt_tokens, 3);
}

// Token a is 7: experts 3 and 0 in layer 0, experts 0 and 1 in layer 1. Two slots a layer hold 0
// and 1 at first, so that layer 0 reads expert 3 in place of 1.
TEST_F(EngineLoadTest, ExpertsByLayer) {
  EngineOptions options;
  options.host_experts = 2;
  Start(std::move(options));
  const int64_t bytes = engine_->expert_files().layouts()[0].bytes;
  ASSERT_GT(bytes, 0);
  using Bits = std::vector<bool>;
  EXPECT_EQ(engine_->Snapshot().resident[0], (Bits{true, true, false, false}));
  Run(Request("a", 0));
  const EngineSnapshot snapshot = engine_->Snapshot();
  EXPECT_EQ(snapshot.heat[0], (std::vector<int64_t>{1, 0, 0, 1}));
  EXPECT_EQ(snapshot.heat[1], (std::vector<int64_t>{1, 1, 0, 0}));
  EXPECT_EQ(snapshot.resident[0], (Bits{true, false, false, true}));
  EXPECT_EQ(snapshot.resident[1], (Bits{true, true, false, false}));
  ASSERT_EQ(snapshot.experts.size(), 2u);
  EXPECT_EQ(snapshot.experts[0].hits, 1);
  EXPECT_EQ(snapshot.experts[0].misses, 1);
  EXPECT_EQ(snapshot.experts[0].evictions, 1);
  EXPECT_EQ(snapshot.experts[0].bytes_read, 3 * bytes);
  EXPECT_EQ(snapshot.experts[1].hits, 2);
  EXPECT_EQ(snapshot.experts[1].misses, 0);
  EXPECT_EQ(snapshot.experts[1].bytes_read, 2 * bytes);
  EXPECT_EQ(snapshot.expert_bytes_computed, 4 * bytes);
}

}  // namespace
}  // namespace thermocline
