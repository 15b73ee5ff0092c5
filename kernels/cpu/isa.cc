#include "kernels/cpu/isa.h"

#include <cpuid.h>

#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace thermocline {
namespace {

// clang 14's __builtin_cpu_supports does not know f16c.
bool HasF16c() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}

}  // namespace

std::vector<std::string> AvailableIsaLevels() {
  std::vector<std::string> levels = {"scalar"};
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && HasF16c();
  if (!avx2) return levels;
  levels.push_back("avx2");
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512vnni");
  if (avx512) levels.push_back("avx512");
  return levels;
}

absl::StatusOr<const CpuKernels*> SelectKernels(absl::string_view level) {
  const std::vector<std::string> available = AvailableIsaLevels();
  std::string wanted(level);
  if (wanted.empty()) {
    const char* forced = std::getenv("THERMOCLINE_CPU_ISA");
    wanted = forced != nullptr && *forced != '\0' ? forced : available.back();
  }
  for (const std::string& candidate : available) {
    if (candidate != wanted) continue;
    if (wanted == "avx512") return &Avx512Kernels();
    if (wanted == "avx2") return &Avx2Kernels();
    return &ScalarKernels();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("CPU instruction set = \"", wanted,
                   "\", but this processor offers: ", absl::StrJoin(available, ", ")));
}

}  // namespace thermocline
