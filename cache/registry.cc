// The list of eviction policies: one line each.
#include "absl/strings/str_cat.h"
#include "cache/policies.h"

namespace thermocline {
namespace {

struct PolicyEntry {
  absl::string_view name;
  std::unique_ptr<EvictionPolicy> (*make)(const PolicyOptions&);
};

constexpr PolicyEntry kPolicies[] = {
    {"lru", &MakeLruPolicy},
    {"random", &MakeRandomPolicy},
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

}  // namespace thermocline
