#include "cache/placement.h"

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace thermocline {
namespace {

// "0-3,7" or "*" of [0, count).
absl::StatusOr<std::vector<int>> ParseRanges(absl::string_view text, const char* what, int count) {
  std::vector<int> numbers;
  for (const absl::string_view part : absl::StrSplit(text, ',')) {
    const std::vector<absl::string_view> ends = absl::StrSplit(part, '-');
    int first = 0, last = count - 1;
    const bool all = part == "*";
    const bool read = all || (ends.size() <= 2 && absl::SimpleAtoi(ends.front(), &first) &&
                              absl::SimpleAtoi(ends.back(), &last));
    if (!read || first < 0 || first > last || last >= count) {
      return absl::InvalidArgumentError(absl::StrCat(what, " \"", part,
                                                     "\", but numbers and ranges of 0 to ",
                                                     count - 1, " or * are allowed"));
    }
    for (int i = first; i <= last; ++i) numbers.push_back(i);
  }
  return numbers;
}

absl::StatusOr<Wanted> ParseWanted(absl::string_view text) {
  if (text == "device") return Wanted::kDevice;
  if (text == "host") return Wanted::kHost;
  if (text == "disk") return Wanted::kDisk;
  return absl::InvalidArgumentError(
      absl::StrCat("place \"", text, "\", but device, host and disk are allowed"));
}

}  // namespace

Placement::Placement(int num_layers, int num_experts)
    : num_layers_(num_layers),
      num_experts_(num_experts),
      wanted_(static_cast<size_t>(num_layers) * static_cast<size_t>(num_experts),
              Wanted::kAnywhere) {}

absl::StatusOr<Placement> Placement::Parse(const std::string& text, int num_layers,
                                           int num_experts) {
  Placement placement(num_layers, num_experts);
  int number = 0;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    ++number;
    line = line.substr(0, line.find('#'));
    const std::vector<absl::string_view> words =
        absl::StrSplit(line, absl::ByAnyChar(" \t\r"), absl::SkipEmpty());
    if (words.empty()) continue;
    const auto error = [&](absl::string_view message) {
      return absl::InvalidArgumentError(absl::StrCat("line ", number, ": ", message));
    };
    if (words.size() != 3) {
      return error(absl::StrCat(words.size(), " words, but a line is LAYERS EXPERTS PLACE"));
    }
    const absl::StatusOr<std::vector<int>> layers = ParseRanges(words[0], "layers", num_layers),
                                           experts = ParseRanges(words[1], "experts", num_experts);
    const absl::StatusOr<Wanted> wanted = ParseWanted(words[2]);
    for (const absl::Status& status : {layers.status(), experts.status(), wanted.status()}) {
      if (!status.ok()) return error(status.message());
    }
    for (const int layer : *layers) {
      for (const int expert : *experts) placement.Set({layer, expert}, *wanted);
    }
  }
  return placement;
}

std::vector<int32_t> Placement::Experts(int layer, Wanted wanted) const {
  std::vector<int32_t> experts;
  for (int32_t e = 0; e < num_experts_; ++e) {
    if (Of({layer, e}) == wanted) experts.push_back(e);
  }
  return experts;
}

}  // namespace thermocline
