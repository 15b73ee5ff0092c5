// Experts that come from disk while a model serves: in any order the answer is the same bits, and
// what goes wrong with the disk ends the sequences that needed it, never another one, never with a
// wrong token.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <set>

#include "absl/strings/str_cat.h"
#include "kernels/cpu/isa.h"
#include "tests/support/fake_reader.h"
#include "tests/support/golden.h"
#include "tests/support/recording_sink.h"
#include "tests/support/temporary_file.h"
#include "tests/support/test_name.h"

namespace thermocline {
namespace {

namespace fs = std::filesystem;

// Reads the real files, and lands what it has read in seeded order.
ExpertStore::MakeReader SeededReader(uint64_t seed, int errors = 0) {
  return [=](const ReaderOptions& options) -> absl::StatusOr<std::unique_ptr<ExpertReader>> {
    FakeReaderOptions fake;
    fake.seed = seed;
    fake.errors = errors;
    fake.wrong_bytes = false;  // what is read first is what a checksum is made of
    fake.buffer_bytes = options.max_piece_bytes;
    fake.read = [files = options.files](const FileRange& range, char* to) {
      const ssize_t got = pread(files[static_cast<size_t>(range.file)].fd, to,
                                static_cast<size_t>(range.bytes), range.offset);
      TC_CHECK(got == range.bytes);
    };
    return std::make_unique<FakeReader>(fake, options.on_landed);
  };
}

// A reader that does something to some experts' pieces on their way.
class MeddlingReader : public ExpertReader {
 public:
  enum class What { kError, kErrorOnce, kWrongBytes, kNever };
  using ExpertKey = std::pair<int, int>;
  MeddlingReader(std::unique_ptr<ExpertReader> inner, What what, std::set<ExpertKey> experts)
      : inner_(std::move(inner)), what_(what), experts_(std::move(experts)) {}

  bool CanStart() const override { return inner_->CanStart(); }
  int num_free() const override { return inner_->num_free(); }
  void Start(const ReadPiece& piece, ReadTicket ticket) override {
    {
      const MutexLock lock(&mutex_);
      if (experts_.count({piece.expert.layer, piece.expert.expert}) > 0) meddled_[ticket] = piece;
    }
    inner_->Start(piece, ticket);
  }
  void Cancel(ReadTicket ticket) override { inner_->Cancel(ticket); }
  void Again(ReadTicket ticket) override { inner_->Again(ticket); }
  void GiveBack(ReadTicket ticket) override {
    {
      const MutexLock lock(&mutex_);
      meddled_.erase(ticket);
    }
    inner_->GiveBack(ticket);
  }
  std::optional<Landed> TakeLanded() override {
    std::optional<Landed> landed;
    while ((landed = inner_->TakeLanded()).has_value()) {
      const MutexLock lock(&mutex_);
      const auto it = meddled_.find(landed->ticket);
      if (it == meddled_.end()) return landed;
      if (what_ == What::kNever && !stopped_) {
        kept_.push_back(*landed);
        continue;
      }
      if (what_ == What::kError ||
          (what_ == What::kErrorOnce && tried_.insert(landed->ticket).second)) {
        landed->status = absl::DataLossError("reading failed: Input/output error");
      }
      if (what_ == What::kWrongBytes) const_cast<char*>(landed->bytes[0])[0] ^= 1;
      return landed;
    }
    const MutexLock lock(&mutex_);
    if (!stopped_ || kept_.empty()) return std::nullopt;
    landed = kept_.back();
    kept_.pop_back();
    return landed;
  }
  void Nudge() override { inner_->Nudge(); }
  bool Stop(double seconds) override {
    {
      const MutexLock lock(&mutex_);
      stopped_ = true;
    }
    return inner_->Stop(seconds);
  }
  int64_t bytes_read() const override { return inner_->bytes_read(); }
  int64_t staging_bytes() const override { return inner_->staging_bytes(); }
  std::string Describe() const override { return "meddling"; }

