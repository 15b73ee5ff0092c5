// The plan for a model's memory, from numbers to numbers.
#include "engine/memory_plan.h"

#include <gtest/gtest.h>

namespace thermocline {
namespace {

constexpr int64_t kMB = 1000000;

// 16 layers of 64 experts of 4 MB; a token takes 0.1 MB of KV, a step 0.1 MB a token.
MemoryNeeds Needs(int64_t limit) {
  MemoryNeeds needs;
  needs.limit = limit;
  needs.held = 20 * kMB;
  needs.dense = 300 * kMB;
  needs.staging = 8 * kMB;
  needs.kv_token = kMB / 10;
  needs.block_tokens = 16;
  needs.most_kv_tokens = 65536;
  needs.least_kv_tokens = 4096;
  needs.step = [](int tokens) { return tokens * kMB / 10; };
  SizeClass size;
  size.slot_bytes = 4 * kMB;
  for (int l = 0; l < 16; ++l) size.layers.push_back(l);
  needs.classes = {size};
  needs.least_slots = {1};
  needs.most_slots = {16 * 64};
  needs.expert_bytes = 16 * 64 * 4 * kMB;
  needs.num_experts = 64;
  needs.experts_per_token = 8;
  return needs;
}

MemoryPlan Plan(const MemoryNeeds& needs) {
  absl::StatusOr<MemoryPlan> plan = PlanMemory(needs);
  EXPECT_TRUE(plan.ok()) << plan.status();
  return plan.ok() ? *plan : MemoryPlan();
}

// The plan's parts and its spare bytes are the limit less the reserve.
void ExpectAddsUp(const MemoryNeeds& needs, const MemoryPlan& plan) {
  EXPECT_EQ(needs.held + needs.dense + needs.staging + needs.states + plan.kv_bytes(needs) +
                plan.step_bytes + plan.expert_bytes + plan.spare + MemoryReserve(needs.limit),
            needs.limit);
  EXPECT_GE(plan.spare, 0);
}

TEST(MemoryPlan, WithAmpleMemoryEverythingIsResidentAndAQuarterOfTheRestIsKv) {
  const MemoryNeeds needs = Needs(10000 * kMB);
  const MemoryPlan plan = Plan(needs);
  ExpectAddsUp(needs, plan);
  EXPECT_TRUE(plan.all_resident);
  EXPECT_EQ(plan.slots, std::vector<int>{16 * 64});
  EXPECT_EQ(plan.step_tokens, 512);
  const int64_t rest =
      needs.limit - MemoryReserve(needs.limit) - 328 * kMB - 4096 * kMB - 512 * kMB / 10;
  EXPECT_EQ(plan.kv_tokens, rest / 4 / needs.kv_token / 16 * 16);
  // No more than is of use.
  EXPECT_EQ(Plan(Needs(100000 * kMB)).kv_tokens, 65536);
}

TEST(MemoryPlan, TheExpertsThatFitAreAsManyAsTheRestHolds) {
  for (int64_t limit = 1000 * kMB; limit < 5000 * kMB; limit += 100 * kMB) {
    const MemoryNeeds needs = Needs(limit);
    const MemoryPlan plan = Plan(needs);
    ExpectAddsUp(needs, plan);
    EXPECT_TRUE(plan.all_resident || plan.spare < 4 * kMB) << limit;
  }
}

TEST(MemoryPlan, LargerStepsAreTakenWhereExpertsAreMissing) {
  MemoryNeeds needs = Needs(2200 * kMB);
  const MemoryPlan plan = Plan(needs);
  EXPECT_FALSE(plan.all_resident);
  EXPECT_GT(plan.step_tokens, 512);
  // Not where they cost more experts than they save.
  needs.step = [](int tokens) { return tokens * kMB; };
  EXPECT_EQ(Plan(needs).step_tokens, 512);
  // A given size is kept.
  needs.step_tokens = 300;
  EXPECT_EQ(Plan(needs).step_tokens, 300);
}

TEST(MemoryPlan, StepsBecomeSmallBeforeAModelIsRefused) {
  MemoryNeeds needs = Needs(410 * kMB);
  needs.kv_tokens = 160;
  needs.step = [](int tokens) { return tokens * kMB; };
  const MemoryPlan plan = Plan(needs);
  ExpectAddsUp(needs, plan);
  EXPECT_EQ(plan.step_tokens, 32);
  EXPECT_GE(plan.slots[0], 1);
  needs.limit = 375 * kMB;
  const absl::Status status = PlanMemory(needs).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(status.message(),
            "the model does not fit into 375.0 MB of memory: 20.0 MB are held already, 13.1 MB are "
            "kept free, and it needs 300.0 MB for dense weights, 16.0 MB for a KV cache of 160 "
            "tokens, 16.0 MB for steps of 16 tokens, 12.0 MB for the fewest experts");
}

TEST(MemoryPlan, OneConversationIsWorthMoreThanItsShareOfKv) {
  MemoryNeeds needs = Needs(3000 * kMB);
  const auto kv_room = [&](const MemoryPlan& plan) {
    return needs.limit - MemoryReserve(needs.limit) - 328 * kMB - plan.step_bytes;
  };
  MemoryPlan plan = Plan(needs);  // 409.6 MB are more than an eighth, less than a quarter
  EXPECT_EQ(plan.kv_tokens, 4096);
  needs.least_kv_tokens = 64;
  plan = Plan(needs);
  EXPECT_EQ(plan.kv_tokens, kv_room(plan) / 8 / needs.kv_token / 16 * 16);
  needs.least_kv_tokens = 65536;
  plan = Plan(needs);
  EXPECT_EQ(plan.kv_tokens, kv_room(plan) / 4 / needs.kv_token / 16 * 16);
  needs.kv_tokens = 100;  // whole blocks
  EXPECT_EQ(Plan(needs).kv_tokens, 112);
}

TEST(MemoryPlan, AGivenNumberOfSlotsIsKept) {
  MemoryNeeds needs = Needs(3000 * kMB);
  needs.layer_slots = 5;
  const MemoryPlan plan = Plan(needs);
  ExpectAddsUp(needs, plan);
  EXPECT_EQ(plan.slots, std::vector<int>{80});
  EXPECT_FALSE(plan.all_resident);
  needs.layer_slots = 64;
  EXPECT_EQ(PlanMemory(needs).status().code(), absl::StatusCode::kResourceExhausted);
}

TEST(MemoryPlan, ADenseModelNeedsNoExperts) {
  MemoryNeeds needs = Needs(1000 * kMB);
  needs.classes.clear();
  needs.least_slots.clear();
  needs.most_slots.clear();
  needs.expert_bytes = 0;
  needs.num_experts = 0;
  const MemoryPlan plan = Plan(needs);
  EXPECT_TRUE(plan.slots.empty());
  EXPECT_TRUE(plan.all_resident);
  needs.limit = 100 * kMB;
  const absl::Status status = PlanMemory(needs).status();
  EXPECT_EQ(status.message().find("experts"), std::string::npos) << status;
}

// What a placement keeps is room that others do not get, and what it leaves on disk is no use of
// memory.
TEST(MemoryPlan, APlacementNeedsItsSlotsAndNoMoreThanIsOfUse) {
  MemoryNeeds needs = Needs(3000 * kMB);
  needs.least_slots = {401};
  needs.most_slots = {416};
  MemoryPlan plan = Plan(needs);
  ExpectAddsUp(needs, plan);
  EXPECT_EQ(plan.slots, std::vector<int>{416});
  EXPECT_FALSE(plan.all_resident);
  needs.least_slots = {700};
  needs.most_slots = {1024};
  const absl::Status status = PlanMemory(needs).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(status.message().find("2808.0 MB for the fewest experts"), std::string::npos) << status;
}

TEST(SlotsWithin, SharesAreEqualAndNothingIsWasted) {
  SizeClass small, large;
  small.slot_bytes = 10;
  small.layers = {0, 1, 2};
  large.slot_bytes = 25;
  large.layers = {3};
  const std::vector<SizeClass> classes = {small, large};
  const std::vector<int> one = {1, 1}, all = {12, 4};
  // 4 experts a layer: 12 of 10 bytes, 4 of 25.
  EXPECT_EQ(SlotsWithin(classes, one, all, 220), (std::vector<int>{12, 4}));
  EXPECT_EQ(SlotsWithin(classes, one, all, 1000), (std::vector<int>{12, 4}));
  EXPECT_EQ(SlotsWithin(classes, one, all, 110), (std::vector<int>{6, 2}));
  EXPECT_EQ(SlotsWithin(classes, one, all, 120), (std::vector<int>{7, 2}));
  EXPECT_EQ(SlotsWithin(classes, one, all, 219), (std::vector<int>{11, 4}));
  EXPECT_EQ(SlotsWithin(classes, one, all, 0), (std::vector<int>{1, 1}));
  EXPECT_EQ(SlotsWithin(classes, one, all, -5), (std::vector<int>{1, 1}));
  EXPECT_EQ(SlotsWithin(classes, {5, 2}, {5, 4}, 0), (std::vector<int>{5, 2}));
  EXPECT_EQ(SlotsWithin(classes, {5, 2}, {5, 4}, 130), (std::vector<int>{5, 3}));
}

}  // namespace
}  // namespace thermocline
