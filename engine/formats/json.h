// JSON parsing without exceptions.
#ifndef THERMOCLINE_ENGINE_FORMATS_JSON_H_
#define THERMOCLINE_ENGINE_FORMATS_JSON_H_

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json_fwd.hpp"

namespace thermocline {

// INVALID_ARGUMENT for malformed text, invalid UTF-8, or nesting deeper than kMaxJsonDepth.
inline constexpr int kMaxJsonDepth = 256;
absl::StatusOr<nlohmann::json> ParseJson(absl::string_view text);
// The same; a key that is twice in one object is INVALID_ARGUMENT too, elsewhere the last one
// counts.
absl::StatusOr<nlohmann::json> ParseJsonOfUniqueKeys(absl::string_view text);
// The same, keeping the order of object keys (templates print objects). Those are looked up one
// after another, so more than kMaxOrderedKeys in one object are INVALID_ARGUMENT too.
inline constexpr int kMaxOrderedKeys = 1024;
absl::StatusOr<nlohmann::ordered_json> ParseOrderedJson(absl::string_view text);

}  // namespace thermocline

#endif  // THERMOCLINE_ENGINE_FORMATS_JSON_H_
