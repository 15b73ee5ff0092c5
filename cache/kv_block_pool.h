// KvBlockPool: which blocks of the paged KV cache are in use, and by how many sequences. Integers
// only.
#ifndef THERMOCLINE_CACHE_KV_BLOCK_POOL_H_
#define THERMOCLINE_CACHE_KV_BLOCK_POOL_H_

#include <cstdint>
#include <optional>
#include <vector>

namespace thermocline {

// Physical blocks of one sequence, in logical order: token t lies in block t / block_size.
using BlockTable = std::vector<int32_t>;

// Kwon et al. 2023 (PagedAttention). Engine thread only.
class KvBlockPool {
 public:
  // With a seed, free blocks are handed out in shuffled order (tests: physical order must not
  // matter).
  KvBlockPool(int num_blocks, int block_size, std::optional<uint64_t> shuffle_seed = std::nullopt);

  int num_blocks() const { return num_blocks_; }
  int block_size() const { return block_size_; }
  int num_free() const { return static_cast<int>(free_.size()); }
  int num_used() const { return num_blocks_ - num_free(); }
  int BlocksFor(int64_t num_tokens) const;

  // Extends the table until it covers num_tokens. False, with nothing changed, when the pool has
  // too few blocks.
  bool Grow(int64_t num_tokens, BlockTable* table);
  // A second owner of the same blocks. The last block is shared too: a sequence that writes into it
  // must copy it first, unless num_tokens is a multiple of the block size.
  BlockTable Fork(const BlockTable& table);
  // Gives back the blocks beyond num_tokens.
  void Truncate(int64_t num_tokens, BlockTable* table);
  // Gives back all blocks; the table is then empty.
  void Release(BlockTable* table) { Truncate(0, table); }
  int ref_count(int32_t block) const { return ref_counts_[static_cast<size_t>(block)]; }

 private:
  int num_blocks_;
  int block_size_;
  std::vector<int32_t> free_;  // the next one to hand out is at the back
  std::vector<int> ref_counts_;
};

}  // namespace thermocline

#endif  // THERMOCLINE_CACHE_KV_BLOCK_POOL_H_
