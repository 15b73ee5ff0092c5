// The books of a tier. Slots are drawn as text, one a slot: `.` free, `-` given up, `e3` expert 3
// of layer 0 that is ready, `E3` of layer 1; while it is filled `~e3`, half there `/e3`, failed
// `!e3`, draining `x`; `*` behind it is a pin.
#include "cache/residency.h"

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"

namespace thermocline {
namespace {

class ResidencyTest : public testing::Test {
 protected:
  // Two layers of one size and a third of another, 8 experts each.
  void Make(int slots, int other_slots = 2, const std::string& placement = "") {
    placement_ = std::make_unique<Placement>(*Placement::Parse(placement, 3, 8));
    policy_ = *MakeEvictionPolicy("lru", {.num_layers = 3, .num_experts = 8, .seed = 1});
    books_ = std::make_unique<Residency>(Residency::Options{.num_experts = 8,
                                                            .size_class = {0, 0, 1},
                                                            .slots = {slots, other_slots},
                                                            .policy = policy_.get(),
                                                            .placement = placement_.get()});
  }
  std::string Draw(int size_class = 0) const {
    std::string text;
    for (SlotId s = 0; s < books_->num_slots(); ++s) {
      const bool first_class = s < books_->num_slots() - 2;
      if (first_class != (size_class == 0)) continue;
      absl::StrAppend(&text, text.empty() ? "" : " ");
      if (books_->IsGivenUp(s)) {
        text += '-';
        continue;
      }
      const SlotState state = books_->StateOf(s);
      const ExpertId id = books_->ExpertIn(s);
      const char* mark[] = {".", "~", "/", "", "x", "!"};
      text += mark[static_cast<int>(state)];
      if (id.layer >= 0) absl::StrAppend(&text, id.layer == 0 ? "e" : "E", id.expert);
      if (books_->InUse(s)) text += '*';
    }
    return text;
  }
  std::optional<SlotId> Claim(int layer, int expert, Claimant who = Claimant::kStep) {
    return books_->Claim({layer, expert}, who);
  }
  // An expert that is here, unused, as if a step had been through with it.
  SlotId Fill(int layer, int expert) {
    const std::optional<SlotId> slot = Claim(layer, expert);
    EXPECT_TRUE(slot.has_value());
    books_->SetNeeded(layer, {expert});
    books_->Pin(*slot);
    books_->Arrived(*slot, SlotState::kHalf);
    books_->Arrived(*slot, SlotState::kReady);
    books_->Release({layer, expert});
    return *slot;
  }

