// Both ways of reading, on real files: any offset and length, one range or two, what O_DIRECT adds,
// and files that end too early.
#include "cache/expert_reader.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <random>
#include <set>

#include "cache/bell.h"
#include "tests/support/model_bytes.h"
#include "tests/support/temporary_file.h"

namespace thermocline {
namespace {

class ExpertReaderTest : public testing::TestWithParam<std::tuple<const char*, bool>> {
 protected:
  static constexpr int64_t kFileBytes = 1'000'003;  // no whole blocks

  void SetUp() override {
    std::mt19937 random(3);
    contents_.resize(kFileBytes);
    for (char& c : contents_) c = static_cast<char>(random());
    WriteBytes(file_.path(), contents_);
    read_file_.path = file_.path();
    read_file_.fd = open(file_.path().c_str(), O_RDONLY | O_CLOEXEC);
    if (std::get<1>(GetParam())) {
      read_file_.direct_fd = open(file_.path().c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC);
      read_file_.alignment = 4096;
      if (read_file_.direct_fd < 0) GTEST_SKIP() << "this file system refuses O_DIRECT";
    }
    ReaderOptions options;
    options.files = {read_file_};
    options.depth = 3;
    options.max_piece_bytes = 300'000;
    options.on_landed = [this](bool landed) {
      landed ? ++num_landed_ : ++num_nudged_;
      bell_.Raise();
    };
    absl::StatusOr<std::unique_ptr<ExpertReader>> reader =
        MakeExpertReader(std::get<0>(GetParam()), options);
    if (absl::IsUnavailable(reader.status())) GTEST_SKIP() << reader.status().message();
    ASSERT_TRUE(reader.ok()) << reader.status();
    reader_ = *std::move(reader);
  }
  void TearDown() override {
    if (reader_ != nullptr) {
      EXPECT_TRUE(reader_->Stop(10.0));
    }
    reader_.reset();
    close(read_file_.fd);
    if (read_file_.direct_fd >= 0) close(read_file_.direct_fd);
  }

  Landed Next() {
    while (true) {
      const uint32_t seen = bell_.Epoch();
      if (std::optional<Landed> landed = reader_->TakeLanded()) return *landed;
      bell_.Sleep(seen, std::chrono::seconds(20));
    }
  }
  static ReadPiece Piece(std::initializer_list<FileRange> ranges) {
    ReadPiece piece;
    piece.num_ranges = static_cast<int>(ranges.size());
    std::copy(ranges.begin(), ranges.end(), piece.ranges.begin());
    return piece;
  }
  void ExpectRange(const FileRange& range, const char* bytes) {
    EXPECT_EQ(
        std::string(bytes, static_cast<size_t>(range.bytes)),
        contents_.substr(static_cast<size_t>(range.offset), static_cast<size_t>(range.bytes)));
  }

