// Runs every kept input of tests/data/corpus through its target: what a fuzzer once found stays
// found.
#include <gtest/gtest.h>

#include <filesystem>
#include <ostream>

#include "absl/strings/str_cat.h"
#include "engine/formats/checkpoint.h"
#include "tests/fuzz/targets.h"

namespace thermocline {

// Where googletest looks for it: beside the type.
void PrintTo(const FuzzTarget& target, std::ostream* out) { *out << target.name; }

namespace {

class FuzzReplayTest : public testing::TestWithParam<FuzzTarget> {};

TEST_P(FuzzReplayTest, KeptInputsAreHandled) {
  const std::string folder =
      absl::StrCat(THERMOCLINE_SOURCE_DIR, "/tests/data/corpus/", GetParam().name);
  int count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const auto input = ReadWholeFile(entry.path().string(), 1 << 24);
    ASSERT_TRUE(input.ok()) << input.status();
    SCOPED_TRACE(entry.path().string());
    GetParam().run(*input);
    ++count;
  }
  EXPECT_GT(count, 5);
}

INSTANTIATE_TEST_SUITE_P(All, FuzzReplayTest,
                         testing::ValuesIn(FuzzTargets().begin(), FuzzTargets().end()),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace thermocline
