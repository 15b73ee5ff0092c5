// Output bytes on their way to text: every border of well-formed UTF-8, and what stop strings hold
// back.
#include "engine/text/text_stream.h"

#include <gtest/gtest.h>

namespace thermocline {
namespace {

const std::string kBad = "\xEF\xBF\xBD";  // U+FFFD

std::string Bad(int count) {
  std::string text;
  for (int i = 0; i < count; ++i) text += kBad;
  return text;
}

// Unicode 15, table 3-7: the first and the last of each row.
TEST(ToValidUtf8, WellFormedSequencesStay) {
  for (const char* text : {"",
                           "\x01",
                           "\x7F",
                           "\xC2\x80",
                           "\xDF\xBF",
                           "\xE0\xA0\x80",
                           "\xE0\xBF\xBF",
                           "\xE1\x80\x80",
                           "\xEC\xBF\xBF",
                           "\xED\x80\x80",
                           "\xED\x9F\xBF",
                           "\xEE\x80\x80",
                           "\xEF\xBF\xBF",
                           "\xF0\x90\x80\x80",
                           "\xF0\xBF\xBF\xBF",
                           "\xF1\x80\x80\x80",
                           "\xF3\xBF\xBF\xBF",
                           "\xF4\x80\x80\x80",
                           "\xF4\x8F\xBF\xBF",
                           "a\xC3\xA9z"}) {
    EXPECT_EQ(ToValidUtf8(text), text);
    EXPECT_EQ(CompleteUtf8Prefix(text), std::string(text).size()) << text;
  }
}

// Each maximal ill-formed part is one U+FFFD: what cannot go on ends before the byte that is wrong.
TEST(ToValidUtf8, EveryMaximalIllFormedPartIsReplacedOnce) {
  struct Case {
    std::string bytes, text;
  };
  for (const Case& c :
       std::vector<Case>{{"\x80", Bad(1)},
                         {"\xBF", Bad(1)},
                         {"\xC0\x80", Bad(2)},         // overlong
                         {"\xC1\xBF", Bad(2)},         // overlong
                         {"\xC2\x7F", kBad + "\x7F"},  // below the second byte's range
                         {"\xC2\xC0", Bad(2)},         // above it, and itself no beginning
                         {"\xE0\x9F\xBF", Bad(3)},     // overlong
                         {"\xE0\xC0\x80", Bad(3)},     //
                         {"\xED\xA0\x80", Bad(3)},     // a surrogate
                         {"\xE1\x80\x7F", kBad + "\x7F"},
                         {"\xE1\x80\xC0", Bad(2)},
                         {"\xF0\x8F\xBF\xBF", Bad(4)},  // overlong
                         {"\xF4\x90\x80\x80", Bad(4)},  // above U+10FFFF
                         {"\xF5\x80\x80\x80", Bad(4)},
                         {"\xFF", Bad(1)},
                         {"\xC2", Bad(1)},
                         {"\xE1\x80", Bad(1)},
                         {"\xF1\x80\x80", Bad(1)},
                         {"\xF1\x80\x80z", kBad + "z"},
                         {"\xE1z\x80", kBad + "z" + kBad},
                         {"a\xFF\xFEz", "a" + Bad(2) + "z"}}) {
    EXPECT_EQ(ToValidUtf8(c.bytes), c.text);
  }
}

TEST(CompleteUtf8Prefix, LeavesOffABegunCharacterAndNothingElse) {
  struct Case {
    std::string bytes;
    size_t complete;
  };
  for (const Case& c : std::vector<Case>{{"a\xC2", 1},
                                         {"a\xE1", 1},
                                         {"a\xE1\x80", 1},
                                         {"a\xF1", 1},
                                         {"a\xF1\x80", 1},
                                         {"a\xF1\x80\x80", 1},
                                         {"\xF1\x80\x80", 0},
                                         {"\xE1", 0},
                                         {"\xC2\x80\xC2", 2},
                                         {"\xE2\x82\xAC\xE2\x82", 3},
                                         // Ill-formed is complete: waiting would not help.
                                         {"a\x80", 2},
                                         {"a\xE0\x9F", 3},
                                         {"\xED\xA0", 2},
                                         {"\xF4\x90", 2},
                                         {"a\xF5", 2},
                                         {"\x80\x80\x80", 3}}) {
    EXPECT_EQ(CompleteUtf8Prefix(c.bytes), c.complete) << ToValidUtf8(c.bytes);
  }
}

// What each Append gives, then what Finish does.
std::vector<std::string> Pieces(std::vector<std::string> stops,
                                const std::vector<std::string>& parts) {
  TextStream stream(std::move(stops));
  std::vector<std::string> out;
  for (const std::string& part : parts) out.push_back(stream.Append(part));
  out.push_back(stream.Finish());
  EXPECT_EQ(stream.Finish(), "");  // nothing comes twice
  return out;
}

TEST(TextStream, HoldsBackTheLongestBeginningOfAStopString) {
  using Texts = std::vector<std::string>;
  EXPECT_EQ(Pieces({"abab"}, {"xaba", "x", "ab"}), (Texts{"x", "abax", "", "ab"}));
  EXPECT_EQ(Pieces({"ab", "xab"}, {"xa", "c"}), (Texts{"", "xac", ""}));
  EXPECT_EQ(Pieces({"xab", "ab"}, {"xa", "c"}), (Texts{"", "xac", ""}));
  EXPECT_EQ(Pieces({"a"}, {"xb"}), (Texts{"xb", ""}));
  EXPECT_EQ(Pieces({}, {"xb"}), (Texts{"xb", ""}));
  EXPECT_EQ(Pieces({"abc"}, {"ab"}), (Texts{"", "ab"}));
  // A begun euro sign that may begin a stop string too.
  EXPECT_EQ(Pieces({"\xE2\x82\xACx"}, {"a\xE2\x82", "\xAC", "y"}),
            (Texts{"a", "", "\xE2\x82\xACy", ""}));
}

TEST(TextStream, TheFirstOfTwoStopsInTheTextIsTheOneThatMatched) {
  TextStream later({"cd", "b"});
  EXPECT_EQ(later.Append("abcd"), "a");
  EXPECT_EQ(later.matched(), "b");
  TextStream equal({"ab", "abc"});
  EXPECT_EQ(equal.Append("xabc"), "x");
  EXPECT_EQ(equal.matched(), "ab");
  TextStream longer({"abc", "ab"});
  EXPECT_EQ(longer.Append("xabc"), "x");
  EXPECT_EQ(longer.matched(), "abc");
  EXPECT_EQ(longer.Finish(), "");
}

TEST(TextStream, WhatStandsBeforeAStopIsValidText) {
  TextStream stream({"STOP"});
  EXPECT_FALSE(stream.stopped());
  EXPECT_EQ(stream.Append("a\xE2STOPb"), "a" + kBad);
  EXPECT_TRUE(stream.stopped());
}

}  // namespace
}  // namespace thermocline
