// Who is in the next step: order, admission, victims, limits. Pictures draw a sequence as its id
// with its tokens, [p] for those of the prompt.
#include <gtest/gtest.h>

#include <map>
#include <numeric>
#include <set>

#include "scheduler/scheduler.h"

namespace thermocline {
namespace {

class SchedulerOrder : public testing::Test {
 protected:
  void Make(int num_blocks, int block_size, SchedulerOptions options) {
    pool_ = std::make_unique<KvBlockPool>(num_blocks, block_size);
    scheduler_ = std::make_unique<Scheduler>(options, pool_.get());
  }
  void Add(SequenceId id, int prompt) {
    Sequence sequence;
    sequence.id = id;
    sequence.tokens.resize(static_cast<size_t>(prompt));
    std::iota(sequence.tokens.begin(), sequence.tokens.end(), static_cast<int32_t>(100 * id));
    sequence.num_prompt = prompt;
    scheduler_->Add(std::move(sequence));
  }
  // Runs a step; every sequence whose last token was computed generates one more.
  Batch Step() {
    Batch batch = scheduler_->Schedule();
    scheduler_->Commit(batch);
    for (int32_t row : batch.logits_rows) {
      const SequenceId id = batch.seq_ids[static_cast<size_t>(batch.seq_idx[row])];
      scheduler_->Append(id, 7);
    }
    return batch;
  }
  // Sequence -> number of its tokens, of a batch.
  static std::map<SequenceId, int> Tokens(const Batch& batch) {
    std::map<SequenceId, int> tokens;
    for (int s = 0; s < batch.num_seqs(); ++s) {
      tokens[batch.seq_ids[s]] = batch.cu_seqlens[s + 1] - batch.cu_seqlens[s];
    }
    return tokens;
  }

