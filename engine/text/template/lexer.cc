#include "engine/text/template/lexer.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace thermocline::jinja {
namespace {

// Longest first.
constexpr absl::string_view kOperators[] = {"//", "**", "==", "!=", "<=", ">=", "+", "-", "*",
                                            "/",  "%",  "~",  "<",  ">",  "=",  "(", ")", "[",
                                            "]",  "{",  "}",  ".",  ",",  ":",  "|"};

bool IsNameStart(char c) { return absl::ascii_isalpha(static_cast<unsigned char>(c)) || c == '_'; }
bool IsNameChar(char c) { return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '_'; }

void AppendUtf8(uint32_t code_point, std::string* out) {
  if (code_point < 0x80) {
    out->push_back(static_cast<char>(code_point));
  } else if (code_point < 0x800) {
    out->push_back(static_cast<char>(0xC0 | (code_point >> 6)));
    out->push_back(static_cast<char>(0x80 | (code_point & 0x3F)));
  } else if (code_point < 0x10000) {
    out->push_back(static_cast<char>(0xE0 | (code_point >> 12)));
    out->push_back(static_cast<char>(0x80 | ((code_point >> 6) & 0x3F)));
    out->push_back(static_cast<char>(0x80 | (code_point & 0x3F)));
  } else {
    out->push_back(static_cast<char>(0xF0 | (code_point >> 18)));
    out->push_back(static_cast<char>(0x80 | ((code_point >> 12) & 0x3F)));
    out->push_back(static_cast<char>(0x80 | ((code_point >> 6) & 0x3F)));
    out->push_back(static_cast<char>(0x80 | (code_point & 0x3F)));
  }
}

class Lexer {
 public:
  explicit Lexer(absl::string_view source) : source_(source) {}

