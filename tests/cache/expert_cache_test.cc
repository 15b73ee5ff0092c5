#include "cache/expert_cache.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstring>

#include "kernels/reference/reference_backend.h"

namespace thermocline {
namespace {

// Expert (l, e) is filled with the byte 16 * l + e.
class FakeSource : public ExpertSource {
 public:
  absl::Status Read(ExpertId id, char* destination, int64_t bytes) override {
    ++reads;
    if (fail) return absl::DataLossError("the disk is gone");
    std::memset(destination, 16 * id.layer + id.expert, static_cast<size_t>(bytes));
    return absl::OkStatus();
  }
  std::atomic<int> reads{0};
  bool fail = false;
};

class ExpertCacheTest : public testing::Test {
 protected:
  std::unique_ptr<ExpertCache> Make(int capacity, const std::string& policy = "lru",
                                    bool poison = true) {
    ExpertCache::Options options;
    options.backend = &backend_;
    options.source = &source_;
    options.num_experts = 4;
    options.expert_bytes = {64, 0, 128};  // the middle layer is dense
    options.capacity = capacity;
    options.policy = policy;
    options.poison_evicted = poison;
    auto cache = ExpertCache::Create(options);
    EXPECT_TRUE(cache.ok()) << cache.status();
    return *std::move(cache);
  }
  static int ByteOf(const PinnedExpert& pin) {
    return *static_cast<const unsigned char*>(pin.data());
  }

  ReferenceBackend backend_;
  FakeSource source_;
};

TEST_F(ExpertCacheTest, InsertThenLookupHits) {
  const auto cache = Make(2);
  EXPECT_FALSE(cache->Lookup({2, 3}));
  const auto inserted = cache->Insert({2, 3});
  ASSERT_TRUE(inserted.ok());
  EXPECT_EQ(ByteOf(*inserted), 35);
  const PinnedExpert found = cache->Lookup({2, 3});
  EXPECT_TRUE(found);
  EXPECT_EQ(found.data(), inserted->data());
  EXPECT_EQ(cache->stats(2).hits, 1);
  EXPECT_EQ(cache->stats(2).misses, 1);
  EXPECT_EQ(cache->stats(2).bytes_read, 128);
  EXPECT_EQ(cache->resident_bytes(), 128);
}

TEST_F(ExpertCacheTest, EvictsLeastRecentlyUsedUnpinned) {
  const auto cache = Make(2);
  (void)cache->Insert({0, 0});
  (void)cache->Insert({0, 1});
  (void)cache->Lookup({0, 0});
  (void)cache->Insert({0, 2});  // 1 is the oldest
  EXPECT_TRUE(cache->IsResident({0, 0}));
  EXPECT_FALSE(cache->IsResident({0, 1}));
  EXPECT_TRUE(cache->IsResident({0, 2}));
  EXPECT_EQ(cache->stats(0).evictions, 1);
}

TEST_F(ExpertCacheTest, EntriesArePinned) {
  for (const char* policy : {"lru", "random"}) {
    const auto cache = Make(2, policy);
    const auto pinned = cache->Insert({0, 1});
    ASSERT_TRUE(pinned.ok());
    for (int e : {0, 2, 3, 0, 2}) {
      if (!cache->IsResident({0, e})) (void)cache->Insert({0, e});
    }
    EXPECT_TRUE(cache->IsResident({0, 1}));
    EXPECT_EQ(ByteOf(*pinned), 1);
  }
}

TEST_F(ExpertCacheTest, RefusesWhenAllSlotsArePinned) {
  const auto cache = Make(1);
  const auto pinned = cache->Insert({0, 0});
  const auto refused = cache->Insert({0, 1});
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kResourceExhausted);
}

TEST_F(ExpertCacheTest, AFailedReadFreesTheSlot) {
  const auto cache = Make(1);
  source_.fail = true;
  EXPECT_EQ(cache->Insert({0, 0}).status().code(), absl::StatusCode::kDataLoss);
  source_.fail = false;
  EXPECT_TRUE(cache->Insert({0, 1}).ok());
}

TEST_F(ExpertCacheTest, EvictedSlotsArePoisonedBeforeReuse) {
  const auto cache = Make(1);
  const void* slot = nullptr;
  {
    const auto pin = cache->Insert({0, 0});
    slot = pin->data();
  }
  source_.fail = true;
  (void)cache->Insert({0, 1});
  EXPECT_EQ(*static_cast<const unsigned char*>(slot), 0xFF);
}

TEST_F(ExpertCacheTest, PreloadsInParallelWithProgress) {
  const auto cache = Make(4);
  std::vector<ExpertId> ids;
  for (int l : {0, 2}) {
    for (int e = 0; e < 4; ++e) ids.push_back({l, e});
  }
  int64_t bytes = 0;
  ASSERT_TRUE(cache->Preload(ids, 3, [&](int64_t b) { bytes += b; }).ok());
  EXPECT_EQ(bytes, 4 * 64 + 4 * 128);
  for (const ExpertId id : ids) EXPECT_EQ(ByteOf(cache->Lookup(id)), 16 * id.layer + id.expert);
}

TEST_F(ExpertCacheTest, CreateNamesBadOptions) {
  ExpertCache::Options options;
  options.backend = &backend_;
  options.num_experts = 4;
  options.capacity = 5;
  EXPECT_EQ(ExpertCache::Create(options).status().code(), absl::StatusCode::kInvalidArgument);
  options.capacity = 4;
  options.policy = "belady";
  EXPECT_NE(ExpertCache::Create(options).status().message().find("lru, random"), std::string::npos);
}

}  // namespace
}  // namespace thermocline
