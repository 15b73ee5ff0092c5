#include "kernels/host_memory_info.h"

#include <algorithm>
#include <fstream>
#include <limits>
#include <map>
#include <optional>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "kernels/cgroup.h"

namespace thermocline {
namespace {

constexpr int64_t kUnlimited = std::numeric_limits<int64_t>::max();

// The number in a file; nothing without one ("max" among others).
std::optional<int64_t> ReadNumber(const std::string& path) {
  int64_t value = 0;
  if (!absl::SimpleAtoi(FirstLine(path), &value)) return std::nullopt;
  return value;
}

// Bytes of memory.stat that the kernel gives back before it kills. Version 1 counts those of the
// groups below under names of their own.
int64_t Reclaimable(const std::string& folder, bool version_1) {
  std::map<std::string, int64_t> stat;
  std::ifstream file(folder + "/memory.stat");
  int64_t value = 0;
  for (std::string name; file >> name >> value;) stat[name] = value;
  if (version_1) return stat["total_active_file"] + stat["total_inactive_file"];
  return stat["active_file"] + stat["inactive_file"] + stat["slab_reclaimable"];
}

// What one control group leaves; kUnlimited without a limit.
int64_t LeftIn(const std::string& folder) {
  std::optional<int64_t> limit = ReadNumber(folder + "/memory.limit_in_bytes");
  const bool version_1 = limit.has_value();
  if (!version_1) {
    // Beyond memory.high the kernel slows the group down until it stands still.
    for (const char* name : {"/memory.max", "/memory.high"}) {
      const std::optional<int64_t> one = ReadNumber(folder + name);
      if (one.has_value()) limit = std::min(*one, limit.value_or(kUnlimited));
    }
  }
  const char* usage_file = version_1 ? "/memory.usage_in_bytes" : "/memory.current";
  const std::optional<int64_t> usage = ReadNumber(folder + usage_file);
  if (!limit.has_value() || !usage.has_value()) return kUnlimited;
  const int64_t held = std::max<int64_t>(0, *usage - Reclaimable(folder, version_1));
  return std::max<int64_t>(0, *limit - held);
}

}  // namespace

int64_t AvailableMemoryBytes(const std::string& root) {
  int64_t bytes = int64_t{4} << 30;
  std::ifstream meminfo(absl::StrCat(root, "/proc/meminfo"));
  for (std::string name; meminfo >> name;) {
    int64_t kib = 0;
    if (name == "MemAvailable:" && meminfo >> kib) bytes = kib * 1024;
  }
  for (const std::string& folder : ControlGroups(root, "memory")) {
    bytes = std::min(bytes, LeftIn(folder));
  }
  return bytes;
}

}  // namespace thermocline
