#include "scheduler/scheduler.h"

#include <algorithm>

#include "kernels/check.h"

namespace thermocline {

Scheduler::Scheduler(const SchedulerOptions& options, KvBlockPool* pool)
    : options_(options), pool_(pool) {
  for (int32_t slot = options.max_num_seqs - 1; slot >= 0; --slot) {
    free_state_slots_.push_back(slot);
  }
}

void Scheduler::Add(Sequence sequence) {
  TC_CHECK(!sequence.tokens.empty() && sequence.num_prompt >= 1);
  waiting_.push_back(std::make_unique<Sequence>(std::move(sequence)));
}

Batch Scheduler::Schedule() {
  int64_t budget = options_.max_batch_tokens, prompt_logits = options_.max_prompt_logits;
  std::vector<std::pair<Sequence*, int64_t>> chosen;
  // How many of the sequence's tokens this step can take.
  const auto wants_logits = [](const Sequence& sequence) {
    return sequence.all_prompt_logits && sequence.num_computed < sequence.num_prompt;
  };
  const auto count_of = [&](const Sequence& sequence) {
    const int64_t most = wants_logits(sequence) ? std::min(prompt_logits, budget) : budget;
    return std::min(sequence.num_pending(), most);
  };
  const auto choose = [&](Sequence* sequence) {
    const int64_t count = count_of(*sequence);
    chosen.emplace_back(sequence, count);
    budget -= count;
    if (wants_logits(*sequence)) prompt_logits -= count;
  };
  // Generating sequences first: a prompt must not stall them. Indices, because making room shortens
  // running_.
  for (const bool generating : {true, false}) {
    for (size_t i = 0; i < running_.size() && budget > 0; ++i) {
      Sequence* sequence = running_[i].get();
      if ((sequence->num_pending() == 1) != generating) continue;
      const int64_t count = count_of(*sequence);
      if (count > 0 && MakeRoom(sequence, count)) choose(sequence);
    }
  }
  while (!waiting_.empty() && num_running() < options_.max_num_seqs) {
    Sequence* next = waiting_.front().get();
    if (count_of(*next) == 0) break;
    // Admitted only when all its tokens and one more fit, so that it is not preempted at once.
    if (pool_->BlocksFor(next->num_tokens() + 1) > pool_->num_free() &&
        !(running_.empty() && pool_->BlocksFor(next->num_tokens()) <= pool_->num_free())) {
      break;
    }
    running_.push_back(std::move(waiting_.front()));
    waiting_.pop_front();
    next->state_slot = free_state_slots_.back();
    free_state_slots_.pop_back();
    TC_CHECK(pool_->Grow(count_of(*next), &next->block_table));
    choose(next);
  }

  Batch batch;
  batch.cu_seqlens.push_back(0);
  for (const auto& [sequence, count] : chosen) {
    // Room is made at the expense of the last arrival, and whoever is chosen came before it.
    TC_CHECK(!sequence->block_table.empty()) << "sequence " << sequence->id << " has given way";
    batch.max_blocks =
        std::max(batch.max_blocks, static_cast<int32_t>(sequence->block_table.size()));
  }
  for (const auto& [sequence, count] : chosen) AddToBatch(*sequence, count, &batch);
  return batch;
}

bool Scheduler::MakeRoom(Sequence* sequence, int64_t count) {
  while (!pool_->Grow(sequence->num_computed + count, &sequence->block_table)) {
    const bool itself = running_.back().get() == sequence;
    PreemptLast();
    if (itself) return false;
  }
  return true;
}

void Scheduler::PreemptLast() {
  SequencePtr last = std::move(running_.back());
  running_.pop_back();
  GiveBack(last.get());
  last->num_computed = 0;
  waiting_.push_front(std::move(last));
  ++num_preemptions_;
}

void Scheduler::GiveBack(Sequence* sequence) {
  pool_->Release(&sequence->block_table);
  free_state_slots_.push_back(sequence->state_slot);
  sequence->state_slot = -1;
}

void Scheduler::AddToBatch(const Sequence& sequence, int64_t count, Batch* batch) const {
  const int32_t seq_idx = static_cast<int32_t>(batch->seq_ids.size());
  const int64_t begin = sequence.num_computed, end = begin + count;
  for (int64_t i = begin; i < end; ++i) {
    const bool prompt = i < sequence.num_prompt;
    const bool last = i + 1 == sequence.num_tokens();
    if (last || (sequence.all_prompt_logits && prompt)) {
      batch->logits_rows.push_back(batch->num_tokens());
    }
    const int64_t block = sequence.block_table[static_cast<size_t>(i / pool_->block_size())];
    batch->token_ids.push_back(sequence.tokens[static_cast<size_t>(i)]);
    batch->positions.push_back(static_cast<int32_t>(i));
    batch->seq_idx.push_back(seq_idx);
    batch->slot_mapping.push_back(
        static_cast<int32_t>(block * pool_->block_size() + i % pool_->block_size()));
    batch->roles.push_back(prompt ? TokenRole::kPrompt : TokenRole::kGenerated);
  }
  batch->seq_ids.push_back(sequence.id);
  batch->state_slots.push_back(sequence.state_slot);
  batch->cu_seqlens.push_back(batch->num_tokens());
  batch->block_tables.insert(batch->block_tables.end(), sequence.block_table.begin(),
                             sequence.block_table.end());
  batch->block_tables.resize(static_cast<size_t>(seq_idx + 1) * batch->max_blocks, 0);
}

void Scheduler::Commit(const Batch& batch) {
  for (int s = 0; s < batch.num_seqs(); ++s) {
    for (const SequencePtr& sequence : running_) {
      if (sequence->id != batch.seq_ids[s]) continue;
      sequence->num_computed += batch.cu_seqlens[s + 1] - batch.cu_seqlens[s];
    }
  }
}

void Scheduler::Append(SequenceId id, int32_t token) {
  for (const SequencePtr& sequence : running_) {
    if (sequence->id == id) sequence->tokens.push_back(token);
  }
}

void Scheduler::Finish(SequenceId id) {
  const auto is_it = [id](const SequencePtr& sequence) { return sequence->id == id; };
  for (const SequencePtr& sequence : running_) {
    if (is_it(sequence)) GiveBack(sequence.get());
  }
  std::erase_if(running_, is_it);
  std::erase_if(waiting_, is_it);
}

const Sequence* Scheduler::Find(SequenceId id) const {
  for (const SequencePtr& sequence : running_) {
    if (sequence->id == id) return sequence.get();
  }
  for (const SequencePtr& sequence : waiting_) {
    if (sequence->id == id) return sequence.get();
  }
  return nullptr;
}

}  // namespace thermocline
