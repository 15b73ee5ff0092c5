#include "kernels/host_memory_info.h"

#include <algorithm>
#include <fstream>
#include <limits>
#include <map>
#include <optional>
#include <vector>

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

// Sum of the lines of a file of /proc that have one of the names, in kB there.
std::optional<int64_t> BytesInLines(const std::string& path,
                                    std::initializer_list<absl::string_view> names) {
  std::optional<int64_t> bytes;
  std::ifstream file(path);
  for (std::string name; file >> name;) {
    int64_t kib = 0;
    const bool wanted = std::find(names.begin(), names.end(), name) != names.end();
    if (wanted && file >> kib) bytes = bytes.value_or(0) + kib * 1024;
  }
  return bytes;
}

std::vector<Group> ReadGroups(const std::string& root) {
  std::vector<Group> groups;
  for (const std::string& folder : ControlGroups(root, "memory")) {
    groups.push_back(ReadGroup(folder));
  }
  return groups;
}

int64_t AvailableIn(const std::string& root, const std::vector<Group>& groups) {
  int64_t bytes = BytesInLines(absl::StrCat(root, "/proc/meminfo"), {"MemAvailable:"})
                      .value_or(int64_t{4} << 30);
  for (const Group& group : groups) {
    // Beyond memory.high the kernel slows the group down until it stands still.
    const int64_t limit = std::min(group.max, group.high);
    if (limit < kUnlimited) bytes = std::min(bytes, std::max<int64_t>(0, limit - group.held));
  }
  return bytes;
}

MemoryLimits LimitsIn(int64_t own, const std::vector<Group>& groups) {
  MemoryLimits limits = {kUnlimited, kUnlimited};
  for (const Group& group : groups) {
    const int64_t others = std::max<int64_t>(0, group.held - own);
    const auto left = [&](int64_t limit) {
      return limit == kUnlimited ? kUnlimited : std::max<int64_t>(0, limit - others);
    };
    limits.hard = std::min(limits.hard, left(group.max));
    limits.soft = std::min({limits.soft, left(group.high), left(group.soft)});
  }
  return limits;
}

}  // namespace

int64_t AvailableMemoryBytes(const std::string& root) {
  return AvailableIn(root, ReadGroups(root));
}

int64_t OwnMemoryBytes(const std::string& root) {
  return BytesInLines(absl::StrCat(root, "/proc/self/status"), {"RssAnon:", "RssShmem:"})
      .value_or(0);
}

int64_t SwapBytes(const std::string& root) {
  for (const std::string& folder : ControlGroups(root, "memory")) {
    for (const char* name : {"/memory.swap.max", "/memory.swappiness"}) {
      if (ReadNumber(folder + name) == 0) return 0;
    }
  }
  return BytesInLines(absl::StrCat(root, "/proc/meminfo"), {"SwapTotal:"}).value_or(0);
}

MemoryLimits GroupMemoryLimits(const std::string& root) {
  return LimitsIn(OwnMemoryBytes(root), ReadGroups(root));
}

MemoryReading ReadMemory(const std::string& root) {
  const std::vector<Group> groups = ReadGroups(root);
  const int64_t own = OwnMemoryBytes(root);
  return {own, AvailableIn(root, groups), LimitsIn(own, groups)};
}

}  // namespace thermocline
