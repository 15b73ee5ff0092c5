// The lists of eviction policies and of readers: one line each.
#include "absl/strings/str_cat.h"
#include "cache/policies.h"
#include "cache/reader_staging.h"

namespace thermocline {
namespace {

struct PolicyEntry {
  absl::string_view name;
  std::unique_ptr<EvictionPolicy> (*make)(const PolicyOptions&);
};

constexpr PolicyEntry kPolicies[] = {
    {"lru", &MakeLruPolicy},
    {"lfu", &MakeLfuPolicy},
    {"random", &MakeRandomPolicy},
};

struct ReaderEntry {
  absl::string_view name;
  absl::StatusOr<std::unique_ptr<ExpertReader>> (*make)(ReaderOptions);
};

// "auto" takes the first that works.
constexpr ReaderEntry kReaders[] = {
    {"io_uring", &MakeUringReader},
    {"threads", &MakeThreadsReader},
};

}  // namespace

absl::StatusOr<std::unique_ptr<EvictionPolicy>> MakeEvictionPolicy(absl::string_view name,
                                                                   const PolicyOptions& options) {
  std::string known;
  for (const PolicyEntry& entry : kPolicies) {
    if (entry.name == name) return entry.make(options);
    absl::StrAppend(&known, known.empty() ? "" : ", ", entry.name);
  }
  return absl::InvalidArgumentError(
      absl::StrCat("eviction policy = \"", name, "\", but the policies are: ", known));
}

absl::StatusOr<std::unique_ptr<ExpertReader>> MakeExpertReader(absl::string_view name,
                                                               const ReaderOptions& options) {
  std::string known = "auto";
  for (const ReaderEntry& entry : kReaders) {
    absl::StrAppend(&known, ", ", entry.name);
    if (name != "auto" && name != entry.name) continue;
    absl::StatusOr<std::unique_ptr<ExpertReader>> reader = entry.make(options);
    if (name == "auto" && absl::IsUnavailable(reader.status())) continue;
    return reader;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("expert reader = \"", name, "\", but the readers are: ", known));
}

}  // namespace thermocline