  TemporaryFile file_{"experts.bin"};
  std::string contents_;
  ReadFile read_file_;
  Bell bell_;
  std::atomic<int> num_landed_{0}, num_nudged_{0};
  std::unique_ptr<ExpertReader> reader_;
};

TEST_P(ExpertReaderTest, BringsAnyRange) {
  const FileRange ranges[] = {{0, 0, 1},
                              {0, 1, 4096},
                              {0, 4095, 2},
                              {0, 4096, 4096},
                              {0, 12345, 299'999},
                              {0, kFileBytes - 1, 1},
                              {0, kFileBytes - 5000, 5000}};
  ReadTicket ticket = 0;
  for (const FileRange& range : ranges) {
    reader_->Start(Piece({range}), ++ticket);
    const Landed landed = Next();
    ASSERT_TRUE(landed.status.ok()) << landed.status;
    EXPECT_EQ(landed.ticket, ticket);
    ExpectRange(range, landed.bytes[0]);
    reader_->GiveBack(ticket);
  }
  EXPECT_GE(reader_->bytes_read(), 1 + 4096 + 2 + 4096 + 299'999 + 1 + 5000);
}

TEST_P(ExpertReaderTest, TwoRangesOfAPieceLandTogether) {
  const FileRange codes = {0, 77, 100'001}, scales = {0, 500'000, 33};
  reader_->Start(Piece({codes, scales}), 9);
  const Landed landed = Next();
  ASSERT_TRUE(landed.status.ok()) << landed.status;
  ExpectRange(codes, landed.bytes[0]);
  ExpectRange(scales, landed.bytes[1]);
  reader_->GiveBack(9);
}

TEST_P(ExpertReaderTest, AStagingBufferIsTakenFromStartToGiveBack) {
  EXPECT_EQ(reader_->num_free(), 3);
  for (ReadTicket t = 1; t <= 3; ++t) reader_->Start(Piece({{0, 1000 * int64_t(t), 10}}), t);
  EXPECT_FALSE(reader_->CanStart());
  std::set<ReadTicket> tickets;
  for (int i = 0; i < 3; ++i) tickets.insert(Next().ticket);
  EXPECT_EQ(tickets, (std::set<ReadTicket>{1, 2, 3}));
  EXPECT_FALSE(reader_->CanStart());
  reader_->Again(2);  // into the same buffer
  const Landed again = Next();
  EXPECT_EQ(again.ticket, 2u);
  ExpectRange({0, 2000, 10}, again.bytes[0]);
  reader_->GiveBack(1);
  EXPECT_TRUE(reader_->CanStart());
  EXPECT_EQ(reader_->num_free(), 1);
  reader_->GiveBack(2);
  reader_->GiveBack(3);
}

TEST_P(ExpertReaderTest, AFileThatEndsTooEarlyIsAnErrorThatNamesIt) {
  ASSERT_EQ(truncate(file_.path().c_str(), 5000), 0);
  reader_->Start(Piece({{0, 4000, 2000}}), 1);
  const Landed landed = Next();
  EXPECT_EQ(landed.status.code(), absl::StatusCode::kDataLoss);
  EXPECT_NE(landed.status.message().find("reading 2000 bytes at 4000 of \"" + file_.path() +
                                         "\" failed: the file is shorter"),
            std::string::npos)
      << landed.status;
  reader_->Start(Piece({{0, 0, 5000}}), 2);  // what is left can be read
  const Landed rest = Next();
  ASSERT_TRUE(rest.status.ok()) << rest.status;
  ExpectRange({0, 0, 5000}, rest.bytes[0]);
  reader_->GiveBack(1);
  reader_->GiveBack(2);
}

TEST_P(ExpertReaderTest, ADeletedFileIsStillRead) {
  ASSERT_EQ(unlink(file_.path().c_str()), 0);
  reader_->Start(Piece({{0, 9, 9}}), 1);
  const Landed landed = Next();
  ASSERT_TRUE(landed.status.ok()) << landed.status;
  ExpectRange({0, 9, 9}, landed.bytes[0]);
  reader_->GiveBack(1);
}

TEST_P(ExpertReaderTest, ANudgeCallsBackWithoutALanding) {
  const uint32_t seen = bell_.Epoch();
  reader_->Nudge();
  bell_.Sleep(seen, std::chrono::seconds(20));
  EXPECT_EQ(num_nudged_.load(), 1);
  EXPECT_EQ(num_landed_.load(), 0);
}

TEST_P(ExpertReaderTest, StopWaitsForWhatHasBegun) {
  for (ReadTicket t = 1; t <= 3; ++t) reader_->Start(Piece({{0, 0, 300'000}}), t);
  reader_->Cancel(2);
  EXPECT_TRUE(reader_->Stop(20.0));
  int landed = 0;
  while (const std::optional<Landed> one = reader_->TakeLanded()) {
    ++landed;
    reader_->GiveBack(one->ticket);
  }
  EXPECT_EQ(landed, 3);
}

INSTANTIATE_TEST_SUITE_P(All, ExpertReaderTest,
                         testing::Combine(testing::Values("threads", "io_uring"), testing::Bool()),
                         [](const auto& info) {
                           return std::string(std::get<0>(info.param)) +
                                  (std::get<1>(info.param) ? "_direct" : "_buffered");
                         });

TEST(MakeExpertReader, NamesTheKnownOnes) {
  const auto reader = MakeExpertReader("mmap", {});
  EXPECT_EQ(reader.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(reader.status().message().find("auto, io_uring, threads"), std::string::npos);
}

}  // namespace
}  // namespace thermocline
