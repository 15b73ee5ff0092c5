#include "engine/formats/json.h"

#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <vector>

#include "absl/strings/str_cat.h"

namespace thermocline {
namespace {

template <class Json>
absl::StatusOr<Json> Parse(absl::string_view text, int max_keys) {
  using Event = typename Json::parse_event_t;
  bool too_deep = false, too_wide = false;
  std::vector<int> keys;  // of the objects that are open
  const auto callback = [&](int depth, Event event, Json&) {
    too_deep |= depth > kMaxJsonDepth;
    if (event == Event::object_start) keys.push_back(0);
    if (event == Event::object_end) keys.pop_back();
    if (event == Event::key) too_wide |= ++keys.back() > max_keys;
    return !too_deep && !too_wide;  // discards what lies below
  };
  Json value = Json::parse(text.begin(), text.end(), callback, /*allow_exceptions=*/false);
  if (too_deep) {
    return absl::InvalidArgumentError(
        absl::StrCat("JSON nested deeper than ", kMaxJsonDepth, " levels"));
  }
  if (too_wide) {
    return absl::InvalidArgumentError(
        absl::StrCat("JSON object with more than ", max_keys, " keys"));
  }
  if (value.is_discarded()) return absl::InvalidArgumentError("not valid JSON");
  return value;
}

// The first key that is twice in its object; "" when there is none, and for what is not JSON.
std::string RepeatedKey(absl::string_view text) {
  using Event = nlohmann::json::parse_event_t;
  std::vector<std::set<std::string>> keys;  // of the objects that are open
  std::string repeated;
  const auto callback = [&](int, Event event, nlohmann::json& value) {
    if (event == Event::object_start) keys.emplace_back();
    if (event == Event::object_end) keys.pop_back();
    if (event == Event::key && !keys.back().insert(value.get<std::string>()).second &&
        repeated.empty()) {
      repeated = value.get<std::string>();
    }
    return true;
  };
  const nlohmann::json value =
      nlohmann::json::parse(text.begin(), text.end(), callback, /*allow_exceptions=*/false);
  return value.is_discarded() ? "" : repeated;
}

}  // namespace

absl::StatusOr<nlohmann::json> ParseJson(absl::string_view text) {
  return Parse<nlohmann::json>(text, std::numeric_limits<int>::max());
}

absl::StatusOr<nlohmann::json> ParseJsonOfUniqueKeys(absl::string_view text) {
  absl::StatusOr<nlohmann::json> value = ParseJson(text);
  if (!value.ok()) return value;
  const std::string repeated = RepeatedKey(text);
  if (repeated.empty()) return value;
  return absl::InvalidArgumentError(absl::StrCat("key \"", repeated, "\" is there twice"));
}

absl::StatusOr<nlohmann::ordered_json> ParseOrderedJson(absl::string_view text) {
  return Parse<nlohmann::ordered_json>(text, kMaxOrderedKeys);
}

}  // namespace thermocline
