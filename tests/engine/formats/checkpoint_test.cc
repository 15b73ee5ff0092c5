// Checkpoint: which files a path stands for, and bounds.
#include "engine/formats/checkpoint.h"

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "tests/support/model_bytes.h"
#include "tests/support/temporary_file.h"

namespace thermocline {
namespace {

std::string SmallGguf() {
  GgufBytes gguf;
  return gguf.Tensor("t", {2}, 0, 0).File(RawList<float>({1, 2}));
}

class CheckpointTest : public testing::Test {
 protected:
  void Write(const std::string& name, const std::string& bytes) {
    WriteBytes(folder_.path() + "/" + name, bytes);
  }
  absl::Status OpenFolder() { return Checkpoint::Open(folder_.path()).status(); }
  TemporaryFile folder_{"checkpoint"};
};

TEST_F(CheckpointTest, AFolderHoldsAConfigurationOrOneGgufModel) {
  std::filesystem::create_directories(folder_.path());
  const auto expect_refused = [&] {
    EXPECT_EQ(OpenFolder().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_NE(OpenFolder().message().find("neither config.json nor exactly one GGUF"),
              std::string::npos)
        << OpenFolder();
  };
  expect_refused();
  Write("notes.txt", SmallGguf());
  expect_refused();
  Write("one.gguf", SmallGguf());
  EXPECT_TRUE(OpenFolder().ok()) << OpenFolder();
  Write("two.gguf", SmallGguf());
  expect_refused();
  // config.json goes before what else is there.
  Write("config.json", "{}");
  Write("model.safetensors", SafetensorsBytes("{}"));
  const auto checkpoint = Checkpoint::Open(folder_.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ((*checkpoint)->kind(), Checkpoint::Kind::kHuggingFace);
}

TEST_F(CheckpointTest, AFileIsAGguf) {
  Write("model.bin", SmallGguf());
  const absl::Status status = Checkpoint::Open(folder_.path() + "/model.bin").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find("neither a .gguf file nor a folder"), std::string::npos);
  const std::string missing = folder_.path() + "/missing.gguf";
  EXPECT_EQ(Checkpoint::Open(missing).status().code(), absl::StatusCode::kNotFound);
  EXPECT_NE(Checkpoint::Open(missing).status().message().find(missing), std::string::npos);
}

TEST_F(CheckpointTest, ReadsInsideATensorOnly) {
  Write("m.gguf", SmallGguf());
  const auto checkpoint = Checkpoint::Open(folder_.path() + "/m.gguf");
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const TensorInfo& t = *(*checkpoint)->Find("t");
  EXPECT_EQ((*checkpoint)->total_bytes(), 8);
  EXPECT_EQ((*checkpoint)->Find("u"), nullptr);
  char bytes[16] = {};
  for (const auto& [offset, count, right] :
       std::initializer_list<std::tuple<int64_t, int64_t, bool>>{{0, 8, true},
                                                                 {4, 4, true},
                                                                 {8, 0, true},
                                                                 {0, 9, false},
                                                                 {4, 5, false},
                                                                 {9, 0, false},
                                                                 {-1, 1, false},
                                                                 {0, -1, false}}) {
    const absl::Status status = (*checkpoint)->Read(t, offset, count, bytes);
    EXPECT_EQ(status.ok(), right) << offset << " " << count;
    if (!right) {
      EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
    }
  }
  float second = 0;
  ASSERT_TRUE((*checkpoint)->Read(t, 4, 4, &second).ok());
  EXPECT_EQ(second, 2.0f);
}

TEST_F(CheckpointTest, AFileThatBecameShorterIsDataLoss) {
  const std::string path = folder_.path() + "/m.gguf";
  Write("m.gguf", SmallGguf());
  const auto checkpoint = Checkpoint::Open(path);
  ASSERT_TRUE(checkpoint.ok());
  std::filesystem::resize_file(path, std::filesystem::file_size(path) - 1);
  char bytes[8];
  const absl::Status status = (*checkpoint)->Read(*(*checkpoint)->Find("t"), 0, 8, bytes);
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_NE(status.message().find("m.gguf"), std::string::npos) << status;
  EXPECT_NE(status.message().find("shorter"), std::string::npos) << status;
}

TEST_F(CheckpointTest, OnlyRegularFilesAreOpened) {
  std::filesystem::create_directories(folder_.path() + "/x.gguf.d");
  Checkpoint checkpoint(Checkpoint::Kind::kGguf, "x");
  EXPECT_EQ(checkpoint.AddFile(folder_.path()).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(checkpoint.AddFile("/nowhere/x").status().code(), absl::StatusCode::kNotFound);
  Write("abc", "abc");
  const auto file = checkpoint.AddFile(folder_.path() + "/abc");
  ASSERT_TRUE(file.ok());
  EXPECT_EQ(file->first, 0);
  EXPECT_EQ(file->second, 3);
  EXPECT_EQ(checkpoint.AddFile(folder_.path() + "/abc")->first, 1);
}

size_t NumOpenFiles() {
  const std::filesystem::directory_iterator files("/proc/self/fd");
  return static_cast<size_t>(std::distance(begin(files), end(files)));
}

TEST_F(CheckpointTest, FilesAreClosedAgain) {
  Write("m.gguf", SmallGguf());
  const size_t before = NumOpenFiles();
  EXPECT_TRUE(Checkpoint::Open(folder_.path() + "/m.gguf").ok());
  EXPECT_TRUE(ReadWholeFile(folder_.path() + "/m.gguf", 1 << 20).ok());
  EXPECT_FALSE(ReadWholeFile(folder_.path() + "/m.gguf", 1).ok());
  EXPECT_FALSE(Checkpoint(Checkpoint::Kind::kGguf, "x").AddFile(folder_.path()).ok());
  EXPECT_EQ(NumOpenFiles(), before);
}

// However the file system orders them.
TEST_F(CheckpointTest, AFolderOfManyShardsIsOneModel) {
  for (int i = 24; i >= 1; --i) {
    GgufBytes gguf;
    gguf.Tensor(absl::StrCat("t", i), {1}, 0, 0);
    Write(absl::StrFormat("m-%05d-of-00024.gguf", i), gguf.File("1234"));
  }
  const auto checkpoint = Checkpoint::Open(folder_.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ((*checkpoint)->tensors().size(), 24u);
}

TEST_F(CheckpointTest, ATensorLiesInsideItsFile) {
  Write("f", "");
  struct Case {
    int64_t offset, file_bytes;
    bool right;
  };
  // 8 bytes.
  for (const Case& c :
       {Case{0, 8, true}, Case{92, 100, true}, Case{0, 7, false}, Case{93, 100, false},
        Case{100, 100, false}, Case{101, 100, false}, Case{-1, 100, false}}) {
    Checkpoint checkpoint(Checkpoint::Kind::kGguf, "x");
    ASSERT_TRUE(checkpoint.AddFile(folder_.path() + "/f").ok());
    TensorInfo tensor;
    tensor.name = "t";
    tensor.shape = {2};
    tensor.offset = c.offset;
    EXPECT_EQ(checkpoint.AddTensor(tensor, c.file_bytes).ok(), c.right)
        << c.offset << " of " << c.file_bytes;
  }
}

TEST(CheckedTensorBytes, WholeBlocksOfAtMostFourDimensionsWithoutOverflow) {
  constexpr int64_t kBig = int64_t{1} << 61;
  struct Case {
    DType dtype;
    std::vector<int64_t> shape;
    int64_t bytes;  // -1: refused
  };
  const Case cases[] = {{DType::kF32, {1}, 4},
                        {DType::kF32, {2, 3, 4, 5}, 480},
                        {DType::kF32, {1, 1, 1, 1, 1}, -1},
                        {DType::kF32, {}, -1},
                        {DType::kF32, {0}, -1},
                        {DType::kF32, {-1}, -1},
                        {DType::kF32, {2, 0}, -1},
                        {DType::kF32, {kBig - 1}, 4 * (kBig - 1)},
                        {DType::kF32, {kBig}, -1},  // 2^63 bytes
                        {DType::kF16, {2, kBig - 1}, 4 * (kBig - 1)},
                        {DType::kF16, {4, kBig}, -1},  // 2^63 elements
                        {DType::kF32, {int64_t{1} << 32, int64_t{1} << 32}, -1},
                        {DType::kQ8_0, {3, 32}, 3 * 34},
                        {DType::kQ8_0, {3, 64}, 3 * 68},
                        {DType::kQ8_0, {64, 3}, -1},
                        {DType::kQ8_0, {3, 33}, -1},
                        {DType::kQ8_0, {3, 16}, -1},
                        {DType::kQ4_K, {2, 256}, 2 * 144},
                        {DType::kQ4_K, {2, 128}, -1}};
  for (const Case& c : cases) {
    const auto bytes = CheckedTensorBytes(c.dtype, c.shape);
    EXPECT_EQ(bytes.ok() ? *bytes : -1, c.bytes) << c.shape.size() << ": " << bytes.status();
    if (!bytes.ok()) {
      EXPECT_EQ(bytes.status().code(), absl::StatusCode::kInvalidArgument);
    }
  }
}

TEST_F(CheckpointTest, SmallFilesAreReadWholeUpToTheLimit) {
  // Longer than one read of 64 KiB.
  std::string contents(150000, 'a');
  contents[70000] = 'b';
  contents.back() = 'z';
  Write("f", contents);
  const std::string path = folder_.path() + "/f";
  EXPECT_EQ(*ReadWholeFile(path, 150000), contents);
  EXPECT_EQ(ReadWholeFile(path, 149999).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ReadWholeFile(path + "x", 10).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(ReadWholeFile(folder_.path(), 10).status().code(), absl::StatusCode::kDataLoss);
  Write("empty", "");
  EXPECT_EQ(*ReadWholeFile(folder_.path() + "/empty", 0), "");
}

}  // namespace
}  // namespace thermocline
