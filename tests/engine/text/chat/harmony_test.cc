// gpt-oss's channels, message by message and piece by piece.
#include <gtest/gtest.h>

#include "tests/support/parse_output.h"

namespace thermocline {
namespace {

struct Said {
  std::string text, reasoning, content, calls;
};

void ExpectSaid(const std::vector<Said>& cases) {
  for (const Said& c : cases) {
    for (size_t piece : {size_t{1}, size_t{7}, c.text.size() + 1}) {
      const ChatDelta all = ParsePieces(FormatOf("harmony", false), c.text, piece);
      EXPECT_EQ(all.reasoning, c.reasoning) << c.text;
      EXPECT_EQ(all.content, c.content) << c.text;
      EXPECT_EQ(CallsText(all), c.calls) << c.text;
    }
  }
}

std::string In(const std::string& channel, const std::string& body, const std::string& end) {
  return "<|channel|>" + channel + "<|message|>" + body + end;
}

TEST(Harmony, AChannelSaysWhatAMessageIs) {
  ExpectSaid(
      {{In("analysis", " a ", "<|end|>"), " a ", "", ""},
       {In("final", " b ", "<|return|>"), "", " b ", ""},
       {In("commentary", "c", "<|end|>"), "", "c", ""},
       {In("commentary to=functions.now ", "{}", "<|call|>"), "", "", "now{}"},
       {In("commentary to=functions.now", R"({"a": 1})", "<|call|>"), "", "", R"(now{"a": 1})"},
       // A recipient makes a call in any channel.
       {In("analysis to=functions.now ", "{}", "<|call|>"), "", "", "now{}"},
       {In("other", "d", "<|end|>"), "", "d", ""},
       {"<|message|>e<|end|>", "", "e", ""},
       {"f", "", "f", ""}});
}

TEST(Harmony, MessagesFollowOneAnother) {
  const std::string start = "<|start|>assistant";
  ExpectSaid(
      {{In("analysis", "a", "<|end|>") + start + In("final", "b", "<|return|>"), "a", "b", ""},
       {In("analysis", "a", "<|end|>") + start + In("analysis", "b", "<|end|>") + start +
            In("commentary to=functions.now <|constrain|>json", "{}", "<|call|>"),
        "ab", "", "now{}"},
       // Without an end, the next beginning is one.
       {In("analysis", "a", "") + start + In("final", "b", ""), "a", "b", ""},
       {start + " to=functions.now<|channel|>commentary<|message|>{}<|call|>" + start +
            In("commentary to=functions.weather", R"({"city": "x"})", "<|call|>"),
        "", "", R"(now{}weather{"city": "x"})"}});
}

TEST(Harmony, ANameEndsAtWhiteSpaceOrTheNextToken) {
  for (const char* behind : {" ", "\t", "\r", "\n", "<|constrain|>", ""}) {
    ExpectSaid({{In(std::string("commentary to=functions.now") + behind, "{}", "<|call|>"), "", "",
                 "now{}"}});
  }
}

TEST(Harmony, WhatIsNoCallComesOutAsWritten) {
  for (const char* body : {"", "junk", "[1]", "3", "{"}) {
    for (const char* end : {"<|call|>", "<|end|>", ""}) {
      const std::string text = In("commentary to=functions.now", body, end);
      ExpectSaid({{text, "", text, ""}});
    }
  }
  ExpectSaid({{"<|channel|>analysis<|end|>x", "", "<|channel|>analysis<|end|>x", ""},
              {"<|channel|>final", "", "<|channel|>final", ""},
              {"<|start|>assistant<|chan", "", "<|start|>assistant<|chan", ""},
              {"<|start|>user", "", "<|start|>user", ""}});
}

TEST(Harmony, TheHeadOfAMessageThatNeverCameIsMarkup) {
  ExpectSaid({{In("final", "a", "<|end|>") + "<|start|>assistant", "", "a", ""},
              {"<|start|>assistant", "", "", ""}});
}

TEST(Harmony, CutOffBodiesAreWhatTheyWere) {
  ExpectSaid({{In("analysis", "a <|en", ""), "a <|en", "", ""},
              {In("final", "a <|", ""), "", "a <|", ""},
              {In("commentary to=functions.now", "{} ", ""), "", "", "now{} "}});
}

TEST(Harmony, StreamsContentAndReasoningAtOnce) {
  const auto parser = MakeOutputParser(FormatOf("harmony", false), WeatherTools(), "");
  EXPECT_EQ(parser->Append("<|channel|>analysis<|message|>one").reasoning, "one");
  EXPECT_EQ(parser->Append(" two<|e").reasoning, " two");
  EXPECT_EQ(parser->Append("nd|><|start|>assistant<|channel|>fin").reasoning, "");
  EXPECT_EQ(parser->Append("al<|message|>three").content, "three");
  EXPECT_EQ(parser->Finish().content, "");
}

}  // namespace
}  // namespace thermocline
