#include "cache/kv_block_pool.h"

#include <algorithm>
#include <numeric>
#include <random>

#include "kernels/check.h"

namespace thermocline {

KvBlockPool::KvBlockPool(int num_blocks, int block_size, std::optional<uint64_t> shuffle_seed)
    : num_blocks_(num_blocks),
      block_size_(block_size),
      free_(static_cast<size_t>(num_blocks)),
      ref_counts_(static_cast<size_t>(num_blocks), 0) {
  TC_CHECK(num_blocks >= 1 && block_size >= 1);
  std::iota(free_.rbegin(), free_.rend(), 0);
  if (shuffle_seed.has_value()) {
    std::mt19937_64 random(*shuffle_seed);
    std::shuffle(free_.begin(), free_.end(), random);
  }
}

int KvBlockPool::BlocksFor(int64_t num_tokens) const {
  return static_cast<int>((num_tokens + block_size_ - 1) / block_size_);
}

bool KvBlockPool::Grow(int64_t num_tokens, BlockTable* table) {
  const int missing = BlocksFor(num_tokens) - static_cast<int>(table->size());
  if (missing > num_free()) return false;
  for (int i = 0; i < missing; ++i) {
    table->push_back(free_.back());
    ref_counts_[static_cast<size_t>(free_.back())] = 1;
    free_.pop_back();
  }
  return true;
}

BlockTable KvBlockPool::Fork(const BlockTable& table) {
  for (int32_t block : table) ++ref_counts_[static_cast<size_t>(block)];
  return table;
}

void KvBlockPool::Truncate(int64_t num_tokens, BlockTable* table) {
  const size_t keep = static_cast<size_t>(BlocksFor(num_tokens));
  while (table->size() > keep) {
    const int32_t block = table->back();
    table->pop_back();
    int& count = ref_counts_[static_cast<size_t>(block)];
    TC_CHECK(count > 0) << "block " << block << " released twice";
    if (--count == 0) free_.push_back(block);
  }
}

}  // namespace thermocline
