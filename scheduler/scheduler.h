// Scheduler: sequences in, a Batch out. Continuous batching with chunked prefill, first come, first
// served.
//
// Every step takes one token of each sequence that is generating, then fills the token budget with
// prompt chunks in order of arrival (Yu et al. 2022, Orca; Agrawal et al. 2024, Sarathi-Serve).
// When the KV pool runs dry the sequence that came last gives back its blocks and waits at the head
// of the queue; its tokens are recomputed later, roles unchanged.
#ifndef THERMOCLINE_SCHEDULER_SCHEDULER_H_
#define THERMOCLINE_SCHEDULER_SCHEDULER_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "cache/kv_block_pool.h"
#include "scheduler/batch.h"
#include "scheduler/sequence.h"

namespace thermocline {

struct SchedulerOptions {
  int max_batch_tokens = 512;  // tokens a step
  int max_num_seqs = 64;       // sequences that hold KV at once
  // Prompt tokens a step whose logits are wanted, beside each sequence's last one.
  int max_prompt_logits = 1 << 30;
};

// Engine thread only. A pure state machine: no clock, no threads, no tensors.
class Scheduler {
 public:
  // The pool outlives the scheduler.
  Scheduler(const SchedulerOptions& options, KvBlockPool* pool);

  // The sequence must fit the pool when it is alone: BlocksFor(final length) <= num_blocks.
  void Add(Sequence sequence);
  // The tokens of the next step; empty when there is nothing to do. Blocks for them are taken from
  // the pool.
  Batch Schedule();
  // After the step has run: the tokens of the batch are stored.
  void Commit(const Batch& batch);
  // Adds a generated token, to be computed by the next step.
  void Append(SequenceId id, int32_t token);
  // Removes the sequence, running or waiting, and frees its blocks. Unknown ids are ignored.
  void Finish(SequenceId id);

  // Null when the id is unknown. Valid until the next call that adds or removes sequences.
  const Sequence* Find(SequenceId id) const;
  int num_running() const { return static_cast<int>(running_.size()); }
  int num_waiting() const { return static_cast<int>(waiting_.size()); }
  int64_t num_preemptions() const { return num_preemptions_; }

 private:
  using SequencePtr = std::unique_ptr<Sequence>;

  // Takes blocks for `count` more tokens, preempting later arrivals if need be. False when the
  // sequence itself had to give way.
  bool MakeRoom(Sequence* sequence, int64_t count);
  void PreemptLast();
  // Blocks and state slot of a sequence that stops running.
  void GiveBack(Sequence* sequence);
  void AddToBatch(const Sequence& sequence, int64_t count, Batch* batch) const;

  SchedulerOptions options_;
  KvBlockPool* pool_;
  std::vector<SequencePtr> running_;  // in order of arrival
  std::deque<SequencePtr> waiting_;
  std::vector<int32_t> free_state_slots_;  // of max_num_seqs; each running sequence holds one
  int64_t num_preemptions_ = 0;
};

}  // namespace thermocline

#endif  // THERMOCLINE_SCHEDULER_SCHEDULER_H_
