// Models split in several GGUF files.
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/formats/gguf.h"
#include "tests/support/model_bytes.h"
#include "tests/support/temporary_file.h"

namespace thermocline {
namespace {

class GgufShardsTest : public testing::Test {
 protected:
  std::string Path(int index, int count) const {
    return absl::StrFormat("%s/m-%05d-of-%05d.gguf", folder_.path(), index, count);
  }
  // Shard i of three holds tensor "t<i>" with the value i, and key "only.<i>".
  void WriteShards(const std::function<void(int, GgufBytes*)>& change = nullptr) {
    for (int i = 1; i <= 3; ++i) {
      GgufBytes gguf;
      gguf.U32(absl::StrCat("only.", i), static_cast<uint32_t>(i));
      if (change) change(i, &gguf);
      gguf.Tensor(absl::StrCat("t", i), {1}, 0, 0);
      WriteBytes(Path(i, 3), gguf.File(Raw(static_cast<float>(i))));
    }
  }
  TemporaryFile folder_{"shards"};
};

TEST_F(GgufShardsTest, AnyShardOpensThemAllWithTheFirstOnesMetadata) {
  WriteShards();
  for (int opened = 1; opened <= 3; ++opened) {
    const auto checkpoint = OpenGguf(Path(opened, 3));
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
    EXPECT_EQ((*checkpoint)->files(),
              (std::vector<std::string>{Path(1, 3), Path(2, 3), Path(3, 3)}));
    EXPECT_EQ((*checkpoint)->metadata().count("only.1"), 1u);
    EXPECT_EQ((*checkpoint)->metadata().size(), 1u);
    EXPECT_EQ((*checkpoint)->metadata_types().size(), 1u);
    EXPECT_EQ((*checkpoint)->total_bytes(), 12);
    for (int i = 1; i <= 3; ++i) {
      const TensorInfo* tensor = (*checkpoint)->Find(absl::StrCat("t", i));
      ASSERT_NE(tensor, nullptr);
      EXPECT_EQ(tensor->file_idx, i - 1);
      float value = 0;
      ASSERT_TRUE((*checkpoint)->Read(*tensor, 0, 4, &value).ok());
      EXPECT_EQ(value, static_cast<float>(i));
    }
  }
}

TEST_F(GgufShardsTest, TheFolderOpensThemToo) {
  WriteShards();
  const auto checkpoint = Checkpoint::Open(folder_.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ((*checkpoint)->tensors().size(), 3u);
}

TEST_F(GgufShardsTest, AMissingShardIsNamed) {
  WriteShards();
  std::filesystem::remove(Path(2, 3));
  const absl::Status status = OpenGguf(Path(1, 3)).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_NE(status.message().find("m-00002-of-00003.gguf"), std::string::npos) << status;
}

TEST_F(GgufShardsTest, ATensorIsInOneShardOnly) {
  WriteShards([](int i, GgufBytes* gguf) {
    if (i > 1) gguf->Tensor("same", {1}, 0, 32);
  });
  // Their data have room for it.
  for (int i = 2; i <= 3; ++i) {
    std::filesystem::resize_file(Path(i, 3), std::filesystem::file_size(Path(i, 3)) + 32);
  }
  const absl::Status status = OpenGguf(Path(1, 3)).status();
  EXPECT_NE(status.message().find("tensor \"same\" is there twice"), std::string::npos) << status;
}

TEST_F(GgufShardsTest, TheCountOfTensorsIsTheOneThatTheFirstShardSays) {
  for (uint32_t count : {2, 3, 4}) {
    WriteShards([count](int i, GgufBytes* gguf) {
      // A later shard's number is of no interest.
      gguf->U32("split.tensors.count", i == 1 ? count : 77);
    });
    const absl::Status status = OpenGguf(Path(3, 3)).status();
    EXPECT_EQ(status.ok(), count == 3) << count << ": " << status;
    if (count == 3) continue;
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_NE(status.message().find("hold 3 tensors"), std::string::npos) << status;
  }
  WriteShards([](int, GgufBytes* gguf) { gguf->String("split.tensors.count", "3"); });
  EXPECT_EQ(OpenGguf(Path(1, 3)).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(GgufShardsTest, NamesOfImpossibleShardsAreRefused) {
  WriteShards();
  for (const auto& [index, count] :
       {std::pair{0, 3}, std::pair{4, 3}, std::pair{1, 0}, std::pair{1, 10000}, std::pair{-0, 0}}) {
    const absl::Status status = OpenGguf(Path(index, count)).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << index << " of " << count;
    EXPECT_NE(status.message().find("impossible shard"), std::string::npos) << status;
  }
  // 9999 is the most that is looked for, and here not there.
  EXPECT_EQ(OpenGguf(Path(1, 9999)).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(GgufShardsTest, AnyOtherNameIsAWholeModel) {
  GgufBytes gguf;
  gguf.U32("only", 1);
  for (const char* name : {"m.gguf", "-00001-of-0003.gguf", "x-00001-of-00003.guff",
                           "x-00001-of-00003.gguf.gguf", "x00001-of-00003.gguf", "a.gguf"}) {
    const std::string path = absl::StrCat(folder_.path(), "/", name);
    WriteBytes(path, gguf.File());
    const auto checkpoint = OpenGguf(path);
    ASSERT_TRUE(checkpoint.ok()) << name << ": " << checkpoint.status();
    EXPECT_EQ((*checkpoint)->files(), std::vector<std::string>{path});
  }
  // A single shard is a model of one.
  WriteBytes(Path(1, 1), gguf.File());
  EXPECT_TRUE(OpenGguf(Path(1, 1)).ok());
}

}  // namespace
}  // namespace thermocline
