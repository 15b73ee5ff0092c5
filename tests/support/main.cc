// Runs the tests of a program, on the processor that THERMOCLINE_CPU_ISA stands for. Where it
// forces instructions that this one lacks the program says so and all tests count as skipped.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "kernels/cpu/isa.h"

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  const char* forced = std::getenv("THERMOCLINE_CPU_ISA");
  const std::string level = forced != nullptr ? forced : "";
  if (!level.empty() && !thermocline::SelectKernels(level).ok()) {
    // As GTEST_SKIP prints it: run_ctest.py reads the reason.
    std::printf("main.cc: Skipped\nthis processor lacks %s\n\n[  SKIPPED ]\n", forced);
    return 0;
  }
  // oneDNN asks the processor by itself; it shall see the one that is meant.
  if (level == "avx2") setenv("ONEDNN_MAX_CPU_ISA", "AVX2", /*overwrite=*/1);
  if (level == "scalar") setenv("ONEDNN_MAX_CPU_ISA", "SSE41", /*overwrite=*/1);
  return RUN_ALL_TESTS();
}
