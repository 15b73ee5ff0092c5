// Folders of safetensors: config.json, indices, and the tensors that are stored in two parts.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "engine/formats/safetensors.h"
#include "tests/support/model_bytes.h"
#include "tests/support/temporary_file.h"

namespace thermocline {
namespace {

std::string Entry(const std::string& name, const std::string& dtype, const std::string& shape,
                  int begin, int end) {
  return absl::StrCat("\"", name, "\":{\"dtype\":\"", dtype, "\",\"shape\":[", shape,
                      "],\"data_offsets\":[", begin, ",", end, "]}");
}

class SafetensorsFolderTest : public testing::Test {
 protected:
  SafetensorsFolderTest() { Write("config.json", "{}"); }
  void Write(const std::string& name, const std::string& bytes) {
    WriteBytes(folder_.path() + "/" + name, bytes);
  }
  void WriteTensors(const std::string& name, const std::string& entries, size_t data_bytes) {
    Write(name, SafetensorsBytes("{" + entries + "}", std::string(data_bytes, '\1')));
  }
  absl::StatusOr<std::unique_ptr<Checkpoint>> Open() {
    return OpenSafetensorsFolder(folder_.path());
  }
  void ExpectRefused(const std::string& part) {
    const absl::Status status = Open().status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << part;
    EXPECT_NE(status.message().find(part), std::string::npos) << status;
  }

  TemporaryFile folder_{"folder"};
};

TEST_F(SafetensorsFolderTest, TheConfigurationIsAnObject) {
  WriteTensors("model.safetensors", Entry("a", "F32", "1", 0, 4), 4);
  Write("config.json", R"({"model_type": "x"})");
  const auto checkpoint = Open();
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ((*checkpoint)->config()["model_type"], "x");
  for (const char* text : {"[]", "{", "3", ""}) {
    Write("config.json", text);
    ExpectRefused("config.json\" is not a JSON object");
  }
  std::filesystem::remove(folder_.path() + "/config.json");
  EXPECT_EQ(Open().status().code(), absl::StatusCode::kNotFound);
}

TEST_F(SafetensorsFolderTest, AnIndexNamesTheFiles) {
  WriteTensors("one.safetensors", Entry("a", "F32", "1", 0, 4), 4);
  WriteTensors("two.safetensors", Entry("b", "F32", "1", 0, 4), 4);
  WriteTensors("model.safetensors", Entry("never", "F32", "1", 0, 4), 4);
  Write("model.safetensors.index.json",
        R"({"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}})");
  const auto checkpoint = Open();
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ((*checkpoint)->files().size(), 2u);
  EXPECT_EQ((*checkpoint)->tensors().size(), 2u);
  EXPECT_EQ((*checkpoint)->Find("b")->file_idx, 1);
  std::filesystem::remove(folder_.path() + "/two.safetensors");
  EXPECT_EQ(Open().status().code(), absl::StatusCode::kNotFound);
}

TEST_F(SafetensorsFolderTest, AnIndexIsAMapToPlainFileNames) {
  WriteTensors("one.safetensors", Entry("a", "F32", "1", 0, 4), 4);
  for (const char* text : {"[]", "{}", R"({"weight_map": []})", R"({"weight_map": 3})"}) {
    Write("model.safetensors.index.json", text);
    ExpectRefused("has no weight_map");
  }
  for (const char* name : {"\"\"", "3", "\"../one.safetensors\"", "\"/one.safetensors\"",
                           "\"x/one.safetensors\"", "\"..\""}) {
    Write("model.safetensors.index.json", absl::StrCat(R"({"weight_map": {"a": )", name, "}}"));
    ExpectRefused("maps a to a name that is not a plain file");
  }
  Write("model.safetensors.index.json", "{");
  EXPECT_FALSE(Open().ok());
}

