#include "engine/text/template/text_functions.h"

#include <unicode/locid.h>
#include <unicode/uchar.h>
#include <unicode/unistr.h>

namespace thermocline::jinja {
namespace {

constexpr absl::string_view kWhiteSpace = " \t\n\r\f\v\x1c\x1d\x1e\x1f";

icu::UnicodeString FromUtf8(absl::string_view text) {
  return icu::UnicodeString::fromUTF8(
      icu::StringPiece(text.data(), static_cast<int32_t>(text.size())));
}

// Where the character behind the one at `at` begins, behind the end for the last one.
size_t NextCharacter(absl::string_view text, size_t at) {
  do {
    ++at;
  } while (at < text.size() && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80);
  return at;
}

std::string ToUtf8(const icu::UnicodeString& text) {
  std::string utf8;
  text.toUTF8String(utf8);
  return utf8;
}

}  // namespace

std::string Strip(absl::string_view text, absl::string_view characters, Side side) {
  const absl::string_view set = characters.empty() ? kWhiteSpace : characters;
  size_t begin = 0, end = text.size();
  if (side != Side::kRight) begin = std::min(text.find_first_not_of(set), text.size());
  if (side != Side::kLeft) end = text.find_last_not_of(set) + 1;  // npos + 1 == 0
  return begin < end ? std::string(text.substr(begin, end - begin)) : "";
}

std::string Upper(absl::string_view text) {
  return ToUtf8(FromUtf8(text).toUpper(icu::Locale::getRoot()));
}

std::string Lower(absl::string_view text) {
  return ToUtf8(FromUtf8(text).toLower(icu::Locale::getRoot()));
}

std::string Capitalize(absl::string_view text) {
  icu::UnicodeString unicode = FromUtf8(text).toLower(icu::Locale::getRoot());
  if (unicode.isEmpty()) return "";
  const UChar32 first = unicode.char32At(0);
  unicode.replace(0, U16_LENGTH(first), u_totitle(first));
  return ToUtf8(unicode);
}

std::string Title(absl::string_view text) {
  const icu::UnicodeString unicode = FromUtf8(text);
  icu::UnicodeString titled;
  bool inside = false;
  for (int32_t i = 0; i < unicode.length();) {
    const UChar32 c = unicode.char32At(i);
    titled.append(inside ? u_tolower(c) : u_totitle(c));
    inside = u_isalpha(c);
    i += U16_LENGTH(c);
  }
  return ToUtf8(titled);
}

std::string ReplaceAll(absl::string_view text, absl::string_view from, absl::string_view to,
                       int64_t count) {
  std::string result;
  size_t position = 0;  // up to which the text is in the result
  for (size_t search = 0; count != 0; --count) {
    const size_t found = search <= text.size() ? text.find(from, search) : absl::string_view::npos;
    if (found == absl::string_view::npos) break;
    result.append(text.data() + position, found - position);
    result.append(to.data(), to.size());
    position = found + from.size();
    // Nothing is found at the beginning, behind every character and so at the end.
    search = from.empty() ? NextCharacter(text, found) : position;
  }
  result.append(text.data() + position, text.size() - position);
  return result;
}

}  // namespace thermocline::jinja
