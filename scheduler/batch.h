// Batch: the tokens of one step, as flat arrays. Prefill and decode are mixed; nothing tells them
// apart but the counts.
#ifndef THERMOCLINE_SCHEDULER_BATCH_H_
#define THERMOCLINE_SCHEDULER_BATCH_H_

#include <cstdint>
#include <vector>

#include "kernels/token_role.h"
#include "scheduler/sequence.h"

namespace thermocline {

// With N tokens of S sequences. The tokens of a sequence are neighbours, in ascending position.
struct Batch {
  // Per token, [N].
  std::vector<int32_t> token_ids;
  std::vector<int32_t> positions;
  std::vector<int32_t> seq_idx;       // which of the S sequences
  std::vector<int32_t> slot_mapping;  // where its KV goes: block * block_size + offset
  std::vector<TokenRole> roles;

  // Per sequence.
  std::vector<SequenceId> seq_ids;    // [S]
  std::vector<int32_t> cu_seqlens;    // [S + 1]: its tokens are [cu_seqlens[s], cu_seqlens[s + 1])
  std::vector<int32_t> block_tables;  // [S, max_blocks], padded with 0
  int32_t max_blocks = 0;
  std::vector<int32_t> state_slots;  // [S]: where its fixed-size state lies

  // Rows of the N tokens whose logits are wanted, ascending.
  std::vector<int32_t> logits_rows;

  int num_tokens() const { return static_cast<int>(token_ids.size()); }
  int num_seqs() const { return static_cast<int>(seq_ids.size()); }
  bool empty() const { return token_ids.empty(); }
};

}  // namespace thermocline

#endif  // THERMOCLINE_SCHEDULER_BATCH_H_
