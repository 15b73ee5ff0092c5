// Experts in flight: whatever order pieces land in, whatever number of slots and staging buffers
// there are, and whatever goes wrong, the rows are those of experts that were there all along, and
// nothing stands still. Experts are tiny and latencies microseconds, so that a second shows very
// many orders of events. Also run under the thread sanitizer.
#include "cache/expert_fetcher.h"

#include <gtest/gtest.h>

#include <cstring>
#include <numeric>
#include <random>

#include "absl/strings/str_cat.h"
#include "kernels/host_device.h"
#include "tests/support/fake_reader.h"
#include "tests/support/test_backend.h"

namespace thermocline {
namespace {

constexpr int kHidden = 32, kWidth = 32, kExperts = 12, kTopK = 3, kMaxTokens = 12;
constexpr int kPiecesOfGateUp = 4, kPieces = 6;  // of 16 rows each
constexpr int64_t kPieceBytes = kPanelRows * kHidden * 4;

// What a file holds: rows of floats that follow from where they are.
float Stored(int64_t index) {
  const uint64_t mixed = static_cast<uint64_t>(index + 1) * 0x9E3779B97F4A7C15ull >> 33;
  return static_cast<float>(static_cast<int>(mixed % 2001) - 1000) / 4000.0f;
}

class FakeSource : public ExpertSource {
 public:
  int NumPieces(ExpertId, ExpertPart part) const override {
    return part == ExpertPart::kGateUp ? kPiecesOfGateUp : kPieces - kPiecesOfGateUp;
  }
  ReadPiece PieceOf(ExpertId id, int32_t index) const override {
    ReadPiece piece;
    piece.expert = id;
    piece.index = index;
    piece.part = index < kPiecesOfGateUp ? ExpertPart::kGateUp : ExpertPart::kDown;
    piece.ranges[0] = {0, ((id.layer * kExperts + id.expert) * kPieces + index) * kPieceBytes,
                       kPieceBytes};
    return piece;
  }
  absl::Status Arrive(const ReadPiece& piece, const std::array<const char*, 2>& bytes,
                      char* slot) override {
    std::vector<float> expected(static_cast<size_t>(kPieceBytes / 4));
    Read(piece.ranges[0], reinterpret_cast<char*>(expected.data()));
    PackRows(DType::kF32, reinterpret_cast<const uint8_t*>(bytes[0]), kPanelRows, kHidden,
             reinterpret_cast<uint8_t*>(slot) + piece.index * kPieceBytes);
    if (slow_ && piece.index % 3 == 0) {  // a thread that the system takes off its core
      std::this_thread::sleep_for(std::chrono::microseconds(50));
    }
    if (std::memcmp(bytes[0], expected.data(), static_cast<size_t>(kPieceBytes)) == 0) {
      return absl::OkStatus();
    }
    return absl::DataLossError("other bytes than the first time");
  }
  static void Read(const FileRange& range, char* out) {
    for (int64_t i = 0; i < range.bytes / 4; ++i) {
      const float value = Stored(range.offset / 4 + i);
      std::memcpy(out + 4 * i, &value, 4);
    }
  }
  void set_slow(bool slow) { slow_ = slow; }

 private:
  bool slow_ = false;
};

ExpertLayout Layout() {
  ExpertLayout layout;
  layout.gate = {DType::kF32, kWidth, kHidden, 0};
  layout.up = {DType::kF32, kWidth, kHidden, 2 * kPieceBytes};
  layout.down = {DType::kF32, kHidden, kWidth, 4 * kPieceBytes};
  layout.bytes = kPieces * kPieceBytes;
  return layout;
}

struct Case {
  uint64_t seed = 1;
  int workers = 2, slots = 3, staging = 4, errors = 0, layers = 3;
  int steps = 4;
  std::string backend = "cpu";
  bool resize = true;
  bool wrong_guesses = false;  // before every layer experts of it are read ahead, most in vain
  int never = 150;             // FakeReaderOptions
  std::chrono::microseconds delay{0};

