// Sequence: the scheduler's view of one request in progress.
#ifndef THERMOCLINE_SCHEDULER_SEQUENCE_H_
#define THERMOCLINE_SCHEDULER_SEQUENCE_H_

#include <cstdint>
#include <vector>

#include "cache/kv_block_pool.h"

namespace thermocline {

using SequenceId = uint64_t;

// Owned by the Scheduler; everybody else holds the id.
struct Sequence {
  SequenceId id = 0;
  std::vector<int32_t> tokens;  // prompt, then generated
  int64_t num_prompt = 0;
  int64_t num_computed = 0;        // tokens whose KV is stored
  bool all_prompt_logits = false;  // logits of every prompt token, not only of the last (scoring)
  BlockTable block_table;
  int32_t state_slot = -1;  // of the fixed-size state; -1: not running

  int64_t num_tokens() const { return static_cast<int64_t>(tokens.size()); }
  int64_t num_pending() const { return num_tokens() - num_computed; }
};

}  // namespace thermocline

#endif  // THERMOCLINE_SCHEDULER_SEQUENCE_H_
