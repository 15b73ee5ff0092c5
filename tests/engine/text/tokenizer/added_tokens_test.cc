// Added tokens in texts, and what is done to a text before it is cut.
#include "engine/text/tokenizer/added_tokens.h"

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "engine/text/tokenizer/normalizer.h"

namespace thermocline {
namespace {

// "id" for tokens, "(text)" for what lies between, "^" before a text that no token came before.
std::string Cut(std::vector<AddedToken> tokens, absl::string_view text, bool parse_special = true) {
  std::string seen;
  AddedTokens(std::move(tokens))
      .Split(
          text, parse_special,
          [&](absl::string_view part, bool first) {
            absl::StrAppend(&seen, first ? "^" : "", "(", part, ")");
          },
          [&](int32_t id) { absl::StrAppend(&seen, id); });
  return seen;
}

TEST(AddedTokens, TextsAreCutAtThem) {
  const std::vector<AddedToken> tokens = {{.id = 1, .text = "<a>"}, {.id = 2, .text = "<b>"}};
  EXPECT_EQ(Cut(tokens, "x<a>y<b>z"), "^(x)1(y)2(z)");
  EXPECT_EQ(Cut(tokens, "<a><b>"), "12");
  EXPECT_EQ(Cut(tokens, "<a>"), "1");
  EXPECT_EQ(Cut(tokens, "<a>x"), "1(x)");
  EXPECT_EQ(Cut(tokens, "x"), "^(x)");
  EXPECT_EQ(Cut(tokens, ""), "");
  EXPECT_EQ(Cut(tokens, "<a<a>"), "^(<a)1");
  EXPECT_EQ(Cut(tokens, "<a"), "^(<a)");
  EXPECT_EQ(Cut({}, "x"), "^(x)");
}

TEST(AddedTokens, TheLongestThatStartsAtAPlaceWins) {
  const std::vector<AddedToken> tokens = {
      {.id = 1, .text = "ab"}, {.id = 2, .text = "abcd"}, {.id = 3, .text = "bc"}};
  EXPECT_EQ(Cut(tokens, "abcd"), "2");
  EXPECT_EQ(Cut(tokens, "abce"), "1(ce)");  // what starts first wins over what starts later
  EXPECT_EQ(Cut(tokens, "xbcd"), "^(x)3(d)");
  EXPECT_EQ(Cut({{.id = 1, .text = "ab"}, {.id = 2, .text = "ab"}}, "ab"), "2");
}

TEST(AddedTokens, ControlTokensAreFoundOnRequestOnly) {
  const std::vector<AddedToken> tokens = {
      {.id = 1, .text = "ab"}, {.id = 2, .text = "abc", .special = true}, {.id = 3, .text = ""}};
  EXPECT_EQ(Cut(tokens, "abcx"), "2(x)");
  EXPECT_EQ(Cut(tokens, "abcx", false), "1(cx)");
}

TEST(AddedTokens, WhiteSpaceIsSwallowedOnTheSidesThatAreMarked) {
  const auto cut = [](bool lstrip, bool rstrip, absl::string_view text) {
    return Cut({{.id = 1, .text = "<x>", .lstrip = lstrip, .rstrip = rstrip}}, text);
  };
  EXPECT_EQ(cut(false, false, "a <x> b"), "^(a )1( b)");
  EXPECT_EQ(cut(true, false, "a <x> b"), "^(a)1( b)");
  EXPECT_EQ(cut(false, true, "a <x> b"), "^(a )1(b)");
  EXPECT_EQ(cut(true, true, "a \t\n<x> \t\nb"), "^(a)1(b)");
  EXPECT_EQ(cut(true, true, " <x> "), "1");
  EXPECT_EQ(cut(true, true, "<x>  <x>"), "11");
  EXPECT_EQ(cut(true, false, "<x>  <x>"), "11");  // up to the token before
  EXPECT_EQ(cut(true, true, "a\u3000\u00A0<x>\u2003b"), "^(a)1(b)");
  EXPECT_EQ(cut(true, true, "a<x>b"), "^(a)1(b)");
  EXPECT_EQ(cut(true, true, "\u00E4<x>\u00E4"), "^(\u00E4)1(\u00E4)");
}

using Kind = NormalizerStep::Kind;

std::string Normalized(const NormalizerStep& step, absl::string_view text) {
  return Normalize({step}, text);
}

TEST(Normalize, UnicodeFormsComposeDecomposeAndReplaceCompatibles) {
  // A with a ring, and the ligature fi.
  EXPECT_EQ(Normalized({Kind::kNfc}, "A\u030A\uFB01"), "\u00C5\uFB01");
  EXPECT_EQ(Normalized({Kind::kNfkc}, "A\u030A\uFB01"), "\u00C5fi");
  EXPECT_EQ(Normalized({Kind::kNfd}, "\u00C5\uFB01"), "A\u030A\uFB01");
  EXPECT_EQ(Normalized({Kind::kNfkd}, "\u00C5\uFB01"), "A\u030Afi");
  EXPECT_EQ(Normalized({Kind::kNfc}, ""), "");
}

TEST(Normalize, LowerCasePrefixesReplacementsAndBlanks) {
  EXPECT_EQ(Normalized({Kind::kLowercase}, "AbC\u00C4"), "abc\u00E4");
  EXPECT_EQ(Normalized({.kind = Kind::kPrepend, .content = "_"}, "ab"), "_ab");
  EXPECT_EQ(Normalized({.kind = Kind::kPrepend, .content = "_"}, ""), "");
  EXPECT_EQ(Normalized({.kind = Kind::kReplace, .pattern = "ab", .content = "x"}, "ababa"), "xxa");
  EXPECT_EQ(Normalized({.kind = Kind::kReplace, .pattern = "a", .content = ""}, "aba"), "b");
  EXPECT_EQ(Normalized({.kind = Kind::kStrip, .left = true, .right = true}, " \ta b\n "), "a b");
  EXPECT_EQ(Normalized({.kind = Kind::kStrip, .left = true}, " a "), "a ");
  EXPECT_EQ(Normalized({.kind = Kind::kStrip, .right = true}, " a "), " a");
  EXPECT_EQ(Normalized({.kind = Kind::kStrip}, " a "), " a ");
}

TEST(Normalize, StepsFollowOneAnother) {
  const NormalizerStep prefix = {.kind = Kind::kPrepend, .content = " "},
                       spaces = {.kind = Kind::kReplace, .pattern = " ", .content = "_"};
  EXPECT_EQ(Normalize({prefix, spaces}, "a b"), "_a_b");
  EXPECT_EQ(Normalize({spaces, prefix}, "a b"), " a_b");
  EXPECT_EQ(Normalize({}, "a b"), "a b");
}

}  // namespace
}  // namespace thermocline