  std::unique_ptr<EvictionPolicy> policy_;
  std::unique_ptr<Placement> placement_;
  std::unique_ptr<Residency> books_;
};

TEST_F(ResidencyTest, AnExpertGoesThroughItsStates) {
  Make(2);
  EXPECT_EQ(Draw(), ". .");
  EXPECT_EQ(books_->StateOf(ExpertId{0, 3}), SlotState::kFree);
  const SlotId slot = *Claim(0, 3);
  EXPECT_EQ(Draw(), "~e3 .");
  EXPECT_EQ(books_->Find({0, 3}), slot);
  books_->SetNeeded(0, {3});
  books_->Pin(slot);
  EXPECT_EQ(Draw(), "~e3* .");
  books_->Arrived(slot, SlotState::kHalf);
  EXPECT_EQ(Draw(), "/e3* .");
  books_->Arrived(slot, SlotState::kReady);
  EXPECT_EQ(Draw(), "e3* .");
  books_->Release({0, 3});
  EXPECT_EQ(Draw(), "e3 .");
  EXPECT_EQ(books_->ExpertIn(slot), (ExpertId{0, 3}));
}

TEST_F(ResidencyTest, FillingTakesOnlyWhatIsFree) {
  Make(4);  // two for each layer
  Fill(0, 1);
  EXPECT_NE(Claim(0, 2, Claimant::kFill), std::nullopt);
  EXPECT_EQ(Draw(), "e1 ~e2 . .");
  EXPECT_EQ(Claim(0, 3, Claimant::kFill), std::nullopt);  // its quota is full, and nobody gives way
  Fill(0, 4);                                             // a step drives out
  EXPECT_EQ(Draw(), "e4 ~e2 . .");
  Fill(1, 0);
  Fill(1, 1);
  EXPECT_EQ(Claim(1, 2, Claimant::kFill), std::nullopt);
  EXPECT_EQ(Draw(), "e4 ~e2 E0 E1");
}

// Down may land first: FILLING becomes READY.
TEST_F(ResidencyTest, AnExpertMayBeReadyWithoutBeingHalf) {
  Make(2);
  books_->Arrived(*Claim(0, 1), SlotState::kReady);
  EXPECT_EQ(Draw(), "e1 .");
}

TEST_F(ResidencyTest, TheLeastRecentlyUsedGivesWayWithinItsLayer) {
  Make(4);  // a quota of 2 a layer
  Fill(0, 1);
  Fill(0, 2);
  Fill(1, 5);
  Fill(1, 6);
  EXPECT_EQ(Draw(), "e1 e2 E5 E6");
  ASSERT_TRUE(Claim(0, 3).has_value());
  EXPECT_EQ(Draw(), "~e3 e2 E5 E6");
  ASSERT_TRUE(Claim(1, 7).has_value());
  EXPECT_EQ(Draw(), "~e3 e2 ~E7 E6");
  EXPECT_EQ(books_->num_evictions(0), 1);
  EXPECT_EQ(books_->num_evictions(1), 1);
}

// A known engine's cache evicted what the step still needed, and gave wrong weights without an
// error.
TEST_F(ResidencyTest, NothingThatTheStepNeedsIsEvicted) {
  Make(4);
  Fill(0, 1);
  Fill(0, 2);
  books_->SetNeeded(0, {1, 2, 3});
  EXPECT_EQ(Draw(), "e1* e2* . .");
  EXPECT_EQ(Claim(0, 3), std::nullopt);  // its layer's share is in use
  EXPECT_EQ(Claim(0, 3, Claimant::kPrefetch), std::nullopt);
  EXPECT_EQ(Draw(), "e1* e2* . .");
  books_->Release({0, 1});
  EXPECT_EQ(Draw(), "e1 e2* . .");
  ASSERT_TRUE(Claim(0, 3).has_value());
  EXPECT_EQ(Draw(), "~e3* e2* . .");
}

TEST_F(ResidencyTest, NeedsAreCounted) {
  Make(2);
  Fill(0, 1);
  books_->SetNeeded(0, {1});
  books_->SetNeeded(0, {1});
  books_->Release({0, 1});
  EXPECT_EQ(Draw(), "e1* .");
  books_->Release({0, 1});
  EXPECT_EQ(Draw(), "e1 .");
}

// Else the earlier layer would wait for the later one, which waits for it.
TEST_F(ResidencyTest, NeedsOfALaterLayerKeepPrefetchesAwayButNotTheStep) {
  Make(2);
  Fill(0, 1);
  Fill(1, 5);
  books_->SetNeededLater(1, {5}, true);
  EXPECT_EQ(Claim(1, 6, Claimant::kPrefetch), std::nullopt);
  EXPECT_EQ(Draw(), "e1 E5");
  ASSERT_TRUE(Claim(1, 6, Claimant::kStep).has_value());
  EXPECT_EQ(Draw(), "e1 ~E6");
  books_->SetNeededLater(1, {5}, false);
}

TEST_F(ResidencyTest, WhatIsOnItsWayIsNoVictim) {
  Make(2);
  const SlotId one = *Claim(0, 1);
  EXPECT_EQ(Claim(0, 2), std::nullopt);
  books_->Arrived(one, SlotState::kHalf);
  EXPECT_EQ(Claim(0, 2), std::nullopt);
  books_->Arrived(one, SlotState::kReady);
  ASSERT_TRUE(Claim(0, 2).has_value());
  EXPECT_EQ(Draw(), "~e2 .");
}

TEST_F(ResidencyTest, ACancelledExpertIsGoneAtOnceAndItsSlotWhenItIsLeft) {
  Make(2);
  const SlotId slot = *Claim(0, 1, Claimant::kPrefetch);
  books_->Arrived(slot, SlotState::kHalf);
  books_->Cancel(slot);
  EXPECT_EQ(Draw(), "x .");
  EXPECT_EQ(books_->Find({0, 1}), std::nullopt);
  books_->Arrived(slot, SlotState::kFree);
  EXPECT_EQ(Draw(), ". .");
}

TEST_F(ResidencyTest, AFailedExpertKeepsItsSlotUntilItsUsersHaveLeft) {
  Make(2);
  const SlotId slot = *Claim(0, 1);
  books_->SetNeeded(0, {1});
  books_->Pin(slot);
  books_->Arrived(slot, SlotState::kFailed);
  EXPECT_EQ(Draw(), "!e1* .");
  EXPECT_DEATH(books_->Arrived(slot, SlotState::kFree), "InUse");
  books_->Release({0, 1});
  books_->Arrived(slot, SlotState::kFree);
  EXPECT_EQ(Draw(), ". .");
}

// It has no slot, but it was needed.
TEST_F(ResidencyTest, AnExpertThatNeverHadASlotIsReleasedToo) {
  Make(2);
  books_->SetNeeded(0, {4});
  books_->Release({0, 4});
  EXPECT_DEATH(books_->Release({0, 4}), "needed");
}

TEST_F(ResidencyTest, ALayerTakesBeyondItsQuotaOnlyIfItHoldsNone) {
  Make(4);
  books_->SetQuota(0, 3);
  books_->SetQuota(1, 1);
  Fill(1, 5);
  ASSERT_TRUE(Claim(1, 6).has_value());  // E5 gives way, although slots are free
  EXPECT_EQ(Draw(), "~E6 . . .");
  books_->Arrived(*books_->Find({1, 6}), SlotState::kReady);
  Fill(0, 1);
  Fill(0, 2);
  Fill(0, 3);
  EXPECT_EQ(Draw(), "E6 e1 e2 e3");
  books_->SetQuota(0, 2);
  books_->SetQuota(1, 2);
  ASSERT_TRUE(Claim(1, 7).has_value());  // layer 0 holds one too many: its oldest goes
  EXPECT_EQ(Draw(), "E6 ~E7 e2 e3");
}

TEST_F(ResidencyTest, OneSlotServesLayersInTurn) {
  Make(1);
  Fill(0, 1);
  ASSERT_TRUE(Claim(1, 5).has_value());
  EXPECT_EQ(Draw(), "~E5");
  EXPECT_EQ(Claim(0, 2), std::nullopt);  // on its way
  books_->Arrived(*books_->Find({1, 5}), SlotState::kReady);
  EXPECT_EQ(Claim(0, 2, Claimant::kPrefetch), std::nullopt);  // nobody is driven out for a guess
  ASSERT_TRUE(Claim(0, 2).has_value());
  EXPECT_EQ(Draw(), "~e2");
}

TEST_F(ResidencyTest, SizesDoNotMix) {
  Make(2, 2);
  Fill(2, 1);
  Fill(2, 2);
  EXPECT_EQ(Draw(), ". .");
  ASSERT_TRUE(Claim(2, 3).has_value());
  EXPECT_EQ(Draw(), ". .");
  EXPECT_EQ(books_->num_evictions(2), 1);
}

TEST_F(ResidencyTest, ATierShrinksAsSlotsComeFreeAndGrowsAgain) {
  Make(4);
  Fill(0, 1);
  Fill(0, 2);
  const SlotId pinned = Fill(1, 5);
  books_->SetNeeded(1, {5});
  books_->Pin(pinned);
  EXPECT_EQ(Draw(), "e1 e2 E5* .");
  books_->Resize(0, 1);
  EXPECT_EQ(Draw(), "- - E5* -");
  EXPECT_EQ(books_->num_slots(0), 1);
  books_->Resize(0, 3);
  EXPECT_EQ(Draw(), ". . E5* -");
  ASSERT_TRUE(Claim(0, 3).has_value());
  books_->Resize(0, 1);
  EXPECT_EQ(Draw(), "~e3 - E5* -");  // nothing more can go now
  EXPECT_EQ(Claim(0, 4), std::nullopt);
  books_->Arrived(*books_->Find({0, 3}), SlotState::kReady);
  EXPECT_EQ(Claim(0, 4), std::nullopt);  // what came free went
  EXPECT_EQ(Draw(), "- - E5* -");
  EXPECT_DEATH(books_->Resize(0, 0), "num_slots");
}

TEST_F(ResidencyTest, SharesAreEqualAndTheRestGoesToTheFirst) {
  Make(5);
  EXPECT_EQ(books_->quota(0), 3);
  EXPECT_EQ(books_->quota(1), 2);
  EXPECT_EQ(books_->quota(2), 2);
  books_->Resize(0, 1);
  EXPECT_EQ(books_->quota(0), 1);
  EXPECT_EQ(books_->quota(1), 1);
}

TEST_F(ResidencyTest, WhatAPlacementWantsHereStaysAndTakesNoQuota) {
  Make(5, 2, "0 1-2 host");
  EXPECT_EQ(books_->quota(0), 2);  // three for others
  EXPECT_EQ(books_->quota(1), 1);
  Fill(0, 1);
  Fill(0, 2);
  EXPECT_EQ(books_->num_held(0), 0);
  for (const int expert : {3, 4, 5, 6}) Fill(0, expert);
  EXPECT_EQ(Draw(), "e1 e2 e5 e6 .");
  Fill(1, 3);
  Fill(1, 4);
  EXPECT_EQ(Draw(), "e1 e2 e5 e6 E4");
  // A kept one comes back at the cost of any other.
  books_->Resize(0, 3);
  EXPECT_EQ(Draw(), "e1 e2 - - E4");
  books_->Resize(0, 1);  // the last one, whatever was wanted
  EXPECT_EQ(Draw(), "- e2 - - -");
  books_->Resize(0, 2);
  ASSERT_TRUE(Claim(0, 1).has_value());
  EXPECT_EQ(Draw(), "~e1 e2 - - -");
}

// Where every slot holds what a placement wants, it gives way rather than let a step wait for ever.
TEST_F(ResidencyTest, AStepGoesOnWhereOnlyKeptExpertsCouldGiveWay) {
  Make(2, 2, "0 1-2 host");
  Fill(0, 1);
  Fill(0, 2);
  EXPECT_EQ(Claim(1, 5, Claimant::kPrefetch), std::nullopt);
  EXPECT_EQ(Draw(), "e1 e2");
  ASSERT_TRUE(Claim(1, 5).has_value());
  EXPECT_EQ(Draw(), "~E5 e2");
}

TEST_F(ResidencyTest, WhatAPlacementWantsOnDiskLeavesWhenItHasBeenUsed) {
  Make(4, 2, "* 6 disk");
  Fill(0, 1);
  const SlotId slot = *Claim(0, 6);
  books_->SetNeeded(0, {6});
  books_->Pin(slot);
  books_->Arrived(slot, SlotState::kReady);
  EXPECT_EQ(Draw(), "e1 e6* . .");
  books_->Release({0, 6});
  EXPECT_EQ(Draw(), "e1 . . .");
  EXPECT_EQ(books_->num_evictions(0), 0);
  // The books may learn late that it is whole.
  books_->SetNeeded(0, {6});
  const SlotId again = *Claim(0, 6);
  books_->Pin(again);
  books_->Release({0, 6});
  EXPECT_EQ(Draw(), "e1 ~e6 . .");
  books_->Arrived(again, SlotState::kReady);
  EXPECT_EQ(Draw(), "e1 . . .");
}

// Where a layer has few experts that may lie anywhere, the others get its share.
TEST_F(ResidencyTest, NoLayerHasAQuotaBeyondItsExperts) {
  Make(12, 2, "0 * host");
  EXPECT_EQ(books_->quota(1), 4);
  Make(16, 2, "0 * host");
  EXPECT_EQ(books_->quota(1), 8);
  Make(9, 2, "0 2-7 disk\n1 4-7 disk");  // six are for those on disk
  EXPECT_EQ(books_->quota(0), 2);
  EXPECT_EQ(books_->quota(1), 1);
}

TEST_F(ResidencyTest, ExpertsOnDiskShareFreeSlotsAndDriveOutNobodyWhileOneIsInFlight) {
  Make(4, 2, "* 4-7 disk");
  Fill(0, 1);
  for (const int expert : {4, 5, 6}) ASSERT_TRUE(Claim(0, expert).has_value()) << expert;
  EXPECT_EQ(Draw(), "e1 ~e4 ~e5 ~e6");
  EXPECT_EQ(Claim(0, 7), std::nullopt);  // one of them will leave
  Make(1, 2, "* 4-7 disk");
  Fill(0, 1);
  ASSERT_TRUE(Claim(0, 4).has_value());  // none is in flight
  EXPECT_EQ(Draw(), "~e4");
}

TEST_F(ResidencyTest, FillingBringsInWhatIsKeptAtTheCostOfOthers) {
  Make(3, 2, "0 1 host");
  Fill(0, 2);
  Fill(0, 3);
  Fill(1, 5);
  EXPECT_EQ(Claim(0, 4, Claimant::kFill), std::nullopt);
  ASSERT_TRUE(Claim(0, 1, Claimant::kFill).has_value());
}

TEST(PlacementTest, LinesNameLayersExpertsAndPlaces) {
  const Placement placement =
      *Placement::Parse("# what for\n 0-1 *\thost\n\n1,3 0-2,7 disk # and why\r\n3 1 device", 4, 8);
  EXPECT_EQ(placement.Experts(0, Wanted::kHost).size(), 8u);
  EXPECT_EQ(placement.Experts(1, Wanted::kHost), (std::vector<int32_t>{3, 4, 5, 6}));
  EXPECT_EQ(placement.Experts(1, Wanted::kDisk), (std::vector<int32_t>{0, 1, 2, 7}));
  EXPECT_EQ(placement.Experts(2, Wanted::kAnywhere).size(), 8u);
  EXPECT_EQ(placement.Experts(3, Wanted::kDisk), (std::vector<int32_t>{0, 2, 7}));
  EXPECT_EQ(placement.Experts(3, Wanted::kDevice), std::vector<int32_t>{1});
}

TEST(PlacementTest, AWrongLineIsNamedWithWhatIsAllowed) {
  const auto error = [](const std::string& text) {
    return std::string(Placement::Parse(text, 4, 8).status().message());
  };
  EXPECT_EQ(error("0 0 host\n0-4 0 host"),
            "line 2: layers \"0-4\", but numbers and ranges of 0 to 3 or * are allowed");
  EXPECT_EQ(error("0 8 host"),
            "line 1: experts \"8\", but numbers and ranges of 0 to 7 or * are allowed");
  for (const char* ranges : {"2-1", "-1", "1-", "a", "1,,2", "1-2-3", "0x1", "99999999999"}) {
    EXPECT_NE(error(std::string("0 ") + ranges + " host").find("experts \""), std::string::npos)
        << ranges;
  }
  EXPECT_EQ(error("0 0 gpu"), "line 1: place \"gpu\", but device, host and disk are allowed");
  EXPECT_EQ(error("0 0"), "line 1: 2 words, but a line is LAYERS EXPERTS PLACE");
  EXPECT_EQ(error("0 0 host disk"), "line 1: 4 words, but a line is LAYERS EXPERTS PLACE");
}

TEST(LfuPolicy, OldUsesCountLess) {
  const auto policy = *MakeEvictionPolicy("lfu", {.num_layers = 1, .num_experts = 4, .seed = 1});
  const auto use = [&](int expert, int times) {
    for (int i = 0; i < times; ++i) policy->OnUse({0, expert});
  };
  use(0, 3);
  use(1, 2);
  use(2, 2);
  EXPECT_EQ(policy->PickVictim(0, {0, 1, 2}), 1);     // as often as 2, but longer ago
  EXPECT_EQ(policy->PickVictim(0, {0, 1, 2, 3}), 3);  // never used
  use(3, 4000);                                       // many half-lives
  use(2, 1);
  EXPECT_EQ(policy->PickVictim(0, {0, 2}), 0);
}

}  // namespace
}  // namespace thermocline
