// Reads whole outputs of models, for tests.
#ifndef THERMOCLINE_TESTS_SUPPORT_PARSE_OUTPUT_H_
#define THERMOCLINE_TESTS_SUPPORT_PARSE_OUTPUT_H_

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "engine/formats/json.h"
#include "engine/text/chat/output_parser.h"

namespace thermocline {

// "weather" with a text, a whole number and something of two types; "now" without parameters.
inline const nlohmann::ordered_json& WeatherTools() {
  static const auto* const tools = new nlohmann::ordered_json(*ParseOrderedJson(R"([
    {"type": "function", "function": {"name": "weather", "parameters": {"type": "object",
      "properties": {"city": {"type": "string"}, "days": {"type": "integer"},
                     "either": {"type": ["integer", "string"]}}}}},
    {"type": "function", "function": {"name": "now", "parameters": {"type": "object"}}}])"));
  return *tools;
}

inline OutputFormat FormatOf(const std::string& name, bool reasoning = true) {
  OutputFormat format;
  format.name = name;
  if (reasoning) {
    format.reasoning_begin = "<think>";
    format.reasoning_end = "</think>";
  }
  return format;
}

inline void AddDelta(const ChatDelta& delta, ChatDelta* all) {
  all->content += delta.content;
  all->reasoning += delta.reasoning;
  for (const ToolCall& call : delta.tool_calls) all->tool_calls.push_back(call);
}

// In pieces of so many bytes.
inline ChatDelta ParsePieces(const OutputFormat& format, const std::string& text, size_t piece,
                             const std::string& prompt = "",
                             const nlohmann::ordered_json& tools = WeatherTools()) {
  const auto parser = MakeOutputParser(format, tools, prompt);
  ChatDelta all;
  for (size_t i = 0; i < text.size(); i += piece)
    AddDelta(parser->Append(text.substr(i, piece)), &all);
  AddDelta(parser->Finish(), &all);
  return all;
}

// "name{arguments}name{arguments}" with "#id" in front where there is one.
inline std::string CallsText(const ChatDelta& delta) {
  std::string text;
  for (const ToolCall& call : delta.tool_calls) {
    if (!call.id.empty()) text += "#" + call.id + " ";
    text += call.name + call.arguments;
  }
  return text;
}

struct OutputCase {
  const char* format;
  std::string text;
  std::string calls;  // as CallsText
  std::string content;
};

// The same whether the text comes whole or byte by byte.
inline void ExpectOutputs(const std::vector<OutputCase>& cases) {
  for (const OutputCase& c : cases) {
    for (size_t piece : {size_t{1}, size_t{5}, c.text.size() + 1}) {
      const ChatDelta all = ParsePieces(FormatOf(c.format), c.text, piece);
      EXPECT_EQ(CallsText(all), c.calls) << c.format << ": " << c.text;
      EXPECT_EQ(all.content, c.content) << c.format << ": " << c.text;
      EXPECT_EQ(all.reasoning, "") << c.format << ": " << c.text;
    }
  }
}

}  // namespace thermocline

#endif  // THERMOCLINE_TESTS_SUPPORT_PARSE_OUTPUT_H_
