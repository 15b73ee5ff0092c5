// Which levels there are is what the kernel says of the processor, and the best of them is the
// default.
#include "kernels/cpu/isa.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <set>
#include <sstream>

namespace thermocline {
namespace {

std::set<std::string> FlagsOfTheProcessor() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("flags", 0) != 0) continue;
    std::istringstream words(line.substr(line.find(':') + 1));
    return {std::istream_iterator<std::string>(words), {}};
  }
  return {};
}

TEST(IsaLevels, AreThoseOfTheProcessorAndTheBestIsTheDefault) {
  const std::set<std::string> flags = FlagsOfTheProcessor();
  ASSERT_FALSE(flags.empty());
  const auto has = [&](std::initializer_list<const char*> wanted) {
    return std::all_of(wanted.begin(), wanted.end(),
                       [&](const char* flag) { return flags.count(flag) > 0; });
  };
  std::vector<std::string> expected = {"scalar"};
  if (has({"avx2", "fma", "f16c"})) {
    expected.push_back("avx2");
    if (has({"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni"}))
      expected.push_back("avx512");
  }
  EXPECT_EQ(AvailableIsaLevels(), expected);

  const char* forced = std::getenv("THERMOCLINE_CPU_ISA");
  const std::string before = forced != nullptr ? forced : "";
  unsetenv("THERMOCLINE_CPU_ISA");
  const auto kernels = SelectKernels("");
  if (forced != nullptr) setenv("THERMOCLINE_CPU_ISA", before.c_str(), /*overwrite=*/1);
  ASSERT_TRUE(kernels.ok()) << kernels.status();
  EXPECT_EQ((*kernels)->name, expected.back());
}

}  // namespace
}  // namespace thermocline
