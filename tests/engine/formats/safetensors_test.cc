// What a safetensors file may say of its tensors, and what is refused. Files are made by hand.
#include "engine/formats/safetensors.h"

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "tests/support/model_bytes.h"
#include "tests/support/temporary_file.h"

namespace thermocline {
namespace {

class SafetensorsTest : public testing::Test {
 protected:
  SafetensorsTest() { WriteBytes(folder_.path() + "/config.json", "{}"); }

  absl::StatusOr<std::unique_ptr<Checkpoint>> Open(const std::string& bytes) {
    WriteBytes(folder_.path() + "/model.safetensors", bytes);
    return OpenSafetensorsFolder(folder_.path());
  }
  void ExpectRefused(const std::string& bytes, const std::vector<std::string>& parts) {
    const auto checkpoint = Open(bytes);
    ASSERT_FALSE(checkpoint.ok()) << parts[0];
    EXPECT_EQ(checkpoint.status().code(), absl::StatusCode::kInvalidArgument) << parts[0];
    for (const std::string& part : parts)
      EXPECT_NE(checkpoint.status().message().find(part), std::string::npos)
          << part << ": " << checkpoint.status();
  }
  // One tensor "t" with this entry.
  void ExpectEntryRefused(const std::string& entry, const std::string& part,
                          size_t data_bytes = 16) {
    ExpectRefused(SafetensorsBytes("{\"t\":" + entry + "}", std::string(data_bytes, '\0')),
                  {"tensor \"t\"", part});
  }