 private:
  std::unique_ptr<ExpertReader> inner_;
  const What what_;
  const std::set<ExpertKey> experts_;
  Mutex mutex_;
  std::map<ReadTicket, ReadPiece> meddled_ ABSL_GUARDED_BY(mutex_);
  std::set<ReadTicket> tried_ ABSL_GUARDED_BY(mutex_);
  std::vector<Landed> kept_ ABSL_GUARDED_BY(mutex_);
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
};
using What = MeddlingReader::What;

std::vector<std::vector<int32_t>> Prompts() {
  std::vector<std::vector<int32_t>> prompts;
  for (int i = 0; i < 6; ++i) {
    prompts.emplace_back();
    for (int t = 0; t < 2 + i; ++t) prompts.back().push_back(3 + (7 * t + 11 * i) % 45);
  }
  return prompts;
}

// All together, greedily.
std::vector<Recording> RunAll(Engine* engine, const std::vector<std::vector<int32_t>>& prompts) {
  std::vector<Recording> recordings(prompts.size());
  for (size_t i = 0; i < prompts.size(); ++i) {
    GenerateRequest request;
    request.prompt = prompts[i];
    request.sampling.temperature = 0.0f;
    request.max_tokens = 6;
    request.ignore_eos = true;
    EXPECT_TRUE(
        engine->Submit(std::move(request), std::make_unique<RecordingSink>(&recordings[i])).ok());
  }
  while (engine->Step()) {
  }
  return recordings;
}

EngineOptions Options(const std::string& path) {
  EngineOptions options;
  options.model_path = path;
  options.num_threads = 2;
  options.kv_tokens = 512;
  options.poison_evicted = true;
  return options;
}

// ---- any order, the same bits ----

struct OrderCase {
  const char* model;
  const char* isa;  // "": the best that the machine has
};
std::string NameOf(const OrderCase& c) {
  return TestName(absl::StrCat(c.model, "_", *c.isa != 0 ? c.isa : "best"));
}
void PrintTo(const OrderCase& c, std::ostream* out) { *out << NameOf(c); }

class OrderOfReadsTest : public testing::TestWithParam<OrderCase> {};

TEST_P(OrderOfReadsTest, ShowsInNoBitOfTheLogits) {
  const std::string isa = GetParam().isa, model = GetParam().model;
  if (!isa.empty() && !SelectKernels(isa).ok()) GTEST_SKIP() << "this machine lacks " << isa;
  std::string path = GoldenPath(model);
  if (model == "seedling") {
    path = SharedPath("seedling/seedling.gguf");
    if (path.empty()) GTEST_SKIP() << "../shared/seedling is not there";
  }
  using Rows = std::map<std::pair<RequestId, int64_t>, std::vector<float>>;
  int top_k = 0;
  const auto logits = [&](int slots, const ExpertStore::MakeReader& reader) {
    EngineOptions options = Options(path);
    options.backend_options.isa = isa;
    if (slots > 0) options.host_experts = slots;
    options.make_reader = reader;
    Rows rows;
    options.logits_observer = [&](RequestId id, int64_t position, absl::Span<const float> row) {
      rows[{id, position}].assign(row.begin(), row.end());
    };
    const auto engine = MakeEngine(std::move(options));
    top_k = static_cast<int>(engine->dims().num_experts_per_tok);
    RunAll(engine.get(), Prompts());
    return rows;
  };
  const Rows base = logits(0, nullptr);
  ASSERT_GE(base.size(), 36u);
  for (const int slots : std::set<int>{1, 2, top_k}) {
    for (uint64_t seed = 1; seed <= 20; ++seed) {
      EXPECT_TRUE(logits(slots, SeededReader(seed)) == base) << slots << " slots, seed " << seed;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, OrderOfReadsTest,
    testing::Values(OrderCase{"qwen3_moe", ""}, OrderCase{"qwen3_moe", "scalar"},
                    OrderCase{"qwen3_moe", "avx2"}, OrderCase{"gpt_oss-mxfp4", ""},
                    OrderCase{"quantised/qwen3_moe-q4_k_m.gguf", ""},
                    OrderCase{"quantised/qwen3_moe-q4_k_m.gguf", "avx2"},
                    OrderCase{"deepseek_v3", ""}, OrderCase{"longcat_flash", ""},
                    OrderCase{"qwen3_next", ""}, OrderCase{"seedling", ""}),
    [](const auto& info) { return NameOf(info.param); });

// ---- faults ----

class ExpertFaultsTest : public testing::Test {
 protected:
  ExpertFaultsTest() : folder_("faulty-model") {
    fs::copy(GoldenPath("qwen3_moe"), folder_.path(), fs::copy_options::recursive);
    weights_ = folder_.path() + "/model.safetensors";
    const auto engine = MakeEngine(Options(folder_.path()));
    for (Recording& recording : RunAll(engine.get(), prompts_)) {
      answers_.push_back(recording.tokens);
    }
  }
  EngineOptions FewSlots() const {
    EngineOptions options = Options(folder_.path());
    options.host_experts = 2;
    return options;
  }
  static ExpertStore::MakeReader Meddling(What what, const std::set<std::pair<int, int>>& experts) {
    return [=](const ReaderOptions& options) -> absl::StatusOr<std::unique_ptr<ExpertReader>> {
      absl::StatusOr<std::unique_ptr<ExpertReader>> inner = MakeExpertReader("threads", options);
      if (!inner.ok()) return inner.status();
      return std::make_unique<MeddlingReader>(*std::move(inner), what, experts);
    };
  }
  // Every sequence ends with its answer or with the beginning of it and DATA_LOSS. How many failed.
  int ExpectAnswersOrLoss(const std::vector<Recording>& recordings, const std::string& part) {
    int failed = 0;
    for (size_t i = 0; i < recordings.size(); ++i) {
      EXPECT_TRUE(recordings[i].done());
      const Result& result = *recordings[i].result;
      if (result.status.ok()) {
        EXPECT_EQ(recordings[i].tokens, answers_[i]) << "prompt " << i;
        continue;
      }
      ++failed;
      EXPECT_EQ(result.status.code(), absl::StatusCode::kDataLoss) << result.status;
      EXPECT_NE(result.status.message().find(part), std::string::npos) << result.status;
      std::vector<int32_t> begun = answers_[i];
      EXPECT_LE(recordings[i].tokens.size(), begun.size());
      begun.resize(recordings[i].tokens.size());
      EXPECT_EQ(recordings[i].tokens, begun) << "prompt " << i;
    }
    return failed;
  }
  static int NumFailed(Engine* engine, const std::vector<int32_t>& prompt) {
    return RunAll(engine, {prompt})[0].result->status.ok() ? 0 : 1;
  }

  TemporaryFile folder_;
  std::string weights_;
  const std::vector<std::vector<int32_t>> prompts_ = Prompts();
  std::vector<std::vector<int32_t>> answers_;
};

TEST_F(ExpertFaultsTest, OnlySequencesThatNeedAnExpertThatCannotBeReadEnd) {
  for (const What what : {What::kError, What::kNever}) {
    EngineOptions options = FewSlots();
    options.fill_behind = true;
    options.read_deadline = std::chrono::milliseconds(what == What::kNever ? 20 : 10000);
    options.make_reader = Meddling(what, {{0, 3}, {1, 9}});
    const auto engine = MakeEngine(std::move(options));
    // Alone: who needs one of them? The engine is the same, so an expert that has failed still
    // fails, and one that is there is there.
    const int failed = ExpectAnswersOrLoss(
        RunAll(engine.get(), prompts_),
        what == What::kError ? "Input/output error" : "the disk has not answered for 0.02 s");
    EXPECT_GT(failed, 0);
    EXPECT_LT(failed, static_cast<int>(prompts_.size()));
    int failed_alone = 0;
    for (const std::vector<int32_t>& prompt : prompts_) {
      failed_alone += NumFailed(engine.get(), prompt);
    }
    EXPECT_EQ(failed, failed_alone);
    EXPECT_EQ(engine->Snapshot().kv_blocks_used, 0);
    EXPECT_EQ(engine->Snapshot().expert_failure.code(), absl::StatusCode::kDataLoss);
  }
}

TEST_F(ExpertFaultsTest, AnErrorThatPassesIsNotSeen) {
  EngineOptions options = FewSlots();
  options.make_reader = Meddling(What::kErrorOnce, {{0, 3}, {1, 9}, {2, 0}});
  const auto engine = MakeEngine(std::move(options));
  EXPECT_EQ(ExpectAnswersOrLoss(RunAll(engine.get(), prompts_), ""), 0);
}

TEST_F(ExpertFaultsTest, ManyPassingAndLateReadsCostNoWrongToken) {
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    EngineOptions options = FewSlots();
    options.fill_behind = true;
    options.read_deadline = std::chrono::milliseconds(30);
    options.make_reader = SeededReader(seed, 60);
    const auto engine = MakeEngine(std::move(options));
    ExpectAnswersOrLoss(RunAll(engine.get(), prompts_), "cannot be read");
  }
}

TEST_F(ExpertFaultsTest, BytesThatHaveChangedSinceTheyWereReadFirstAreNotUsed) {
  EngineOptions options = FewSlots();
  const auto engine = MakeEngine(std::move(options));
  EXPECT_EQ(ExpectAnswersOrLoss(RunAll(engine.get(), prompts_), ""), 0);
  // Everything behind the header is written over, in place.
  const int fd = open(weights_.c_str(), O_WRONLY);
  ASSERT_GE(fd, 0);
  const int64_t size = static_cast<int64_t>(fs::file_size(weights_));
  const std::string garbage(static_cast<size_t>(size / 2), '\x3c');
  ASSERT_EQ(pwrite(fd, garbage.data(), garbage.size(), size - static_cast<int64_t>(garbage.size())),
            static_cast<ssize_t>(garbage.size()));
  close(fd);
  EXPECT_GT(ExpectAnswersOrLoss(RunAll(engine.get(), prompts_), weights_), 0);
}

TEST_F(ExpertFaultsTest, ATruncatedFileEndsWhoNeedsWhatIsGone) {
  const auto engine = MakeEngine(FewSlots());
  EXPECT_EQ(ExpectAnswersOrLoss(RunAll(engine.get(), prompts_), ""), 0);
  fs::resize_file(weights_, fs::file_size(weights_) / 2);
  EXPECT_GT(ExpectAnswersOrLoss(RunAll(engine.get(), prompts_), weights_), 0);
}

TEST_F(ExpertFaultsTest, ADeletedOrReplacedFileIsReadOn) {
  const auto engine = MakeEngine(FewSlots());
  fs::remove(weights_);
  EXPECT_EQ(ExpectAnswersOrLoss(RunAll(engine.get(), prompts_), ""), 0);
  std::ofstream(weights_) << "something else";
  EXPECT_EQ(ExpectAnswersOrLoss(RunAll(engine.get(), prompts_), ""), 0);
}

TEST_F(ExpertFaultsTest, AnExpertIsTriedAgainWhenTheFileIsWhole) {
  const auto engine = MakeEngine(FewSlots());
  const fs::path copy = folder_.path() + "/copy";
  fs::copy_file(weights_, copy);
  fs::resize_file(weights_, fs::file_size(weights_) / 2);
  EXPECT_GT(ExpectAnswersOrLoss(RunAll(engine.get(), prompts_), weights_), 0);
  // An expert that has failed fails at once for a while; what is read otherwise is right.
  fs::copy_file(copy, weights_, fs::copy_options::overwrite_existing);
  ExpectAnswersOrLoss(RunAll(engine.get(), prompts_), "cannot be read");
}

TEST_F(ExpertFaultsTest, RefusedWaysOfReadingLeaveAnother) {
  for (const char* reader : {"threads", "io_uring"}) {
    for (const bool direct : {false, true}) {
      EngineOptions options = FewSlots();
      bool refused = false;
      options.make_reader = [&](ReaderOptions o) -> absl::StatusOr<std::unique_ptr<ExpertReader>> {
        for (ReadFile& file : o.files) file.direct_fd = direct ? file.direct_fd : -1;
        auto made = MakeExpertReader(reader, o);
        refused = !made.ok();
        return refused ? MakeExpertReader("auto", o) : std::move(made);
      };
      const auto engine = MakeEngine(std::move(options));
      EXPECT_EQ(ExpectAnswersOrLoss(RunAll(engine.get(), prompts_), ""), 0) << reader << direct;
    }
  }
}

}  // namespace
}  // namespace thermocline
