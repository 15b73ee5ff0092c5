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

// One control group; kUnlimited: without such a limit. Version 1 calls a number beyond every memory
// no limit.
struct Group {
  int64_t max = kUnlimited, high = kUnlimited, soft = kUnlimited;
  int64_t held = 0;  // what the kernel cannot give back
};

Group ReadGroup(const std::string& folder) {
  constexpr int64_t kNoLimit = int64_t{1} << 62;
  Group group;
  const bool version_1 = ReadNumber(folder + "/memory.limit_in_bytes").has_value();
  const std::optional<int64_t> usage =
      ReadNumber(folder + (version_1 ? "/memory.usage_in_bytes" : "/memory.current"));
  if (!usage.has_value()) return group;
  group.held = std::max<int64_t>(0, *usage - Reclaimable(folder, version_1));
  const auto limit = [&](const char* name) {
    const int64_t bytes = ReadNumber(folder + name).value_or(kUnlimited);
    return bytes >= kNoLimit ? kUnlimited : bytes;
  };
  if (version_1) {
    group.max = limit("/memory.limit_in_bytes");
    group.soft = limit("/memory.soft_limit_in_bytes");
  } else {
    group.max = limit("/memory.max");
    group.high = limit("/memory.high");
  }
  return group;
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
    const Group group = ReadGroup(folder);
    // Beyond memory.high the kernel slows the group down until it stands still.
    const int64_t limit = std::min(group.max, group.high);
    if (limit < kUnlimited) bytes = std::min(bytes, std::max<int64_t>(0, limit - group.held));
  }
  return bytes;
}

int64_t OwnMemoryBytes(const std::string& root) {
  int64_t bytes = 0;
  std::ifstream status(absl::StrCat(root, "/proc/self/status"));
  for (std::string name; status >> name;) {
    int64_t kib = 0;
    if ((name == "RssAnon:" || name == "RssShmem:") && status >> kib) bytes += kib * 1024;
  }
  return bytes;
}

MemoryReading ReadMemory(const std::string& root) {
  return {OwnMemoryBytes(root), AvailableMemoryBytes(root), GroupMemoryLimits(root)};
}

MemoryLimits GroupMemoryLimits(const std::string& root) {
  MemoryLimits limits = {kUnlimited, kUnlimited};
  const int64_t own = OwnMemoryBytes(root);
  for (const std::string& folder : ControlGroups(root, "memory")) {
    const Group group = ReadGroup(folder);
    const int64_t others = std::max<int64_t>(0, group.held - own);
    const auto left = [&](int64_t limit) {
      return limit == kUnlimited ? kUnlimited : std::max<int64_t>(0, limit - others);
    };
    limits.hard = std::min(limits.hard, left(group.max));
    limits.soft = std::min({limits.soft, left(group.high), left(group.soft)});
  }
  return limits;
}

}  // namespace thermocline