  std::string Name() const {
    return absl::StrCat(backend, ", seed ", seed, ", ", workers, " workers, ", slots, " slots, ",
                        staging, " staging buffers, errors ", errors, ", ", layers, " layers");
  }
};

class InFlight {
 public:
  explicit InFlight(const Case& c)
      : case_(c), random_(c.seed), backend_(MakeTestBackend(c.backend, c.workers, Exact())) {
    source_.set_slow(c.seed % 3 == 0);
    ExpertTier::Options tier;
    tier.device = backend_->device.get();
    tier.layouts.assign(static_cast<size_t>(c.layers), Layout());
    tier.num_experts = kExperts;
    tier.slots = SlotsForEachLayer(SizeClassesOf(tier.layouts), c.slots);
    tier.poison = true;
    tier_ = *ExpertTier::Create(tier);
    ExpertFetcher::Options options;
    options.tier = tier_.get();
    options.source = &source_;
    options.read_deadline = c.errors > 0 ? std::chrono::milliseconds(6) : std::chrono::minutes(1);
    options.retry_failed_after = std::chrono::milliseconds(3);
    options.make_reader = [&](std::function<void(bool)> on_landed) {
      FakeReaderOptions reader;
      reader.seed = c.seed * 77 + 1;
      reader.depth = c.staging;
      reader.errors = c.errors;
      reader.never = c.never;
      reader.delay = c.delay;
      reader.buffer_bytes = kPieceBytes;
      reader.read = &FakeSource::Read;
      return absl::StatusOr<std::unique_ptr<ExpertReader>>(
          std::make_unique<FakeReader>(reader, std::move(on_landed)));
    };
    fetcher_ = *ExpertFetcher::Create(options);
    works_ = std::make_unique<ExpertWork[]>(kExperts);
  }

  void Run() {
    for (int step = 0; step < case_.steps && !testing::Test::HasFailure(); ++step) {
      const int tokens = random_() % 4 == 0 ? kMaxTokens : 1 + static_cast<int>(random_() % 3);
      for (int layer = 0; layer < case_.layers; ++layer) {
        if (random_() % 8 == 0) fetcher_->CancelPrefetches();
        if (case_.resize && random_() % 6 == 0) Resize();
        if (case_.wrong_guesses) {
          Prefetch(layer);
          std::this_thread::sleep_for(std::chrono::microseconds(random_() % 100));
          fetcher_->Tend();
        }
        RunLayer(layer, tokens);
        Prefetch((layer + 1) % case_.layers);
        for (uint64_t n = random_() % 3; n > 0; --n) fetcher_->Tend();  // dense work in between
      }
    }
  }

  // All slots are being filled for nobody yet, and all but one are to go: a step gets that one at
  // once, whatever it takes.
  void TakeTheLastSlot() {
    std::vector<ExpertId> guesses;
    for (int layer = 0; layer < case_.layers; ++layer) {
      for (int e = 0; e < case_.slots; ++e) guesses.push_back({layer, kExperts - 1 - e});
    }
    fetcher_->Prefetch(guesses);
    Residency* books = tier_->residency();
    for (const ExpertId id : guesses) ASSERT_EQ(books->StateOf(id), SlotState::kFilling);
    books->Resize(0, 1);
    std::vector<float> x(kHidden, 0.5f), out(kHidden);
    const std::vector<int32_t> rows = {0};
    works_[0].rows = works_[0].out_rows = rows;
    const absl::Span<ExpertWork> works = absl::MakeSpan(works_.get(), 1);
    fetcher_->Begin(0, {0}, works);
    EXPECT_EQ(books->StateOf(ExpertId{0, 0}), SlotState::kFilling);
    const ExpertBatch batch = {WeightsIn(Layout(), nullptr), Activation::kSilu,
                               MakeView(x.data(), DType::kF32, {1, kHidden}),
                               MakeView(out.data(), DType::kF32, {1, kHidden})};
    backend_->experts->Start(batch, works);
    fetcher_->EnterRegion();
    ASSERT_TRUE(backend_->experts->Finish(fetcher_.get()).ok());
    EXPECT_TRUE(fetcher_->End().empty());
    EXPECT_EQ(books->num_slots(0), 1);
  }

  int64_t lost() const { return lost_; }
  int64_t computed() const { return computed_; }

 private:
  static BackendOptions Exact() {
    BackendOptions options;
    options.activations = Activations::kF32;
    return options;
  }

  void Resize() {
    const int all = case_.slots * case_.layers;
    tier_->residency()->Resize(0, 1 + static_cast<int>(random_() % static_cast<uint64_t>(all)));
  }

  void Prefetch(int layer) {
    std::vector<ExpertId> ids;
    for (uint64_t n = random_() % 6; n > 0; --n) {
      ids.push_back({layer, static_cast<int32_t>(random_() % kExperts)});
    }
    fetcher_->Prefetch(ids);
  }

