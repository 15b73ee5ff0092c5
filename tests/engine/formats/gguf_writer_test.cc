// GgufWriter byte by byte, and what becomes of files that are not finished.
#include "engine/formats/gguf_writer.h"

#include <gtest/gtest.h>

#include "tests/support/model_bytes.h"
#include "tests/support/temporary_file.h"

namespace thermocline {
namespace {

class GgufWriterTest : public testing::Test {
 protected:
  std::string Written() const { return *ReadWholeFile(file_.path(), 1 << 20); }
  bool PartialExists() const { return std::filesystem::exists(file_.path() + ".partial"); }
  TemporaryFile file_{"written.gguf"};
};

TEST_F(GgufWriterTest, MetadataAreWrittenInTheTypesThatLlamaCppReads) {
  auto writer = GgufWriter::Create(file_.path(), false);
  ASSERT_TRUE(writer.ok()) << writer.status();
  (*writer)->Add("zero", int64_t{0});
  (*writer)->Add("negative", int64_t{-1});
  (*writer)->Add("unsigned", uint64_t{7});
  (*writer)->Add("real", 0.5);
  (*writer)->Add("flag", true);
  (*writer)->Add("text", std::string("x"));
  (*writer)->Add("whole", std::vector<int64_t>{1, -2});
  (*writer)->Add("reals", std::vector<double>{0.5});
  (*writer)->Add("texts", std::vector<std::string>{"a", "bc"});
  ASSERT_TRUE((*writer)->WriteHeader().ok());
  ASSERT_TRUE((*writer)->Finish().ok());
  GgufBytes expected;
  expected.U32("zero", 0).Value("negative", 5, Raw<int32_t>(-1));
  expected.Value("unsigned", 10, Raw<uint64_t>(7)).F32("real", 0.5f).Bool("flag", true);
  expected.String("text", "x").Array("whole", 5, 2, RawList<int32_t>({1, -2}));
  expected.Array("reals", 6, 1, Raw(0.5f));
  expected.Array("texts", 8, 2, GgufBytes::Text("a") + GgufBytes::Text("bc"));
  EXPECT_EQ(Written(), expected.File());
}

TEST_F(GgufWriterTest, GivenTypesAreKept) {
  auto writer = GgufWriter::Create(file_.path(), false);
  ASSERT_TRUE(writer.ok());
  (*writer)->Add("u8", int64_t{200}, {0, 0});
  (*writer)->Add("i8", int64_t{-3}, {1, 0});
  (*writer)->Add("u16", int64_t{60000}, {2, 0});
  (*writer)->Add("i16", int64_t{-300}, {3, 0});
  (*writer)->Add("u32", int64_t{4000000000}, {4, 0});
  (*writer)->Add("i32", int64_t{-70000}, {5, 0});
  (*writer)->Add("f32", 1.5, {6, 0});
  (*writer)->Add("bool", false, {7, 0});
  (*writer)->Add("u64", uint64_t{1} << 63, {10, 0});
  (*writer)->Add("i64", int64_t{-1}, {11, 0});
  (*writer)->Add("f64", 1e300, {12, 0});
  (*writer)->Add("bools", std::vector<int64_t>{1, 0, 5}, {9, 7});
  (*writer)->Add("doubles", std::vector<double>{1e300}, {9, 12});
  ASSERT_TRUE((*writer)->WriteHeader().ok());
  ASSERT_TRUE((*writer)->Finish().ok());
  GgufBytes expected;
  expected.Value("u8", 0, Raw<uint8_t>(200)).Value("i8", 1, Raw<int8_t>(-3));
  expected.Value("u16", 2, Raw<uint16_t>(60000)).Value("i16", 3, Raw<int16_t>(-300));
  expected.U32("u32", 4000000000u).Value("i32", 5, Raw<int32_t>(-70000)).F32("f32", 1.5f);
  expected.Bool("bool", false).Value("u64", 10, Raw(uint64_t{1} << 63));
  expected.Value("i64", 11, Raw<int64_t>(-1)).Value("f64", 12, Raw(1e300));
  expected.Array("bools", 7, 3, RawList<uint8_t>({1, 0, 1})).Array("doubles", 12, 1, Raw(1e300));
  EXPECT_EQ(Written(), expected.File());
}

TEST_F(GgufWriterTest, TensorsAreAlignedAndPaddedInnermostDimensionFirst) {
  auto writer = GgufWriter::Create(file_.path(), false);
  ASSERT_TRUE(writer.ok());
  (*writer)->AddTensor("a", DType::kF32, {2, 3});    // 24 bytes
  (*writer)->AddTensor("b", DType::kF32, {8});       // 32: no padding
  (*writer)->AddTensor("c", DType::kQ8_0, {2, 32});  // 68
  (*writer)->AddTensor("d", DType::kF16, {1, 1, 2});
  ASSERT_TRUE((*writer)->WriteHeader().ok());
  const std::string a(24, 'a'), b(32, 'b'), c(68, 'c'), d(4, 'd');
  // In pieces; a tensor's end is where padding comes.
  ASSERT_TRUE((*writer)->Write(a.data(), 10).ok());
  ASSERT_TRUE((*writer)->Write(a.data(), 0).ok());
  ASSERT_TRUE((*writer)->Write(a.data(), 14).ok());
  ASSERT_TRUE((*writer)->Write(b.data(), 32).ok());
  ASSERT_TRUE((*writer)->Write(c.data(), 68).ok());
  ASSERT_TRUE((*writer)->Write(d.data(), 4).ok());
  EXPECT_FALSE(std::filesystem::exists(file_.path()));
  EXPECT_TRUE(PartialExists());
  ASSERT_TRUE((*writer)->Finish().ok());
  EXPECT_FALSE(PartialExists());
  GgufBytes expected;
  expected.Tensor("a", {3, 2}, 0, 0).Tensor("b", {8}, 0, 32).Tensor("c", {32, 2}, 8, 64);
  expected.Tensor("d", {2, 1, 1}, 1, 160);
  const std::string zeros(32, '\0');
  EXPECT_EQ(Written(), expected.File(a + zeros.substr(0, 8) + b + c + zeros.substr(0, 28) + d +
                                     zeros.substr(0, 28)));
}

TEST_F(GgufWriterTest, TheHeaderIsPaddedWhateverItsLength) {
  for (size_t length = 1; length <= 32; ++length) {
    auto writer = GgufWriter::Create(file_.path(), true);
    ASSERT_TRUE(writer.ok());
    (*writer)->Add(std::string(length, 'k'), int64_t{1});
    ASSERT_TRUE((*writer)->WriteHeader().ok());
    ASSERT_TRUE((*writer)->Finish().ok());
    EXPECT_EQ(Written(), GgufBytes().U32(std::string(length, 'k'), 1).File()) << length;
  }
}

TEST_F(GgufWriterTest, AnUnfinishedFileLeavesNothing) {
  {
    auto writer = GgufWriter::Create(file_.path(), false);
    ASSERT_TRUE(writer.ok());
    ASSERT_TRUE((*writer)->WriteHeader().ok());
    EXPECT_TRUE(PartialExists());
  }
  EXPECT_FALSE(PartialExists());
  EXPECT_FALSE(std::filesystem::exists(file_.path()));
}

TEST_F(GgufWriterTest, AFileThatIsThereIsReplacedOnlyOnRequest) {
  WriteBytes(file_.path(), "old");
  const absl::Status refused = GgufWriter::Create(file_.path(), false).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_NE(refused.message().find("--force"), std::string::npos);
  {
    auto writer = GgufWriter::Create(file_.path(), true);
    ASSERT_TRUE(writer.ok()) << writer.status();
    ASSERT_TRUE((*writer)->WriteHeader().ok());
    EXPECT_EQ(Written(), "old");  // until the new one is whole
    ASSERT_TRUE((*writer)->Finish().ok());
  }
  EXPECT_EQ(Written(), GgufBytes().File());
}

TEST_F(GgufWriterTest, AFileThatCannotBeMadeIsAnError) {
  const absl::Status status = GgufWriter::Create("/nowhere/x.gguf", false).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find("/nowhere/x.gguf.partial"), std::string::npos) << status;
  // The name is taken by a folder: the finished file cannot get it, and is removed.
  std::filesystem::create_directories(file_.path() + "/inside");
  auto writer = GgufWriter::Create(file_.path(), true);
  ASSERT_TRUE(writer.ok());
  ASSERT_TRUE((*writer)->WriteHeader().ok());
  EXPECT_EQ((*writer)->Finish().code(), absl::StatusCode::kDataLoss);
  EXPECT_FALSE(PartialExists());
}

}  // namespace
}  // namespace thermocline