  TemporaryFile folder_{"safetensors"};
};

std::string Entry(const std::string& name, const std::string& shape, int begin, int end,
                  const std::string& dtype = "F32") {
  return absl::StrCat("\"", name, "\":{\"dtype\":\"", dtype, "\",\"shape\":[", shape,
                      "],\"data_offsets\":[", begin, ",", end, "]}");
}

std::string File(const std::string& entries, size_t data_bytes) {
  return SafetensorsBytes("{" + entries + "}", std::string(data_bytes, '\0'));
}

TEST_F(SafetensorsTest, ShapesTypesAndBytesAreTheFiles) {
  const std::string data = RawList<float>({1, 2, 3, 4, 5, 6}) + RawList<uint16_t>({0x3C00, 0}) +
                           RawList<uint16_t>({0x3F80}) + RawList<float>({7});
  const auto checkpoint = Open(SafetensorsBytes(
      absl::StrCat("{\"__metadata__\":{\"format\":\"pt\"},", Entry("a", "2,3", 0, 24), ",",
                   Entry("b", "2,1", 24, 28, "F16"), ",", Entry("c", "1", 28, 30, "BF16"), ",",
                   Entry("scalar", "", 30, 34), "}"),
      data));
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ((*checkpoint)->kind(), Checkpoint::Kind::kHuggingFace);
  EXPECT_EQ((*checkpoint)->tensors().size(), 4u);
  const TensorInfo *a = (*checkpoint)->Find("a"), *b = (*checkpoint)->Find("b"),
                   *c = (*checkpoint)->Find("c"), *scalar = (*checkpoint)->Find("scalar");
  EXPECT_EQ(a->shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(a->dtype, DType::kF32);
  EXPECT_EQ(b->dtype, DType::kF16);
  EXPECT_EQ(c->dtype, DType::kBF16);
  EXPECT_EQ(scalar->shape, std::vector<int64_t>{1});
  float values[6] = {};
  ASSERT_TRUE((*checkpoint)->Read(*a, 0, 24, values).ok());
  EXPECT_EQ(values[0], 1);
  EXPECT_EQ(values[5], 6);
  ASSERT_TRUE((*checkpoint)->Read(*scalar, 0, 4, values).ok());
  EXPECT_EQ(values[0], 7);
  uint16_t half = 0;
  ASSERT_TRUE((*checkpoint)->Read(*c, 0, 2, &half).ok());
  EXPECT_EQ(half, 0x3F80);
}

TEST_F(SafetensorsTest, TheHeadersLengthFitsTheFile) {
  EXPECT_TRUE(Open(SafetensorsBytes("{}")).ok());  // nothing behind it
  for (size_t bytes : {0, 7}) ExpectRefused(std::string(bytes, '\0'), {"ends before its header"});
  ExpectRefused(Raw<uint64_t>(3) + "{}", {"a header of 3 bytes does not fit"});
  ExpectRefused(Raw<uint64_t>(uint64_t{1} << 63) + "{}", {"does not fit"});
  ExpectRefused(Raw<uint64_t>(0), {"header"});
  ExpectRefused(Raw<uint64_t>(1) + "{}", {"header"});  // cuts it short
  ExpectRefused(SafetensorsBytes("[]"), {"not a JSON object"});
  ExpectRefused(SafetensorsBytes("{\"a\":"), {"header"});
}

TEST_F(SafetensorsTest, AHeaderHasAtMost100MB) {
  // A sparse file: the claim alone decides.
  const std::string path = folder_.path() + "/model.safetensors";
  WriteBytes(path, Raw<uint64_t>((100 << 20) + 1) + "{}");
  std::filesystem::resize_file(path, (101 << 20));
  const absl::Status status = OpenSafetensorsFolder(folder_.path()).status();
  EXPECT_NE(status.message().find("a header of 104857601 bytes does not fit"), std::string::npos)
      << status;
}

TEST_F(SafetensorsTest, EntriesSayTypeShapeAndPlace) {
  const char* const no_dtype[] = {R"({"shape":[4],"data_offsets":[0,16]})",
                                  R"({"dtype":3,"shape":[4],"data_offsets":[0,16]})"};
  for (const char* entry : no_dtype) ExpectEntryRefused(entry, "no dtype");
  const char* const no_shape[] = {R"({"dtype":"F32","data_offsets":[0,16]})",
                                  R"({"dtype":"F32","shape":4,"data_offsets":[0,16]})"};
  for (const char* entry : no_shape) ExpectEntryRefused(entry, "no shape");
  const char* const no_offsets[] = {R"({"dtype":"F32","shape":[4]})",
                                    R"({"dtype":"F32","shape":[4],"data_offsets":16})",
                                    R"({"dtype":"F32","shape":[4],"data_offsets":[0]})",
                                    R"({"dtype":"F32","shape":[4],"data_offsets":[0,16,16]})"};
  for (const char* entry : no_offsets) ExpectEntryRefused(entry, "no data_offsets");
  for (const char* shape : {"-4", "4.0", "\"4\"", "281474976710657", "18446744073709551615"}) {
    ExpectEntryRefused(
        absl::StrCat(R"({"dtype":"F32","shape":[)", shape, R"(],"data_offsets":[0,16]})"),
        "a dimension");
  }
  // As large as a dimension may be: it is the shape that needs more.
  ExpectEntryRefused(R"({"dtype":"F32","shape":[281474976710656],"data_offsets":[0,16]})",
                     "needs 1125899906842624");
  for (const char* offsets : {"-1,16", "0,16.0", "0,4611686018427387905", "\"0\",16"}) {
    ExpectEntryRefused(
        absl::StrCat(R"({"dtype":"F32","shape":[4],"data_offsets":[)", offsets, "]}"),
        "a data offset");
  }
  ExpectEntryRefused(R"({"dtype":"F32","shape":[4],"data_offsets":[16,0]})", "run backwards");
  ExpectEntryRefused("[0]", "not an object");
  ExpectEntryRefused(R"({"dtype":"F32","shape":[1,1,1,1,4],"data_offsets":[0,16]})", "rank 5");
  ExpectEntryRefused(R"({"dtype":"F32","shape":[0],"data_offsets":[0,0]})", "dimension 0", 0);
}

TEST_F(SafetensorsTest, TheRangeIsAsLongAsTheShapeNeeds) {
  EXPECT_TRUE(Open(File(Entry("t", "4", 0, 16), 16)).ok());
  for (int end : {12, 15, 17, 20, 32}) {
    ExpectRefused(File(Entry("t", "4", 0, end), static_cast<size_t>(end)),
                  {"tensor \"t\"", absl::StrCat("cover ", end, " bytes"), "needs 16"});
  }
  ExpectRefused(File(Entry("t", "4", 0, 7, "F16"), 7), {"cover 7 bytes", "needs 8"});
}

TEST_F(SafetensorsTest, TheRangeLiesInsideTheFile) {
  ExpectRefused(File(Entry("t", "4", 0, 16), 15), {"tensor \"t\"", "outside the file"});
  ExpectRefused(File(Entry("t", "4", 16, 32), 16), {"tensor \"t\"", "outside the file"});
  ExpectRefused(File(Entry("t_blocks", "1,16", 0, 16, "U8"), 15), {"t_blocks", "do not fit"});
}

TEST_F(SafetensorsTest, RangesDoNotOverlap) {
  // Whole, in part, and listed against their order in the file.
  for (const std::string& entries :
       {Entry("a", "4", 0, 16) + "," + Entry("b", "4", 0, 16),
        Entry("a", "4", 0, 16) + "," + Entry("b", "4", 12, 28),
        Entry("b", "4", 12, 28) + "," + Entry("a", "4", 0, 16),
        Entry("a", "4", 0, 16) + "," + Entry("b", "2,2", 12, 28) + "," + Entry("c", "1", 28, 32)}) {
    ExpectRefused(File(entries, 32), {"\"a\"", "\"b\"", "share bytes"});
  }
  // One inside another, and a later one behind both.
  ExpectRefused(File(Entry("outer", "8", 0, 32) + "," + Entry("inner", "1", 8, 12) + "," +
                         Entry("z", "1", 12, 16),
                     32),
                {"\"outer\"", "\"inner\"", "share bytes"});
  // Bytes and scales count like any other.
  ExpectRefused(File(Entry("a", "4", 0, 16) + "," + Entry("x_blocks", "1,16", 0, 16, "U8") + "," +
                         Entry("x_scales", "1", 16, 17, "U8"),
                     17),
                {"\"a\"", "\"x_blocks\"", "share bytes"});
}

TEST_F(SafetensorsTest, RangesLeaveNoHoles) {
  ExpectRefused(File(Entry("a", "1", 0, 4) + "," + Entry("b", "1", 5, 9), 9),
                {"\"a\"", "\"b\"", "4 to 5"});
  ExpectRefused(File(Entry("a", "1", 4, 8), 8), {"\"a\"", "0 to 4"});
  ExpectRefused(File(Entry("a", "1", 0, 4), 5), {"\"a\"", "4 to 5"});
  ExpectRefused(File("", 5), {"0 to 5"});
  EXPECT_TRUE(Open(File(Entry("b", "1", 4, 8) + "," + Entry("a", "1", 0, 4), 8)).ok());
}

TEST_F(SafetensorsTest, ANameIsThereOnce) {
  // In one header, with different ranges and with the same.
  ExpectRefused(File(Entry("a", "1", 0, 4) + "," + Entry("a", "1", 4, 8), 8), {"\"a\"", "twice"});
  ExpectRefused(File(Entry("a", "1", 0, 4) + "," + Entry("a", "1", 0, 4), 4), {"\"a\"", "twice"});
  // A tensor and the one that two others make.
  ExpectRefused(File(Entry("x", "1", 0, 4) + "," + Entry("x_blocks", "1,16", 4, 20, "U8") + "," +
                         Entry("x_scales", "1", 20, 21, "U8"),
                     21),
                {"\"x\"", "twice"});
}

TEST_F(SafetensorsTest, OtherTypesAreNamedWithWhatIsSupported) {
  for (const char* dtype : {"F64", "I64", "I8", "BOOL", "F8_E5M2", "f32", "U8"}) {
    const auto checkpoint =
        Open(SafetensorsBytes("{" + Entry("t", "8", 0, 8, dtype) + "}", std::string(8, '\0')));
    EXPECT_EQ(checkpoint.status().code(), absl::StatusCode::kUnimplemented) << dtype;
    for (const std::string& part :
         {std::string("tensor \"t\""), absl::StrCat("dtype ", dtype), std::string("F8_E4M3")})
      EXPECT_NE(checkpoint.status().message().find(part), std::string::npos) << checkpoint.status();
  }
}

}  // namespace
}  // namespace thermocline