  // The experts' rows as they are when all is in memory.
  std::vector<float> Expected(int layer, const std::vector<ExpertJob>& jobs,
                              const std::vector<int32_t>& experts, std::vector<float>* x,
                              int tokens) {
    std::vector<std::vector<char>> slots(jobs.size());
    std::vector<ExpertJob> there = jobs;
    for (size_t j = 0; j < jobs.size(); ++j) {
      slots[j].resize(static_cast<size_t>(kPieces * kPieceBytes) + 64);
      char* slot = slots[j].data() + (64 - reinterpret_cast<uintptr_t>(slots[j].data()) % 64) % 64;
      for (int32_t p = 0; p < kPieces; ++p) {
        const ReadPiece piece = source_.PieceOf({layer, experts[j]}, p);
        std::vector<char> bytes(static_cast<size_t>(kPieceBytes));
        FakeSource::Read(piece.ranges[0], bytes.data());
        EXPECT_TRUE(source_.Arrive(piece, {bytes.data(), nullptr}, slot).ok());
      }
      there[j].weights = WeightsIn(Layout(), slot);
    }
    std::vector<float> out(static_cast<size_t>(tokens * kTopK * kHidden), -1.0f);
    RunExperts(backend_.get(), MakeView(x->data(), DType::kF32, {tokens, kHidden}), there,
               Activation::kSilu, MakeView(out.data(), DType::kF32, {tokens * kTopK, kHidden}));
    return out;
  }

  void RunLayer(int layer, int tokens) {
    std::vector<float> x(static_cast<size_t>(tokens * kHidden)),
        out(static_cast<size_t>(tokens * kTopK * kHidden), -1.0f);
    for (float& v : x) v = static_cast<float>(random_() % 200) / 100.0f - 1.0f;
    std::vector<ExpertJob> all(kExperts);
    for (int32_t slot = 0; slot < tokens * kTopK;) {
      const size_t e = std::min(random_() % kExperts, random_() % kExperts);
      std::vector<int32_t>& rows = all[e].rows;
      if (!rows.empty() && rows.back() == slot / kTopK) continue;
      rows.push_back(slot / kTopK);
      all[e].out_rows.push_back(slot++);
    }
    // Those that hold a slot first, as a plan has it.
    std::vector<int32_t> experts(kExperts);
    std::iota(experts.begin(), experts.end(), 0);
    std::erase_if(experts, [&](int32_t e) { return all[static_cast<size_t>(e)].rows.empty(); });
    std::stable_partition(experts.begin(), experts.end(), [&](int32_t e) {
      return tier_->residency()->Find({layer, e}).has_value();
    });
    std::vector<ExpertJob> jobs;
    for (size_t j = 0; j < experts.size(); ++j) {
      jobs.push_back(all[static_cast<size_t>(experts[j])]);
      works_[j].rows = jobs[j].rows;
      works_[j].out_rows = jobs[j].out_rows;
    }
    const absl::Span<ExpertWork> works = absl::MakeSpan(works_.get(), experts.size());
    fetcher_->Begin(layer, experts, works);
    if (random_() % 4 == 0) std::this_thread::sleep_for(std::chrono::microseconds(random_() % 60));
    const ExpertBatch batch = {WeightsIn(Layout(), nullptr), Activation::kSilu,
                               MakeView(x.data(), DType::kF32, {tokens, kHidden}),
                               MakeView(out.data(), DType::kF32, {tokens * kTopK, kHidden})};
    backend_->experts->Start(batch, works);
    fetcher_->EnterRegion();
    ASSERT_TRUE(backend_->experts->Finish(fetcher_.get()).ok());
    const std::vector<ExpertFetcher::Failure> failures = fetcher_->End();
    std::vector<float> expected = Expected(layer, jobs, experts, &x, tokens);
    for (const ExpertFetcher::Failure& failure : failures) {
      EXPECT_EQ(failure.status.code(), absl::StatusCode::kDataLoss);
      EXPECT_NE(failure.status.message().find(
                    absl::StrCat("expert ", experts[failure.work], " of layer ", layer)),
                std::string::npos)
          << failure.status;
      for (const int32_t row : jobs[failure.work].out_rows) {
        std::fill_n(&expected[static_cast<size_t>(row) * kHidden], kHidden, 0.0f);
      }
    }
    if (case_.errors == 0) {
      EXPECT_TRUE(failures.empty()) << failures[0].status;
    }
    lost_ += static_cast<int64_t>(failures.size());
    computed_ += static_cast<int64_t>(experts.size());
    ASSERT_EQ(std::memcmp(out.data(), expected.data(), out.size() * sizeof(float)), 0);
    for (SlotId slot = 0; slot < tier_->residency()->num_slots(); ++slot) {
      ASSERT_FALSE(tier_->residency()->InUse(slot)) << "a pin or a need is left";
    }
  }

