// White space around reasoning and calls, and what streams out when.
#include <gtest/gtest.h>

#include "tests/support/parse_output.h"

namespace thermocline {
namespace {

constexpr char kCall[] = "<tool_call>{\"name\": \"now\"}</tool_call>";

struct Spaced {
  std::string text, reasoning, content;
  size_t calls = 0;
};

void ExpectSpaced(const std::vector<Spaced>& cases, const std::string& prompt = "") {
  for (const Spaced& c : cases) {
    for (size_t piece : {size_t{1}, size_t{4}, c.text.size() + 1}) {
      const ChatDelta all = ParsePieces(FormatOf("hermes"), c.text, piece, prompt);
      EXPECT_EQ(all.reasoning, c.reasoning) << c.text;
      EXPECT_EQ(all.content, c.content) << c.text;
      EXPECT_EQ(all.tool_calls.size(), c.calls) << c.text;
    }
  }
}

TEST(OutputWhiteSpace, ContentAloneIsLeftAsItIs) {
  ExpectSpaced({{"x", "", "x"},
                {" x \n", "", " x \n"},
                {"\n", "", "\n"},
                {"", "", ""},
                {"a  b\t c", "", "a  b\t c"},
                {"x \n\n y", "", "x \n\n y"}});
}

TEST(OutputWhiteSpace, AroundReasoningItIsMarkup) {
  ExpectSpaced({{"<think>a</think>b", "a", "b"},
                {"<think>\n a \n</think>\n\n b \n", "a", "b \n"},
                {"<think>\n</think>\n\nb", "", "b"},
                {"<think></think>", "", ""},
                {"<think>a\n\nb</think>c", "a\n\nb", "c"},
                {"\n<think>a</think> b", "a", "b"},
                {"<think> a ", "a", ""},
                {"<think>a</think> \n ", "a", ""}});
  // Left open by the prompt, with or without white space behind the marker.
  for (const char* prompt : {"x<think>", "x<think>\n", "x <think> \n\t"}) {
    ExpectSpaced({{"\n a \n</think>\n b", "a", "b"}, {"a", "a", ""}, {"</think>b", "", "b"}},
                 prompt);
  }
  ExpectSpaced({{" a</think>b", "", " a</think>b"}}, "x<think>\nmore");
}

TEST(OutputWhiteSpace, BeforeAndBetweenCallsItIsMarkup) {
  const std::string call = kCall;
  ExpectSpaced({{call, "", "", 1},
                {"\n" + call, "", "", 1},
                {"a \n" + call, "", "a", 1},
                {" a \n" + call + "\n", "", " a", 1},
                {call + "\n" + call, "", "", 2},
                {"a\n" + call + " \n" + call + "\n\n", "", "a", 2},
                {"<think>r</think>\n\n" + call, "r", "", 1},
                {"<think>r</think>\n\na\n" + call, "r", "a", 1}});
}

TEST(OutputWhiteSpace, AroundWhatIsNoCallItIsContent) {
  const std::string wrong = "<tool_call>no</tool_call>";
  ExpectSpaced({{"a \n" + wrong + " \n b", "", "a \n" + wrong + " \n b"},
                {wrong + "\n", "", wrong + "\n"},
                {"\n" + wrong, "", "\n" + wrong},
                {" <tool_call>x", "", " <tool_call>x"},
                {"a \n" + wrong + "\n" + kCall, "", "a \n" + wrong, 1}});
}

TEST(OutputStream, WhatIsCertainComesAtOnce) {
  const auto parser = MakeOutputParser(FormatOf("hermes"), WeatherTools(), "");
  const auto append = [&](const char* text) { return parser->Append(text); };
  EXPECT_EQ(append("<think>").reasoning, "");
  EXPECT_EQ(append("Let me").reasoning, "Let me");
  EXPECT_EQ(append(" see ").reasoning, " see");  // the blank may be the last
  EXPECT_EQ(append("it").reasoning, " it");
  EXPECT_EQ(append("</thi").reasoning, "");
  EXPECT_EQ(append("s").reasoning, "</this");
  EXPECT_EQ(append("</think>\n").reasoning, "");
  EXPECT_EQ(append("\nYes").content, "Yes");
  EXPECT_EQ(append("\n<tool_call>{\"name\"").content, "");
  const ChatDelta call = append(": \"now\"}</tool_call>");
  ASSERT_EQ(call.tool_calls.size(), 1u);
  EXPECT_EQ(call.content, "");
  const ChatDelta rest = parser->Finish();
  EXPECT_EQ(rest.content, "");
  EXPECT_TRUE(rest.tool_calls.empty());
}

TEST(OutputStream, ACallInControlTokensEndsReasoningAnyOtherDoesNot) {
  const std::string kimi =
      "<|tool_calls_section_begin|><|tool_call_begin|>functions.now:0"
      "<|tool_call_argument_begin|>{}<|tool_call_end|><|tool_calls_section_end|>";
  ChatDelta all = ParsePieces(FormatOf("kimi"), "<think> so " + kimi, 3);
  EXPECT_EQ(all.reasoning, "so");
  EXPECT_EQ(all.tool_calls.size(), 1u);
  EXPECT_EQ(all.content, "");
  // A format without reasoning has no such markers.
  all = ParsePieces(FormatOf("kimi", false), "<think>x</think>", 3);
  EXPECT_EQ(all.content, "<think>x</think>");
}

TEST(OutputStream, WithoutToolsNothingIsACall) {
  for (const char* tools : {"null", "[]", "{}", "3"}) {
    const ChatDelta all =
        ParsePieces(FormatOf("hermes"), std::string("a ") + kCall, 3, "", *ParseOrderedJson(tools));
    EXPECT_EQ(all.content, std::string("a ") + kCall) << tools;
    EXPECT_TRUE(all.tool_calls.empty());
  }
}

TEST(OutputStream, AFormatThatIsNotInTheListHasNoCalls) {
  const ChatDelta all = ParsePieces(FormatOf("abacus"), std::string("<think>a</think>") + kCall, 3);
  EXPECT_EQ(all.reasoning, "a");
  EXPECT_EQ(all.content, kCall);
}

}  // namespace
}  // namespace thermocline