TEST_F(SafetensorsFolderTest, ATensorIsInOneFileOnly) {
  for (const char* dtype : {"F32", "U8"}) {
    const std::string name = std::string(dtype) == "F32" ? "a" : "a_blocks";
    const std::string entry = Entry(name, dtype, dtype == std::string("F32") ? "4" : "1,16", 0, 16);
    WriteTensors("one.safetensors", entry, 16);
    WriteTensors("two.safetensors", entry, 16);
    Write("model.safetensors.index.json",
          R"({"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}})");
    ExpectRefused(absl::StrCat("tensor \"", name, "\" is there twice"));
  }
}

TEST_F(SafetensorsFolderTest, BlocksAndScalesMakeOneTensor) {
  // [2, 3 blocks, 16 bytes] and [2, 3]: two rows of 96 weights.
  WriteTensors(
      "model.safetensors",
      Entry("x_blocks", "U8", "2,3,16", 0, 96) + "," + Entry("x_scales", "U8", "2,3", 96, 102),
      102);
  const auto checkpoint = Open();
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ((*checkpoint)->tensors().size(), 1u);
  const TensorInfo* x = (*checkpoint)->Find("x");
  ASSERT_NE(x, nullptr);
  EXPECT_EQ(x->dtype, DType::kMXFP4);
  EXPECT_EQ(x->shape, (std::vector<int64_t>{2, 96}));
  EXPECT_EQ(x->storage, Storage::kMxfp4Pair);
  EXPECT_EQ(x->scales_offset - x->offset, 96);
  EXPECT_EQ(x->bytes, 2 * 3 * 17);
}

TEST_F(SafetensorsFolderTest, BlocksWithoutTheirScalesAreNoTensor) {
  const std::pair<const char*, const char*> shapes[] = {
      {"2,3,16", ""},       // no scales
      {"2,3,16", "3,2"},    // of another shape
      {"2,3,16", "2,3,1"},  //
      {"2,6,8", "2,6"},     // not 16 bytes a block
      {"96", ""},           // no block's dimension
      {"16", "1"},
  };
  for (const auto& [blocks, scales] : shapes) {
    const int begin = std::string(blocks) == "16" ? 16 : 96;
    const int end = begin + (std::string(scales).empty()      ? 0
                             : std::string(scales) == "1"     ? 1
                             : std::string(blocks) == "2,6,8" ? 12
                                                              : 6);
    WriteTensors("model.safetensors",
                 Entry("x_blocks", "U8", blocks, 0, begin) +
                     (end > begin ? "," + Entry("x_scales", "U8", scales, begin, end) : ""),
                 static_cast<size_t>(end));
    ExpectRefused("tensor \"x_blocks\" is no MXFP4");
  }
}

TEST_F(SafetensorsFolderTest, ScalesAloneAreLeftAlone) {
  WriteTensors("model.safetensors", Entry("x_scales", "U8", "2,3", 0, 6), 6);
  const auto checkpoint = Open();
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_TRUE((*checkpoint)->tensors().empty());
}

TEST_F(SafetensorsFolderTest, EightBitFloatsComeWithAScaleForEachBlock) {
  struct Case {
    const char* config;
    const char* shape;   // of the codes
    const char* scales;  // of their scales; empty: none
    bool right;
  };
  const char* const small = R"({"quantization_config": {"weight_block_size": [2, 4]}})";
  const Case cases[] = {
      {small, "4,8", "2,2", true},
      {small, "5,8", "3,2", true},  // the last block is cut off
      {small, "4,9", "2,3", true},
      {small, "3,7", "2,2", true},
      {small, "5,8", "2,2", false},
      {small, "4,8", "3,2", false},
      {small, "4,8", "2,1", false},
      {small, "4,8", "4", false},
      {small, "4,8", "", false},
      {small, "32", "4", false},
      {small, "2,2,8", "2,2", false},
      // Without a size they are 128 x 128.
      {"{}", "128,128", "1,1", true},
      {"{}", "129,128", "2,1", true},
      {"{}", "128,129", "1,2", true},
      {"{}", "129,129", "1,1", false},
  };
  const auto product = [](const std::string& shape) {
    int elems = 1, number = 0;
    for (char c : shape + ",") {
      if (c == ',') {
        elems *= number;
        number = 0;
      } else {
        number = 10 * number + (c - '0');
      }
    }
    return elems;
  };
  for (const Case& c : cases) {
    Write("config.json", c.config);
    const int codes = product(c.shape);
    const int end = codes + (c.scales[0] != '\0' ? 4 * product(c.scales) : 0);
    WriteTensors("model.safetensors",
                 Entry("w", "F8_E4M3", c.shape, 0, codes) +
                     (end > codes ? "," + Entry("w_scale_inv", "F32", c.scales, codes, end) : ""),
                 static_cast<size_t>(end));
    const auto checkpoint = Open();
    EXPECT_EQ(checkpoint.ok(), c.right) << c.shape << " " << c.scales << checkpoint.status();
    if (!c.right) ExpectRefused("tensor \"w\" of F8_E4M3 needs \"w_scale_inv\"");
    if (c.right) {
      EXPECT_EQ((*checkpoint)->Find("w")->dtype, DType::kBF16);
      EXPECT_EQ((*checkpoint)->Find("w")->bytes, 2 * codes);
    }
  }
}

