#include "engine/formats/json.h"

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"

namespace thermocline {
namespace {

template <class Json>
absl::StatusOr<Json> Parse(absl::string_view text) {
  bool too_deep = false;
  const auto callback = [&](int depth, typename Json::parse_event_t, Json&) {
    too_deep |= depth > kMaxJsonDepth;
    return !too_deep;  // discards what lies below
  };
  Json value = Json::parse(text.begin(), text.end(), callback, /*allow_exceptions=*/false);
  if (too_deep) {
    return absl::InvalidArgumentError(
        absl::StrCat("JSON nested deeper than ", kMaxJsonDepth, " levels"));
  }
  if (value.is_discarded()) return absl::InvalidArgumentError("not valid JSON");
  return value;
}

}  // namespace

absl::StatusOr<nlohmann::json> ParseJson(absl::string_view text) {
  return Parse<nlohmann::json>(text);
}

absl::StatusOr<nlohmann::ordered_json> ParseOrderedJson(absl::string_view text) {
  return Parse<nlohmann::ordered_json>(text);
}

}  // namespace thermocline