  absl::StatusOr<std::vector<Token>> Run() {
    while (position_ < source_.size()) {
      if (absl::Status s = TextAndTag(); !s.ok()) return s;
    }
    Add(TokenKind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  absl::Status Fail(absl::string_view what) const {
    return absl::InvalidArgumentError(absl::StrCat("template line ", line_, ": ", what));
  }
  void Add(TokenKind kind, std::string text) { tokens_.push_back({kind, std::move(text), line_}); }
  absl::string_view rest() const { return source_.substr(position_); }
  void Advance(size_t count) {
    line_ += static_cast<int>(
        std::count(source_.begin() + static_cast<ptrdiff_t>(position_),
                   source_.begin() + static_cast<ptrdiff_t>(position_ + count), '\n'));
    position_ += count;
  }

  // Emits the text up to the next tag, white space control applied, then lexes the tag.
  absl::Status TextAndTag() {
    size_t open = position_;
    while (true) {
      open = source_.find('{', open);
      if (open == absl::string_view::npos || open + 1 >= source_.size()) open = source_.size();
      if (open == source_.size() || absl::StrContains("{%#", source_.substr(open + 1, 1))) break;
      ++open;
    }
    absl::string_view text = source_.substr(position_, open - position_);
    if (strip_next_) text = absl::StripLeadingAsciiWhitespace(text);
    if (trim_newline_ && absl::StartsWith(text, "\n")) text.remove_prefix(1);
    strip_next_ = trim_newline_ = false;
    const char kind = open < source_.size() ? source_[open + 1] : '\0';
    const char control = open + 2 < source_.size() ? source_[open + 2] : '\0';
    if (control == '-' && kind != '\0') {
      text = absl::StripTrailingAsciiWhitespace(text);
    } else if ((kind == '%' || kind == '#') && control != '+') {
      text = WithoutIndentation(text, at_line_start_);
    }
    at_line_start_ = false;
    if (!text.empty()) Add(TokenKind::kText, std::string(text));
    Advance(open - position_);
    if (kind == '\0') return absl::OkStatus();
    if (kind == '#') return Comment();
    Advance(2);
    const bool has_control =
        position_ < source_.size() && (source_[position_] == '-' || source_[position_] == '+');
    if (has_control) Advance(1);
    if (kind == '%') {
      absl::StatusOr<bool> raw = RawBlock();
      if (!raw.ok() || *raw) return raw.status();
    }
    Add(kind == '{' ? TokenKind::kOutput : TokenKind::kBlock, "");
    return Inside(kind == '{' ? "}}" : "%}");
  }

  // lstrip_blocks: blanks between the start of the line and a tag behind `text` go.
  static absl::string_view WithoutIndentation(absl::string_view text, bool begins_a_line) {
    size_t end = text.size();
    while (end > 0 && (text[end - 1] == ' ' || text[end - 1] == '\t')) --end;
    const bool line_start = end > 0 ? text[end - 1] == '\n' : begins_a_line;
    return line_start ? text.substr(0, end) : text;
  }

  // A tag that ended with this sign, or none, is behind us.
  void EndTag(bool minus, bool plus, bool is_block) {
    strip_next_ = minus;
    trim_newline_ = is_block && !minus && !plus;
    at_line_start_ = trim_newline_ && absl::StartsWith(rest(), "\n");
  }

  absl::Status Comment() {
    size_t begin = position_ + 2;  // behind the sign: "{#-#}" ends with none
    if (begin < source_.size() && (source_[begin] == '-' || source_[begin] == '+')) ++begin;
    const size_t close = source_.find("#}", begin);
    if (close == absl::string_view::npos) return Fail("a comment is not closed");
    const char sign = close > begin ? source_[close - 1] : '\0';
    Advance(close + 2 - position_);
    EndTag(sign == '-', sign == '+', /*is_block=*/true);
    return absl::OkStatus();
  }

  // {% raw %} ... {% endraw %}, just after the opening {% and its sign. Behind "raw" only "-" has a
  // meaning, and no line end goes by itself.
  absl::StatusOr<bool> RawBlock() {
    absl::string_view head = absl::StripLeadingAsciiWhitespace(rest());
    if (!absl::ConsumePrefix(&head, "raw")) return false;
    head = absl::StripLeadingAsciiWhitespace(head);
    const bool strip = absl::ConsumePrefix(&head, "-");
    if (!absl::ConsumePrefix(&head, "%}")) return false;
    if (strip) head = absl::StripLeadingAsciiWhitespace(head);
    const size_t begin = source_.size() - head.size();
    for (size_t open = source_.find("{%", begin); open != absl::string_view::npos;
         open = source_.find("{%", open + 2)) {
      absl::string_view tail = source_.substr(open + 2), text = source_.substr(begin, open - begin);
      const bool strip_before = absl::ConsumePrefix(&tail, "-");
      const bool keep_before = !strip_before && absl::ConsumePrefix(&tail, "+");
      tail = absl::StripLeadingAsciiWhitespace(tail);
      if (!absl::ConsumePrefix(&tail, "endraw")) continue;
      tail = absl::StripLeadingAsciiWhitespace(tail);
      const bool minus = absl::ConsumePrefix(&tail, "-");
      const bool plus = !minus && absl::ConsumePrefix(&tail, "+");
      if (!absl::ConsumePrefix(&tail, "%}")) continue;
      if (strip_before) {
        text = absl::StripTrailingAsciiWhitespace(text);
      } else if (!keep_before) {
        text = WithoutIndentation(text, /*begins_a_line=*/false);
      }
      if (!text.empty()) Add(TokenKind::kText, std::string(text));
      Advance(source_.size() - tail.size() - position_);
      EndTag(minus, plus, /*is_block=*/true);
      return true;
    }
    return Fail("a raw block is not closed");
  }

  absl::Status Inside(absl::string_view close) {
    int depth = 0;  // of brackets: "}}" may close two dicts
    while (true) {
      while (position_ < source_.size() &&
             absl::ascii_isspace(static_cast<unsigned char>(source_[position_])))
        Advance(1);
      if (position_ >= source_.size()) return Fail(absl::StrCat("a tag is not closed by ", close));
      const bool minus = absl::StartsWith(rest(), absl::StrCat("-", close));
      const bool plus = absl::StartsWith(rest(), absl::StrCat("+", close));
      if (depth == 0 && (minus || plus || absl::StartsWith(rest(), close))) {
        Add(close == "}}" ? TokenKind::kOutputEnd : TokenKind::kBlockEnd, "");
        Advance(close.size() + (minus || plus ? 1 : 0));
        EndTag(minus, plus, /*is_block=*/close == "%}");
        return absl::OkStatus();
      }
      const char c = source_[position_];
      if (IsNameStart(c)) {
        size_t end = position_;
        while (end < source_.size() && IsNameChar(source_[end])) ++end;
        Add(TokenKind::kName, std::string(source_.substr(position_, end - position_)));
        Advance(end - position_);
      } else if (absl::ascii_isdigit(static_cast<unsigned char>(c))) {
        Number();
      } else if (c == '"' || c == '\'') {
        if (absl::Status s = String(c); !s.ok()) return s;
      } else {
        const auto op =
            std::find_if(std::begin(kOperators), std::end(kOperators),
                         [&](absl::string_view o) { return absl::StartsWith(rest(), o); });
        if (op == std::end(kOperators))
          return Fail(absl::StrCat("unexpected character '", std::string(1, c), "'"));
        if (*op == "{" || *op == "[" || *op == "(") ++depth;
        if (*op == "}" || *op == "]" || *op == ")") --depth;
        Add(TokenKind::kOperator, std::string(*op));
        Advance(op->size());
      }
    }
  }

  void Number() {
    size_t end = position_;
    bool is_float = false;
    const auto digit = [&](size_t i) {
      return i < source_.size() &&
             (absl::ascii_isdigit(static_cast<unsigned char>(source_[i])) || source_[i] == '_');
    };
    while (digit(end)) ++end;
    if (end < source_.size() && source_[end] == '.' && digit(end + 1)) {
      is_float = true;
      ++end;
      while (digit(end)) ++end;
    }
    if (end < source_.size() && (source_[end] == 'e' || source_[end] == 'E')) {
      size_t exponent = end + 1;
      if (exponent < source_.size() && (source_[exponent] == '+' || source_[exponent] == '-'))
        ++exponent;
      if (digit(exponent)) {
        is_float = true;
        end = exponent;
        while (digit(end)) ++end;
      }
    }
    std::string text(source_.substr(position_, end - position_));
    std::erase(text, '_');
    Add(is_float ? TokenKind::kFloat : TokenKind::kInt, std::move(text));
    Advance(end - position_);
  }

  absl::Status String(char quote) {
    std::string text;
    size_t i = position_ + 1;
    for (; i < source_.size() && source_[i] != quote; ++i) {
      if (source_[i] != '\\' || i + 1 >= source_.size()) {
        text.push_back(source_[i]);
        continue;
      }
      const char escape = source_[++i];
      const size_t hex_digits = escape == 'x' ? 2 : escape == 'u' ? 4 : escape == 'U' ? 8 : 0;
      if (hex_digits > 0) {
        uint32_t code_point = 0;
        if (!absl::SimpleHexAtoi(source_.substr(i + 1, hex_digits), &code_point) ||
            code_point > 0x10FFFF || source_.size() - i - 1 < hex_digits) {
          return Fail("a bad escape in a string");
        }
        AppendUtf8(code_point, &text);
        i += hex_digits;
        continue;
      }
      switch (escape) {
        case 'n':
          text.push_back('\n');
          break;
        case 't':
          text.push_back('\t');
          break;
        case 'r':
          text.push_back('\r');
          break;
        case 'b':
          text.push_back('\b');
          break;
        case 'f':
          text.push_back('\f');
          break;
        case 'v':
          text.push_back('\v');
          break;
        case 'a':
          text.push_back('\a');
          break;
        case '0':
          text.push_back('\0');
          break;
        case '\n':
          break;  // a continued line
        case '\\':
        case '\'':
        case '"':
          text.push_back(escape);
          break;
        default:
          text.push_back('\\');
          text.push_back(escape);
      }
    }
    if (i >= source_.size()) return Fail("a string is not closed");
    Add(TokenKind::kString, std::move(text));
    Advance(i + 1 - position_);
    return absl::OkStatus();
  }

  absl::string_view source_;
  size_t position_ = 0;
  int line_ = 1;
  bool strip_next_ = false;    // a tag ended with "-": white space after it goes
  bool trim_newline_ = false;  // a block ended: one newline after it goes
  bool at_line_start_ = true;  // what follows, once trimmed, begins a line
  std::vector<Token> tokens_;
};

}  // namespace

absl::StatusOr<std::vector<Token>> Tokenize(absl::string_view source) {
  // Jinja drops one newline at the very end.
  if (absl::EndsWith(source, "\n")) source.remove_suffix(1);
  if (absl::EndsWith(source, "\r")) source.remove_suffix(1);
  return Lexer(source).Run();
}

}  // namespace thermocline::jinja