  const Case case_;
  std::mt19937_64 random_;
  std::unique_ptr<Backend> backend_;
  FakeSource source_;
  std::unique_ptr<ExpertTier> tier_;
  std::unique_ptr<ExpertFetcher> fetcher_;
  std::unique_ptr<ExpertWork[]> works_;
  int64_t lost_ = 0, computed_ = 0;
};

// Ends the program when nothing moves for a while: what stands still would otherwise say nothing.
class Watchdog {
 public:
  explicit Watchdog(const std::string* what)
      : thread_([this, what] {
          const MutexLock lock(&mutex_);
          for (int64_t seen = -1; !over_;) {
            if (!changed_.WaitFor(&mutex_, std::chrono::seconds(20)) && !over_) {
              TC_CHECK(seen != progress_) << "stands still: " << *what;
            }
            seen = progress_;
          }
        }) {}
  ~Watchdog() {
    {
      const MutexLock lock(&mutex_);
      over_ = true;
      changed_.NotifyAll();
    }
    thread_.join();
  }
  void Progress() {
    const MutexLock lock(&mutex_);
    ++progress_;
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  bool over_ ABSL_GUARDED_BY(mutex_) = false;
  int64_t progress_ ABSL_GUARDED_BY(mutex_) = 0;
  std::thread thread_;
};

void RunCases(const std::vector<Case>& cases) {
  int64_t lost = 0, computed = 0;
  std::string what;
  Watchdog watchdog(&what);
  for (const Case& c : cases) {
    SCOPED_TRACE(c.Name());
    watchdog.Progress();
    what = c.Name();
    InFlight run(c);
    run.Run();
    lost += run.lost();
    computed += run.computed();
    if (testing::Test::HasFailure()) return;
  }
  EXPECT_GT(computed, 0);
  testing::Test::RecordProperty("experts", static_cast<int>(computed));
  testing::Test::RecordProperty("lost", static_cast<int>(lost));
}

TEST(ExpertFetcher, AnyNumberOfSlotsAndWorkersInAnyOrderOfLanding) {
  std::vector<Case> cases;
  for (const int slots : {1, 2, kTopK, kExperts}) {
    for (const int workers : {1, 2, 4}) {
      for (uint64_t seed = 1; seed <= 5; ++seed) {
        Case c;
        c.seed = seed * 100 + static_cast<uint64_t>(slots * 10 + workers);
        c.slots = slots;
        c.workers = workers;
        c.staging = 1 + static_cast<int>(c.seed % 7);
        cases.push_back(c);
      }
    }
  }
  RunCases(cases);
}

TEST(ExpertFetcher, ReadsThatFailHangOrComeBackWrongEndInZerosAndNothingStandsStill) {
  std::vector<Case> cases;
  for (const int errors : {20, 100}) {
    for (uint64_t seed = 1; seed <= 20; ++seed) {
      Case c;
      c.seed = seed;
      c.errors = errors;
      c.slots = std::vector<int>{1, 2, 3, 8}[seed % 4];
      c.workers = std::vector<int>{1, 2, 4}[seed % 3];
      c.staging = 1 + static_cast<int>(seed % 8);
      c.layers = 1 + static_cast<int>(seed % 3);
      cases.push_back(c);
    }
  }
  RunCases(cases);
}

// Prefetches hold all slots, some half there, when the step comes and wants others.
TEST(ExpertFetcher, WrongGuessesGiveWayToTheStep) {
  std::vector<Case> cases;
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    Case c;
    c.seed = seed;
    c.wrong_guesses = true;
    c.slots = 1 + static_cast<int>(seed % 3);
    c.staging = 2 + static_cast<int>(seed % 4);
    c.layers = 1 + static_cast<int>(seed % 2);
    c.steps = 8;
    cases.push_back(c);
  }
  RunCases(cases);
}

// All of staging may be held by reads that hang.
TEST(ExpertFetcher, ReadsThatNeverLandHoldNothingUpForEver) {
  std::vector<Case> cases;
  for (uint64_t seed = 1; seed <= 12; ++seed) {
    Case c;
    c.seed = seed;
    c.errors = 100;
    c.never = 700;
    c.staging = 1 + static_cast<int>(seed % 2);
    c.slots = 1 + static_cast<int>(seed % 4);
    c.layers = 1;
    cases.push_back(c);
  }
  RunCases(cases);
}

TEST(ExpertFetcher, PrefetchesGiveUpSlotAfterSlotUntilTheStepHasOne) {
  Case c;
  c.layers = 2;
  c.delay = std::chrono::milliseconds(50);
  InFlight(c).TakeTheLastSlot();
}

TEST(ExpertFetcher, TheReferenceComputesTheSameWay) {
  std::vector<Case> cases;
  for (uint64_t seed = 1; seed <= 6; ++seed) {
    Case c;
    c.seed = seed;
    c.backend = "reference";
    c.slots = 1 + static_cast<int>(seed % 3);
    c.errors = seed % 2 == 0 ? 50 : 0;
    cases.push_back(c);
  }
  RunCases(cases);
}

}  // namespace
}  // namespace thermocline
