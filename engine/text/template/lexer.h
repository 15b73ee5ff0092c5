// The lexer: Jinja source to tokens, with white space control already applied.
#ifndef THERMOCLINE_ENGINE_TEXT_TEMPLATE_LEXER_H_
#define THERMOCLINE_ENGINE_TEXT_TEMPLATE_LEXER_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace thermocline::jinja {

enum class TokenKind {
  kText,       // literal output
  kOutput,     // {{
  kOutputEnd,  // }}
  kBlock,      // {%
  kBlockEnd,   // %}
  kName,
  kString,
  kInt,
  kFloat,
  kOperator,
  kEnd,
};

struct Token {
  TokenKind kind = TokenKind::kEnd;
  std::string text;
  int line = 0;
};

// With trim_blocks and lstrip_blocks, as chat templates are rendered by transformers. Comments
// vanish, raw blocks become text. INVALID_ARGUMENT with the line. Source: lexer.py of Jinja2.
absl::StatusOr<std::vector<Token>> Tokenize(absl::string_view source);

}  // namespace thermocline::jinja

#endif  // THERMOCLINE_ENGINE_TEXT_TEMPLATE_LEXER_H_
