#include "scheduler/scheduler.h"

#include <gtest/gtest.h>

#include <map>
#include <numeric>

namespace thermocline {
namespace {

Sequence MakeSequence(SequenceId id, int prompt) {
  Sequence sequence;
  sequence.id = id;
  sequence.tokens.resize(static_cast<size_t>(prompt));
  std::iota(sequence.tokens.begin(), sequence.tokens.end(), static_cast<int32_t>(100 * id));
  sequence.num_prompt = prompt;
  return sequence;
}

// Tokens of a sequence in a batch, by id.
int TokensOf(const Batch& batch, SequenceId id) {
  for (int s = 0; s < batch.num_seqs(); ++s) {
    if (batch.seq_ids[s] == id) return batch.cu_seqlens[s + 1] - batch.cu_seqlens[s];
  }
  return 0;
}

TEST(Scheduler, NothingToDoIsAnEmptyBatch) {
  KvBlockPool pool(4, 4);
  Scheduler scheduler({}, &pool);
  EXPECT_TRUE(scheduler.Schedule().empty());
}

TEST(Scheduler, PromptsAreCutIntoChunksAndOnlyTheLastTokenWantsLogits) {
  KvBlockPool pool(8, 4);
  Scheduler scheduler({.max_batch_tokens = 4}, &pool);
  scheduler.Add(MakeSequence(1, 10));
  // 10 = 4 + 4 + 2
  for (int expected : {4, 4, 2}) {
    const Batch batch = scheduler.Schedule();
    EXPECT_EQ(batch.num_tokens(), expected);
    EXPECT_EQ(batch.logits_rows.size(), expected == 2 ? 1u : 0u);
    for (TokenRole role : batch.roles) EXPECT_EQ(role, TokenRole::kPrompt);
    scheduler.Commit(batch);
  }
  scheduler.Append(1, 7);
  const Batch decode = scheduler.Schedule();
  EXPECT_EQ(decode.token_ids, std::vector<int32_t>{7});
  EXPECT_EQ(decode.positions, std::vector<int32_t>{10});
  EXPECT_EQ(decode.roles, std::vector<TokenRole>{TokenRole::kGenerated});
}

TEST(Scheduler, GeneratingSequencesGoBeforePrompts) {
  KvBlockPool pool(16, 4);
  Scheduler scheduler({.max_batch_tokens = 4}, &pool);
  scheduler.Add(MakeSequence(1, 2));
  scheduler.Commit(scheduler.Schedule());
  scheduler.Append(1, 9);
  scheduler.Add(MakeSequence(2, 20));
  const Batch batch = scheduler.Schedule();
  EXPECT_EQ(TokensOf(batch, 1), 1);
  EXPECT_EQ(TokensOf(batch, 2), 3);
  EXPECT_EQ(batch.seq_idx, (std::vector<int32_t>{0, 1, 1, 1}));
}

TEST(Scheduler, SlotsFollowTheBlockTable) {
  KvBlockPool pool(8, 2, 5);
  Scheduler scheduler({}, &pool);
  scheduler.Add(MakeSequence(1, 5));
  const Batch batch = scheduler.Schedule();
  ASSERT_EQ(batch.max_blocks, 3);
  for (int t = 0; t < 5; ++t)
    EXPECT_EQ(batch.slot_mapping[t], batch.block_tables[t / 2] * 2 + t % 2);
}

TEST(Scheduler, HoldsBackWhatDoesNotFitAndKeepsTheOrder) {
  KvBlockPool pool(4, 4);  // 16 tokens
  Scheduler scheduler({}, &pool);
  scheduler.Add(MakeSequence(1, 11));
  scheduler.Add(MakeSequence(2, 8));
  scheduler.Add(MakeSequence(3, 1));
  const Batch batch = scheduler.Schedule();
  EXPECT_EQ(batch.seq_ids, std::vector<SequenceId>{1});  // 3 would fit but does not overtake 2
  EXPECT_EQ(scheduler.num_waiting(), 2);
  scheduler.Finish(1);
  EXPECT_EQ(scheduler.Schedule().seq_ids, (std::vector<SequenceId>{2, 3}));
}

TEST(Scheduler, PreemptsTheLastArrivalAndRecomputesItWithItsRoles) {
  KvBlockPool pool(4, 2);  // 8 tokens
  Scheduler scheduler({}, &pool);
  scheduler.Add(MakeSequence(1, 3));
  scheduler.Add(MakeSequence(2, 3));
  Batch batch = scheduler.Schedule();
  ASSERT_EQ(batch.num_seqs(), 2);
  scheduler.Commit(batch);
  scheduler.Append(1, 70);
  scheduler.Append(2, 80);
  batch = scheduler.Schedule();  // both have 4 tokens: the pool is full
  ASSERT_EQ(batch.num_seqs(), 2);
  scheduler.Commit(batch);
  scheduler.Append(1, 71);
  scheduler.Append(2, 81);
  batch = scheduler.Schedule();  // 1 needs a third block: 2 gives way
  EXPECT_EQ(batch.seq_ids, std::vector<SequenceId>{1});
  EXPECT_EQ(scheduler.num_preemptions(), 1);
  EXPECT_EQ(scheduler.num_waiting(), 1);
  scheduler.Commit(batch);
  scheduler.Finish(1);
  batch = scheduler.Schedule();
  ASSERT_EQ(batch.seq_ids, std::vector<SequenceId>{2});
  EXPECT_EQ(batch.token_ids, (std::vector<int32_t>{200, 201, 202, 80, 81}));
  EXPECT_EQ(batch.roles[2], TokenRole::kPrompt);
  EXPECT_EQ(batch.roles[3], TokenRole::kGenerated);
  EXPECT_EQ(batch.logits_rows, std::vector<int32_t>{4});
}

TEST(Scheduler, ASequenceThatFillsThePoolAloneStillRuns) {
  KvBlockPool pool(2, 4);
  Scheduler scheduler({}, &pool);
  scheduler.Add(MakeSequence(1, 8));
  EXPECT_EQ(scheduler.Schedule().num_tokens(), 8);
}

TEST(Scheduler, ScoringWantsTheLogitsOfEveryPromptToken) {
  KvBlockPool pool(4, 4);
  Scheduler scheduler({.max_batch_tokens = 3}, &pool);
  Sequence sequence = MakeSequence(1, 5);
  sequence.all_prompt_logits = true;
  scheduler.Add(std::move(sequence));
  EXPECT_EQ(scheduler.Schedule().logits_rows.size(), 3u);
}

TEST(Scheduler, FinishFreesBlocksOfRunningAndForgetsWaiting) {
  KvBlockPool pool(4, 4);
  Scheduler scheduler({.max_batch_tokens = 16, .max_num_seqs = 1}, &pool);
  scheduler.Add(MakeSequence(1, 4));
  scheduler.Add(MakeSequence(2, 4));
  (void)scheduler.Schedule();
  scheduler.Finish(2);
  EXPECT_EQ(scheduler.num_waiting(), 0);
  scheduler.Finish(1);
  scheduler.Finish(99);
  EXPECT_EQ(pool.num_used(), 0);
  EXPECT_EQ(scheduler.Find(1), nullptr);
}

// Many sequences of random lengths through a small pool: everybody ends, nothing leaks.
TEST(Scheduler, RandomTrafficEndsWithAnEmptyPool) {
  KvBlockPool pool(12, 4, 3);
  Scheduler scheduler({.max_batch_tokens = 7, .max_num_seqs = 5}, &pool);
  uint32_t random = 12345;
  const auto next = [&] { return random = random * 1664525u + 1013904223u, random >> 8; };
  std::map<SequenceId, int> left;
  SequenceId id = 0;
  int steps = 0;
  for (; steps < 100000 && (id < 200 || !left.empty()); ++steps) {
    if (id < 200 && next() % 3 == 0) {
      left[++id] = static_cast<int>(next() % 12);
      scheduler.Add(MakeSequence(id, 1 + static_cast<int>(next() % 30)));
    }
    const Batch batch = scheduler.Schedule();
    ASSERT_LE(batch.num_tokens(), 7);
    scheduler.Commit(batch);
    for (int32_t row : batch.logits_rows) {
      const SequenceId done =
          batch.seq_ids[static_cast<size_t>(batch.seq_idx[static_cast<size_t>(row)])];
      if (left[done]-- > 0) {
        scheduler.Append(done, 1);
      } else {
        scheduler.Finish(done);
        left.erase(done);
      }
    }
  }
  EXPECT_LT(steps, 100000);
  EXPECT_EQ(pool.num_used(), 0);
}

}  // namespace
}  // namespace thermocline
