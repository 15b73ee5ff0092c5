// Python's string functions on UTF-8 text, shared by filters and methods.
#ifndef THERMOCLINE_ENGINE_TEXT_TEMPLATE_TEXT_FUNCTIONS_H_
#define THERMOCLINE_ENGINE_TEXT_TEMPLATE_TEXT_FUNCTIONS_H_

#include <string>

#include "absl/strings/string_view.h"

namespace thermocline::jinja {

enum class Side { kLeft, kRight, kBoth };

// Removes white space, or the characters (bytes) of `characters` when it is not empty.
std::string Strip(absl::string_view text, absl::string_view characters, Side side);
std::string Upper(absl::string_view text);
std::string Lower(absl::string_view text);
// First character upper case, the rest lower case.
std::string Capitalize(absl::string_view text);
// First letter of every word upper case, the rest lower case.
std::string Title(absl::string_view text);
// The first `count` places, or all when it is negative. Nothing is found before every character and
// at the end.
std::string ReplaceAll(absl::string_view text, absl::string_view from, absl::string_view to,
                       int64_t count);

}  // namespace thermocline::jinja

#endif  // THERMOCLINE_ENGINE_TEXT_TEMPLATE_TEXT_FUNCTIONS_H_
