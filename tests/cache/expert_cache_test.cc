#include "cache/expert_cache.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <map>
#include <set>

#include "kernels/host_device.h"

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
    options.device = &device_;
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

  HostDevice device_;
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

TEST_F(ExpertCacheTest, ReadingAnExpertInIsAUse) {
  const auto cache = Make(2);
  (void)cache->Insert({0, 3});
  (void)cache->Insert({0, 1});
  (void)cache->Insert({0, 2});  // nobody was looked up: 3 has been there longest
  EXPECT_FALSE(cache->IsResident({0, 3}));
  EXPECT_TRUE(cache->IsResident({0, 1}));
  (void)cache->Insert({0, 0});  // now 1
  EXPECT_FALSE(cache->IsResident({0, 1}));
  EXPECT_TRUE(cache->IsResident({0, 2}));
}

TEST_F(ExpertCacheTest, ALayersUsesAreItsOwn) {
  const auto cache = Make(2);
  (void)cache->Insert({0, 0});
  (void)cache->Insert({0, 1});
  (void)cache->Insert({2, 0});
  (void)cache->Lookup({2, 0});  // not expert 0 of layer 0, which stays the oldest there
  (void)cache->Insert({0, 2});
  EXPECT_FALSE(cache->IsResident({0, 0}));
  EXPECT_TRUE(cache->IsResident({0, 1}));
  EXPECT_TRUE(cache->IsResident({2, 0}));
  EXPECT_EQ(cache->stats(0).evictions, 1);
  EXPECT_EQ(cache->stats(2).evictions, 0);
}

// Random uses of two layers against lists of what each has used, the latest last.
TEST_F(ExpertCacheTest, RandomTrafficEvictsTheOldestOfItsLayer) {
  const auto cache = Make(3);
  std::map<int, std::vector<int>> used;
  uint32_t random = 1;
  const auto next = [&] { return random = random * 1664525u + 1013904223u, random >> 8; };
  int64_t evictions = 0;
  for (int i = 0; i < 2000; ++i) {
    const int layer = next() % 2 == 0 ? 0 : 2, expert = static_cast<int>(next() % 4);
    std::vector<int>& list = used[layer];
    const auto found = std::find(list.begin(), list.end(), expert);
    ASSERT_EQ(static_cast<bool>(cache->Lookup({layer, expert})), found != list.end());
    if (found != list.end()) {
      list.erase(found);
    } else {
      ASSERT_TRUE(cache->Insert({layer, expert}).ok());
      if (list.size() == 3) {
        list.erase(list.begin());
        ++evictions;
      }
    }
    list.push_back(expert);
    for (int e = 0; e < 4; ++e) {
      ASSERT_EQ(cache->IsResident({layer, e}),
                std::find(list.begin(), list.end(), e) != list.end());
    }
    ASSERT_EQ(ByteOf(cache->Lookup({layer, expert})), 16 * layer + expert);
  }
  EXPECT_EQ(cache->stats(0).evictions + cache->stats(2).evictions, evictions);
}

TEST_F(ExpertCacheTest, AFreeSlotIsTakenBeforeAnythingIsEvicted) {
  const auto cache = Make(3);
  for (int e : {0, 1, 2}) (void)cache->Insert({0, e});
  EXPECT_EQ(cache->stats(0).evictions, 0);
  EXPECT_EQ(cache->resident_bytes(), 3 * 64);
  (void)cache->Insert({0, 3});
  EXPECT_EQ(cache->stats(0).evictions, 1);
  EXPECT_EQ(cache->resident_bytes(), 3 * 64);
  EXPECT_EQ(cache->stats(0).bytes_read, 4 * 64);
  EXPECT_EQ(cache->stats(1).bytes_read, 0);
}

TEST_F(ExpertCacheTest, APinEndsWithItsLastHandle) {
  const auto cache = Make(1);
  auto first = cache->Insert({0, 0});
  PinnedExpert second = cache->Lookup({0, 0});
  PinnedExpert moved = *std::move(first);
  second = PinnedExpert();
  EXPECT_FALSE(cache->Insert({0, 1}).ok());
  moved = PinnedExpert();
  EXPECT_TRUE(cache->Insert({0, 1}).ok());
}

TEST_F(ExpertCacheTest, NothingIsPoisonedUnlessAsked) {
  const auto cache = Make(1, "lru", /*poison=*/false);
  const void* slot = cache->Insert({0, 2})->data();
  source_.fail = true;
  (void)cache->Insert({0, 1});
  EXPECT_EQ(*static_cast<const unsigned char*>(slot), 2);
  EXPECT_FALSE(cache->IsResident({0, 2}));
  EXPECT_FALSE(cache->IsResident({0, 1}));
}

TEST_F(ExpertCacheTest, RandomEvictionReachesEveryExpertAndRepeatsWithItsSeed) {
  const auto trace = [this](uint64_t seed) {
    ExpertCache::Options options;
    options.device = &device_;
    options.source = &source_;
    options.num_experts = 4;
    options.expert_bytes = {64};
    options.capacity = 3;
    options.policy = "random";
    options.seed = seed;
    const auto cache = *ExpertCache::Create(options);
    std::vector<int> victims;
    for (int e : {0, 1, 2}) (void)cache->Insert({0, e});
    int missing = 3;
    for (int i = 0; i < 40; ++i) {
      (void)cache->Insert({0, missing});
      for (int e = 0; e < 4; ++e) {
        if (!cache->IsResident({0, e})) missing = e;
      }
      victims.push_back(missing);
    }
    return victims;
  };
  const std::vector<int> victims = trace(1);
  EXPECT_EQ(std::set<int>(victims.begin(), victims.end()).size(), 4u);
  EXPECT_EQ(trace(1), victims);
  EXPECT_NE(trace(2), victims);
}

TEST_F(ExpertCacheTest, APreloadThatFailsSaysSo) {
  const auto cache = Make(2);
  source_.fail = true;
  int64_t bytes = 0;
  EXPECT_EQ(cache->Preload({{0, 0}, {0, 1}}, 2, [&](int64_t b) { bytes += b; }).code(),
            absl::StatusCode::kDataLoss);
  EXPECT_EQ(bytes, 0);
}

TEST_F(ExpertCacheTest, AnEmptyTierHoldsNothing) {
  const auto cache = Make(0);
  EXPECT_EQ(cache->capacity(), 0);
  EXPECT_EQ(cache->resident_bytes(), 0);
  EXPECT_EQ(cache->Insert({0, 0}).status().code(), absl::StatusCode::kResourceExhausted);
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
  options.device = &device_;
  options.num_experts = 4;
  for (int capacity : {5, -1}) {
    options.capacity = capacity;
    EXPECT_EQ(ExpertCache::Create(options).status().code(), absl::StatusCode::kInvalidArgument);
  }
  options.capacity = 4;
  options.policy = "belady";
  EXPECT_NE(ExpertCache::Create(options).status().message().find("lru, random"), std::string::npos);
}

}  // namespace
}  // namespace thermocline
