// The head of a GGUF file: what it begins with, and every kind of metadata.
#include <gtest/gtest.h>

#include <cstring>
#include <limits>

#include "absl/strings/str_cat.h"
#include "engine/formats/gguf.h"
#include "tests/support/model_bytes.h"
#include "tests/support/temporary_file.h"

namespace thermocline {
namespace {

class GgufMetadataTest : public testing::Test {
 protected:
  absl::StatusOr<std::unique_ptr<Checkpoint>> Open(const std::string& bytes) {
    WriteBytes(file_.path(), bytes);
    return OpenGguf(file_.path());
  }
  void ExpectRefused(const std::string& bytes, const std::string& part) {
    const auto checkpoint = Open(bytes);
    ASSERT_FALSE(checkpoint.ok()) << part;
    EXPECT_EQ(checkpoint.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_NE(checkpoint.status().message().find(part), std::string::npos) << checkpoint.status();
  }

  TemporaryFile file_{"metadata.gguf"};
};

TEST_F(GgufMetadataTest, MagicAndVersions2And3) {
  for (uint32_t version : {0, 1, 2, 3, 4}) {
    GgufBytes gguf;
    gguf.version = version;
    gguf.U32("a", 7);
    if (version == 2 || version == 3) {
      const auto checkpoint = Open(gguf.File());
      ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
      EXPECT_EQ(std::get<int64_t>((*checkpoint)->metadata().at("a")), 7);
    } else {
      ExpectRefused(gguf.File(), absl::StrCat("GGUF version ", version));
    }
  }
  GgufBytes gguf;
  gguf.magic = "GGUE";
  ExpectRefused(gguf.File(), "no GGUF magic");
  ExpectRefused("", "the file ends");
}

TEST_F(GgufMetadataTest, NumbersKeepTheirValueAndTheirType) {
  struct Case {
    uint32_t type;
    std::string raw;
    MetadataValue value;
  };
  const Case cases[] = {
      {0, Raw<uint8_t>(255), int64_t{255}},
      {1, Raw<int8_t>(-128), int64_t{-128}},
      {2, Raw<uint16_t>(65535), int64_t{65535}},
      {3, Raw<int16_t>(-32768), int64_t{-32768}},
      {4, Raw<uint32_t>(4294967295u), int64_t{4294967295}},
      {5, Raw<int32_t>(-2147483647 - 1), int64_t{-2147483648}},
      {6, Raw(0.25f), 0.25},
      {7, Raw<uint8_t>(0), false},
      {7, Raw<uint8_t>(1), true},
      {8, GgufBytes::Text("\xC3\xA4"), std::string("\xC3\xA4")},
      {10, Raw(std::numeric_limits<uint64_t>::max()), std::numeric_limits<uint64_t>::max()},
      {11, Raw(std::numeric_limits<int64_t>::min()), std::numeric_limits<int64_t>::min()},
      {12, Raw(1e300), 1e300}};
  for (const Case& c : cases) {
    GgufBytes gguf;
    // Another value behind it is found only if exactly the value's bytes were read.
    gguf.Value("key", c.type, c.raw).U32("next", 99);
    const auto checkpoint = Open(gguf.File());
    ASSERT_TRUE(checkpoint.ok()) << c.type << ": " << checkpoint.status();
    EXPECT_EQ((*checkpoint)->metadata().at("key"), c.value) << c.type;
    EXPECT_EQ((*checkpoint)->metadata_types().at("key").type, c.type);
    EXPECT_EQ(std::get<int64_t>((*checkpoint)->metadata().at("next")), 99) << c.type;
  }
}

TEST_F(GgufMetadataTest, ArraysOfEveryKindKeepTheirElementsAndTheirType) {
  struct Case {
    uint32_t type;
    std::string raw;  // of two elements
    MetadataValue value;
  };
  using Ints = std::vector<int64_t>;
  using Reals = std::vector<double>;
  const Case cases[] = {
      {0, RawList<uint8_t>({1, 255}), Ints{1, 255}},
      {1, RawList<int8_t>({1, -1}), Ints{1, -1}},
      {2, RawList<uint16_t>({1, 65535}), Ints{1, 65535}},
      {3, RawList<int16_t>({1, -1}), Ints{1, -1}},
      {4, RawList<uint32_t>({1, 4294967295u}), Ints{1, 4294967295}},
      {5, RawList<int32_t>({1, -1}), Ints{1, -1}},
      {6, RawList<float>({0.5f, -2.0f}), Reals{0.5, -2.0}},
      {7, RawList<uint8_t>({1, 0}), Ints{1, 0}},
      {8, GgufBytes::Text("x") + GgufBytes::Text(""), std::vector<std::string>{"x", ""}},
      {10, RawList<uint64_t>({1, 2}), Ints{1, 2}},
      {11, RawList<int64_t>({1, -1}), Ints{1, -1}},
      {12, RawList<double>({1e300, 0.0}), Reals{1e300, 0.0}}};
  for (const Case& c : cases) {
    GgufBytes gguf;
    gguf.Array("list", c.type, 2, c.raw).Array("empty", c.type, 0, "").U32("next", 99);
    const auto checkpoint = Open(gguf.File());
    ASSERT_TRUE(checkpoint.ok()) << c.type << ": " << checkpoint.status();
    EXPECT_EQ((*checkpoint)->metadata().at("list"), c.value) << c.type;
    EXPECT_EQ((*checkpoint)->metadata_types().at("list").type, 9u);
    EXPECT_EQ((*checkpoint)->metadata_types().at("list").elem_type, c.type);
    EXPECT_EQ(std::get<int64_t>((*checkpoint)->metadata().at("next")), 99) << c.type;
  }
}

TEST_F(GgufMetadataTest, ValuesOfNoKnownKindAreRefused) {
  GgufBytes flag, kind, nested, elements;
  ExpectRefused(flag.Value("k", 7, Raw<uint8_t>(2)).File(), "a boolean of value 2");
  ExpectRefused(kind.Value("k", 13, Raw<uint64_t>(0)).File(), "unknown metadata type 13");
  ExpectRefused(nested.Array("k", 9, 0, "").File(), "arrays of type 9");
  ExpectRefused(elements.Array("k", 13, 0, "").File(), "arrays of type 13");
}

TEST_F(GgufMetadataTest, AKeyIsThereOnce) {
  GgufBytes gguf;
  ExpectRefused(gguf.U32("same", 1).U32("same", 1).File(), "metadata key \"same\" is there twice");
}

TEST_F(GgufMetadataTest, AKeyHasAtMost64KiB) {
  GgufBytes longest, longer;
  const auto checkpoint = Open(longest.U32(std::string(65536, 'k'), 1).File());
  EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
  ExpectRefused(longer.U32(std::string(65537, 'k'), 1).File(), "a string of 65537 bytes");
  GgufBytes name;
  name.Tensor(std::string(65537, 'n'), {1}, 0, 0);
  ExpectRefused(name.File("1234"), "a string of 65537 bytes");
}

// What is claimed must fit what is left of the file: one element more is refused before it is
// read, or memory made for it.
TEST_F(GgufMetadataTest, ClaimedLengthsFitTheFile) {
  const auto head = [](uint64_t num_tensors, uint64_t num_values) {
    return "GGUF" + Raw<uint32_t>(3) + Raw(num_tensors) + Raw(num_values);
  };
  const std::string key = GgufBytes::Text("k");
  const uint64_t huge = uint64_t{1} << 60;
  const auto list = [&](uint32_t type, uint64_t count) {
    return head(0, 1) + key + Raw<uint32_t>(9) + Raw(type) + Raw(count);
  };
  ExpectRefused(list(4, 3) + RawList<uint32_t>({1, 2}), "an array of 3 elements does not fit");
  ExpectRefused(list(4, huge), "does not fit");
  ExpectRefused(list(4, uint64_t{1} << 62), "does not fit");  // times 4 it is 0
  EXPECT_TRUE(Open(list(4, 2) + RawList<uint32_t>({1, 2})).ok());
  ExpectRefused(list(8, 3) + GgufBytes::Text("") + GgufBytes::Text(""),
                "an array of 3 strings does not fit");
  EXPECT_TRUE(Open(list(8, 2) + GgufBytes::Text("") + GgufBytes::Text("")).ok());
  const auto text = [&](uint64_t length) {
    return head(0, 1) + key + Raw<uint32_t>(8) + Raw(length);
  };
  ExpectRefused(text(4) + "abc", "a string of 4 bytes does not fit");
  ExpectRefused(text(huge) + "abc", "does not fit");
  EXPECT_TRUE(Open(text(3) + "abc").ok());

  // An entry takes 12 bytes at least: an empty key and a type.
  ExpectRefused(head(0, 2) + std::string(23, '\0'), "2 metadata entries do not fit");
  ExpectRefused(head(0, 2) + std::string(24, '\0'), "the file ends");
  ExpectRefused(head((1 << 20) + 1, 0), "1048577 tensors");
  ExpectRefused(head(1 << 20, 0), "the file ends");
  ExpectRefused(head(1, 0), "the file ends, 8 bytes expected");
}

TEST_F(GgufMetadataTest, EveryTruncationIsRefusedAndSaysWhere) {
  GgufBytes gguf;
  gguf.alignment = 1;
  gguf.U32("general.alignment", 1).String("s", "text").Array("l", 5, 2, RawList<int32_t>({1, 2}));
  gguf.Tensor("t", {1}, 0, 0);
  const std::string whole = gguf.File("1234");
  ASSERT_TRUE(Open(whole).ok());
  for (size_t length = 0; length < whole.size(); ++length) {
    ExpectRefused(whole.substr(0, length), length + 4 < whole.size() ? "at byte" : "tensor \"t\"");
  }
}

// The window through which the head is read is 1 MiB: values that begin before its end, at it and
// behind it, and one that is larger.
TEST_F(GgufMetadataTest, ValuesAcrossTheWindowsEndAreWhole) {
  constexpr size_t kWindow = 1 << 20;
  for (size_t filler : {kWindow - 80, kWindow - 61, kWindow - 57, kWindow - 48, 3 * kWindow + 5}) {
    GgufBytes gguf;
    std::string text(filler, 'x');
    text.back() = 'y';
    gguf.String("filler", text).Value("n", 10, Raw<uint64_t>(0x0102030405060708)).U32("m", 7);
    const auto checkpoint = Open(gguf.File());
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
    const Metadata& metadata = (*checkpoint)->metadata();
    EXPECT_EQ(std::get<std::string>(metadata.at("filler")), text);
    EXPECT_EQ(std::get<uint64_t>(metadata.at("n")), 0x0102030405060708u);
    EXPECT_EQ(std::get<int64_t>(metadata.at("m")), 7);
  }
}

}  // namespace
}  // namespace thermocline