TEST_F(SafetensorsFolderTest, BlockSizesAreTwoWholeNumbersUpToAMebi) {
  WriteTensors("model.safetensors",
               Entry("w", "F8_E4M3", "1,1", 0, 1) + "," + Entry("w_scale_inv", "F32", "1,1", 1, 5),
               5);
  for (const char* size : {"[1, 1]", "[1048576, 1048576]"}) {
    Write("config.json",
          absl::StrCat(R"({"quantization_config": {"weight_block_size": )", size, "}}"));
    EXPECT_TRUE(Open().ok()) << size << Open().status();
  }
  for (const char* size : {"128", "[128]", "[128, 128, 128]", "[0, 128]", "[128, 0]", "[128, -1]",
                           "[128, 1048577]", "[128.0, 128]", "\"128\""}) {
    Write("config.json",
          absl::StrCat(R"({"quantization_config": {"weight_block_size": )", size, "}}"));
    ExpectRefused("weight_block_size is not two whole numbers");
  }
}

TEST_F(SafetensorsFolderTest, PlainTensorsAreReadAsNumbers) {
  const std::string data = RawList<float>({1.5f, -2}) + RawList<int64_t>({-3}) + "\x05\x06";
  const std::string path = folder_.path() + "/plain.safetensors";
  const std::string entries = "{" + Entry("f", "F32", "2", 0, 8) + "," +
                              Entry("i", "I64", "1", 8, 16) + "," +
                              Entry("u", "U8", "2,1", 16, 18) + "}";
  WriteBytes(path, SafetensorsBytes(entries, data));
  auto tensors = ReadPlainTensors(path);
  ASSERT_TRUE(tensors.ok()) << tensors.status();
  EXPECT_EQ((*tensors)["f"].f32, (std::vector<float>{1.5f, -2}));
  EXPECT_EQ((*tensors)["i"].i64, std::vector<int64_t>{-3});
  EXPECT_EQ((*tensors)["u"].u8, (std::vector<uint8_t>{5, 6}));
  EXPECT_EQ((*tensors)["u"].shape, (std::vector<int64_t>{2, 1}));

  WriteBytes(path, SafetensorsBytes(entries, data.substr(1)));
  EXPECT_FALSE(ReadPlainTensors(path).ok());
  // A range that is no whole number of elements must not be written past the numbers' memory.
  WriteBytes(path, SafetensorsBytes("{" + Entry("f", "F32", "2", 0, 7) + "}", "1234567"));
  EXPECT_EQ(ReadPlainTensors(path).status().code(), absl::StatusCode::kInvalidArgument);
  WriteBytes(path, SafetensorsBytes("{" + Entry("f", "F64", "1", 0, 8) + "}", "12345678"));
  EXPECT_EQ(ReadPlainTensors(path).status().code(), absl::StatusCode::kUnimplemented);
}

}  // namespace
}  // namespace thermocline
