#include "cache/kv_block_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

namespace thermocline {
namespace {

TEST(KvBlockPool, GrowsByWholeBlocksAndOnlyWhenNeeded) {
  KvBlockPool pool(4, 16);
  BlockTable table;
  EXPECT_TRUE(pool.Grow(0, &table));
  EXPECT_TRUE(table.empty());
  EXPECT_TRUE(pool.Grow(1, &table));
  EXPECT_EQ(table.size(), 1u);
  EXPECT_TRUE(pool.Grow(16, &table));
  EXPECT_EQ(table.size(), 1u);
  EXPECT_TRUE(pool.Grow(17, &table));
  EXPECT_EQ(table.size(), 2u);
  EXPECT_EQ(pool.num_free(), 2);
}

TEST(KvBlockPool, RefusesWithoutChangingAnything) {
  KvBlockPool pool(2, 4);
  BlockTable table;
  EXPECT_FALSE(pool.Grow(9, &table));
  EXPECT_TRUE(table.empty());
  EXPECT_EQ(pool.num_free(), 2);
  EXPECT_TRUE(pool.Grow(8, &table));
  EXPECT_EQ(pool.num_free(), 0);
}

TEST(KvBlockPool, ForkedBlocksAreFreeOnlyWhenBothOwnersAreGone) {
  KvBlockPool pool(3, 4);
  BlockTable a;
  ASSERT_TRUE(pool.Grow(8, &a));
  BlockTable b = pool.Fork(a);
  EXPECT_EQ(a, b);
  EXPECT_EQ(pool.ref_count(a[0]), 2);
  pool.Release(&a);
  EXPECT_EQ(pool.num_free(), 1);
  pool.Release(&b);
  EXPECT_EQ(pool.num_free(), 3);
}

TEST(KvBlockPool, TruncateGivesBackTheTail) {
  KvBlockPool pool(4, 4);
  BlockTable table;
  ASSERT_TRUE(pool.Grow(16, &table));
  pool.Truncate(5, &table);
  EXPECT_EQ(table.size(), 2u);
  EXPECT_EQ(pool.num_free(), 2);
  pool.Truncate(100, &table);
  EXPECT_EQ(table.size(), 2u);
}

TEST(KvBlockPool, ShuffledOrderHandsOutEveryBlockOnce) {
  KvBlockPool pool(32, 1, 42);
  BlockTable table;
  ASSERT_TRUE(pool.Grow(32, &table));
  EXPECT_EQ(std::set<int32_t>(table.begin(), table.end()).size(), 32u);
  EXPECT_FALSE(std::is_sorted(table.begin(), table.end()));
}

}  // namespace
}  // namespace thermocline