  using Ids = std::vector<SequenceId>;
  using Counts = std::map<SequenceId, int>;
  std::unique_ptr<KvBlockPool> pool_;
  std::unique_ptr<Scheduler> scheduler_;
};

TEST_F(SchedulerOrder, PromptLogitsAreBounded) {
  Make(16, 4, {.max_batch_tokens = 16, .max_num_seqs = 4, .max_prompt_logits = 5});
  for (const SequenceId id : {1, 2}) {
    Sequence sequence;
    sequence.id = id;
    sequence.tokens.assign(8, 3);
    sequence.num_prompt = 8;
    sequence.all_prompt_logits = true;
    scheduler_->Add(std::move(sequence));
  }
  Add(3, 4);
  const auto step = [&] {
    const Batch batch = scheduler_->Schedule();
    scheduler_->Commit(batch);
    EXPECT_LE(batch.logits_rows.size(), 5u + 4u);
    return Tokens(batch);
  };
  EXPECT_EQ(step(), (Counts{{1, 5}}));                  // 2 waits for rows, 3 for 2
  EXPECT_EQ(step(), (Counts{{1, 3}, {2, 2}, {3, 4}}));  // other prompts need no such rows
  EXPECT_EQ(step(), (Counts{{2, 5}}));
  EXPECT_EQ(step(), (Counts{{2, 1}}));
  EXPECT_EQ(step(), Counts{});
}

TEST_F(SchedulerOrder, GeneratingSequencesGoBeforeAPromptThatAlreadyRuns) {
  Make(16, 4, {.max_batch_tokens = 4});
  Add(1, 2);
  Step();      // 1 [pp]
  Add(2, 20);  // 4 = one for 1 and three for 2
  EXPECT_EQ(Tokens(Step()), (Counts{{1, 1}, {2, 3}}));
  // Both run now. 2 could use all four.
  const Batch batch = Step();
  EXPECT_EQ(Tokens(batch), (Counts{{1, 1}, {2, 3}}));
  EXPECT_EQ(batch.seq_ids, (Ids{1, 2}));
}

TEST_F(SchedulerOrder, WhatABudgetLeavesGoesToTheNextInTheQueue) {
  Make(32, 4, {.max_batch_tokens = 10});
  for (SequenceId id : {1, 2, 3, 4}) Add(id, 4);
  // 10 = 4 + 4 + 2; 4 stays in the queue.
  EXPECT_EQ(Tokens(Step()), (Counts{{1, 4}, {2, 4}, {3, 2}}));
  EXPECT_EQ(scheduler_->num_waiting(), 1);
  // 1 and 2 generate, 3 has two left, six are left for 4.
  EXPECT_EQ(Tokens(Step()), (Counts{{1, 1}, {2, 1}, {3, 2}, {4, 4}}));
}

TEST_F(SchedulerOrder, AsManyRunAsAreAllowedAndNoMore) {
  Make(32, 4, {.max_batch_tokens = 100, .max_num_seqs = 3});
  for (SequenceId id : {1, 2, 3, 4}) Add(id, 2);
  EXPECT_EQ(Step().seq_ids, (Ids{1, 2, 3}));
  EXPECT_EQ(scheduler_->num_running(), 3);
  EXPECT_EQ(scheduler_->num_waiting(), 1);
  scheduler_->Finish(2);
  EXPECT_EQ(Step().seq_ids, (Ids{1, 3, 4}));
}

TEST_F(SchedulerOrder, IsAdmittedOnlyWhenItsTokensAndOneMoreFit) {
  // 1 holds two of four blocks. Eight tokens would fit into the others, but the ninth would not.
  Make(4, 4, {.max_batch_tokens = 100});
  Add(1, 7);
  Step();
  Add(2, 8);
  EXPECT_EQ(Step().seq_ids, (Ids{1}));
  EXPECT_EQ(scheduler_->num_waiting(), 1);

  Make(4, 4, {.max_batch_tokens = 100});
  Add(1, 7);
  Step();
  Add(2, 7);
  EXPECT_EQ(Step().seq_ids, (Ids{1, 2}));
}

TEST_F(SchedulerOrder, IsAdmittedByAllItsTokensNotByItsFirstChunk) {
  Make(4, 4, {.max_batch_tokens = 4});
  Add(1, 4);
  Step();
  Add(2, 12);  // its first chunk of three would fit
  EXPECT_EQ(Step().seq_ids, (Ids{1}));
}

TEST_F(SchedulerOrder, BlocksAreTakenChunkByChunk) {
  Make(8, 4, {.max_batch_tokens = 4});
  Add(1, 16);
  for (int used : {1, 2, 3, 4}) {
    Step();
    EXPECT_EQ(pool_->num_used(), used);
  }
  Step();  // the seventeenth token
  EXPECT_EQ(pool_->num_used(), 5);
}

TEST_F(SchedulerOrder, APreemptedSequenceWaitsBeforeNewerArrivals) {
  Make(4, 2, {.max_batch_tokens = 100});
  Add(1, 3);
  Add(2, 3);
  Step();
  Add(3, 1);                            // no block is free
  Step();                               // 1 and 2 have four tokens each: the pool is full
  EXPECT_EQ(Step().seq_ids, (Ids{1}));  // 1 needs a third block: 2 gives way
  EXPECT_EQ(scheduler_->num_preemptions(), 1);
  scheduler_->Finish(1);
  EXPECT_EQ(Step().seq_ids, (Ids{2, 3}));
}

TEST_F(SchedulerOrder, TheLastArrivalGivesWayToItself) {
  Make(4, 2, {.max_batch_tokens = 100});
  Add(1, 4);
  Add(2, 2);
  Step();
  // 1 takes the last free block with its fifth token, 2 finds none for its third.
  EXPECT_EQ(Step().seq_ids, (Ids{1}));
  EXPECT_EQ(scheduler_->num_preemptions(), 1);
  EXPECT_EQ(scheduler_->num_running(), 1);
  EXPECT_EQ(pool_->num_used(), 3);
}

TEST_F(SchedulerOrder, GivesUpTheLastFirstAndOnlyAsManyAsNeeded) {
  Make(6, 2, {.max_batch_tokens = 100});
  for (SequenceId id : {1, 2, 3}) Add(id, 3);
  Step();  // two blocks each
  Step();  // four tokens each
  // 1 needs a block and gets one of the two of 3; 2 gets the other.
  EXPECT_EQ(Step().seq_ids, (Ids{1, 2}));
  EXPECT_EQ(scheduler_->num_preemptions(), 1);
  EXPECT_EQ(scheduler_->num_waiting(), 1);
}

TEST_F(SchedulerOrder, EveryRunningSequenceHasAStateSlotOfItsOwn) {
  Make(32, 4, {.max_batch_tokens = 100, .max_num_seqs = 3});
  for (SequenceId id : {1, 2, 3}) Add(id, 2);
  EXPECT_EQ(Step().state_slots, (std::vector<int32_t>{0, 1, 2}));
  scheduler_->Finish(2);
  Add(4, 2);
  const Batch batch = Step();
  EXPECT_EQ(batch.seq_ids, (Ids{1, 3, 4}));
  EXPECT_EQ(batch.state_slots, (std::vector<int32_t>{0, 2, 1}));  // what 2 gave back
}

TEST_F(SchedulerOrder, BlockTablesArePaddedToTheLongest) {
  Make(8, 2, {.max_batch_tokens = 100});
  Add(1, 1);
  Add(2, 5);
  const Batch batch = Step();
  // Blocks are handed out in order: 0 to sequence 1, 1 to 3 to sequence 2.
  EXPECT_EQ(batch.max_blocks, 3);
  EXPECT_EQ(batch.block_tables, (std::vector<int32_t>{0, 0, 0, /**/ 1, 2, 3}));
  EXPECT_EQ(batch.cu_seqlens, (std::vector<int32_t>{0, 1, 6}));
  EXPECT_EQ(batch.positions, (std::vector<int32_t>{0, /**/ 0, 1, 2, 3, 4}));
  EXPECT_EQ(batch.slot_mapping, (std::vector<int32_t>{0, /**/ 2, 3, 4, 5, 6}));
  EXPECT_EQ(batch.logits_rows, (std::vector<int32_t>{0, 5}));
}

TEST_F(SchedulerOrder, FindsWhoRunsAndWhoWaits) {
  Make(8, 4, {.max_batch_tokens = 4, .max_num_seqs = 1});
  Add(1, 3);
  Add(2, 3);
  Step();
  ASSERT_NE(scheduler_->Find(1), nullptr);
  EXPECT_EQ(scheduler_->Find(1)->num_computed, 3);
  EXPECT_EQ(scheduler_->Find(1)->num_tokens(), 4);
  ASSERT_NE(scheduler_->Find(2), nullptr);
  EXPECT_EQ(scheduler_->Find(2)->num_computed, 0);
  EXPECT_EQ(scheduler_->Find(3), nullptr);
}

// Scoring asks for every row of the prompt, and afterwards, generating, for the last one only.
TEST_F(SchedulerOrder, ScoringEndsWithThePrompt) {
  Make(8, 4, {.max_batch_tokens = 100});
  Sequence sequence;
  sequence.id = 1;
  sequence.tokens = {1, 2, 3};
  sequence.num_prompt = 3;
  sequence.all_prompt_logits = true;
  scheduler_->Add(sequence);
  EXPECT_EQ(scheduler_->Schedule().logits_rows, (std::vector<int32_t>{0, 1, 2}));
  Make(8, 4, {.max_batch_tokens = 100});
  sequence.tokens = {1, 2, 3, 4, 5};  // preempted: the last two were generated
  scheduler_->Add(sequence);
  EXPECT_EQ(scheduler_->Schedule().logits_rows, (std::vector<int32_t>{0, 1, 2, 4}));
}

// Random traffic through a small pool, with the rules checked at every step against a second set of
// books: who is where, which slot holds which token.
TEST_F(SchedulerOrder, RandomTrafficKeepsTheRules) {
  for (uint32_t seed = 1; seed <= 20; ++seed) {
    constexpr int kBudget = 9, kSeqs = 4, kBlocks = 10, kBlockSize = 3;
    Make(kBlocks, kBlockSize, {.max_batch_tokens = kBudget, .max_num_seqs = kSeqs});
    uint32_t random = seed * 2654435761u;
    const auto next = [&] { return random = random * 1664525u + 1013904223u, random >> 8; };
    std::map<SequenceId, int64_t> computed;  // of those in the last batch or later
    std::map<SequenceId, int> left;
    std::map<int32_t, std::pair<SequenceId, int64_t>> stored;  // slot -> token
    SequenceId last_id = 0;
    int64_t preemptions = 0;
    for (int step = 0; step < 400; ++step) {
      if (next() % 3 == 0) {
        left[++last_id] = static_cast<int>(next() % 9);
        Add(last_id, 1 + static_cast<int>(next() % 20));
      }
      const Batch batch = scheduler_->Schedule();
      ASSERT_LE(batch.num_tokens(), kBudget);
      ASSERT_LE(batch.num_seqs(), kSeqs);
      ASSERT_LE(scheduler_->num_running(), kSeqs);
      ASSERT_EQ(std::set<SequenceId>(batch.seq_ids.begin(), batch.seq_ids.end()).size(),
                batch.seq_ids.size());
      ASSERT_EQ(batch.empty(), scheduler_->num_running() + scheduler_->num_waiting() == 0);
      // Whoever gave way starts again from its first token.
      if (scheduler_->num_preemptions() > preemptions) {
        preemptions = scheduler_->num_preemptions();
        for (auto& [id, count] : computed) {
          if (scheduler_->Find(id)->block_table.empty()) count = 0;
        }
      }
      std::set<int32_t> states;
      for (int s = 0; s < batch.num_seqs(); ++s) {
        const SequenceId id = batch.seq_ids[s];
        ASSERT_TRUE(states.insert(batch.state_slots[s]).second);
        for (int32_t i = batch.cu_seqlens[s]; i < batch.cu_seqlens[s + 1]; ++i) {
          ASSERT_EQ(batch.seq_idx[i], s);
          ASSERT_EQ(batch.positions[i], computed[id]) << "sequence " << id;
          const int64_t block = batch.block_tables[static_cast<size_t>(
              s * batch.max_blocks + batch.positions[i] / kBlockSize)];
          ASSERT_EQ(batch.slot_mapping[i], block * kBlockSize + batch.positions[i] % kBlockSize);
          stored[batch.slot_mapping[i]] = {id, computed[id]++};
        }
        // Everything it attends is still its own.
        for (int64_t p = 0; p < computed[id]; ++p) {
          const int64_t block =
              batch.block_tables[static_cast<size_t>(s * batch.max_blocks + p / kBlockSize)];
          const auto slot = static_cast<int32_t>(block * kBlockSize + p % kBlockSize);
          ASSERT_EQ(stored[slot], (std::pair<SequenceId, int64_t>{id, p}));
        }
      }
      scheduler_->Commit(batch);
      for (int32_t row : batch.logits_rows) {
        const SequenceId id = batch.seq_ids[static_cast<size_t>(batch.seq_idx[row])];
        if (left[id]-- > 0) {
          scheduler_->Append(id, 1);
        } else {
          scheduler_->Finish(id);
          computed.erase(id);
        }
      }
    }
    EXPECT_GT(preemptions, 0) << "seed " << seed;
  }
}

}  // namespace
}  // namespace thermocline
