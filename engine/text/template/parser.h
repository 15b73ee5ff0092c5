// The parser: tokens to a syntax tree, by recursive descent with a depth limit.
#ifndef THERMOCLINE_ENGINE_TEXT_TEMPLATE_PARSER_H_
#define THERMOCLINE_ENGINE_TEXT_TEMPLATE_PARSER_H_

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/text/template/ast.h"

namespace thermocline::jinja {

inline constexpr int kMaxNesting = 200;  // of statements and parentheses
inline constexpr int kMaxExprHeight =
    1000;  // of operator and attribute chains: they are walked by recursion

// INVALID_ARGUMENT with the line. Source: parser.py of Jinja2.
absl::StatusOr<Body> Parse(absl::string_view source);

}  // namespace thermocline::jinja

#endif  // THERMOCLINE_ENGINE_TEXT_TEMPLATE_PARSER_H_
