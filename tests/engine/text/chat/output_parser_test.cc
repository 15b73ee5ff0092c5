// Model output read back: every format, cut into pieces anywhere, and outputs that are wrong.
#include "engine/text/chat/output_parser.h"

#include <gtest/gtest.h>

#include <ostream>

#include "engine/formats/checkpoint.h"
#include "engine/formats/json.h"
#include "engine/text/chat/tool_format.h"
#include "tests/support/golden.h"
#include "tests/support/test_name.h"

namespace thermocline {
namespace {

const nlohmann::ordered_json& Tools() {
  static const auto* const tools = new nlohmann::ordered_json(*ParseOrderedJson(R"([
    {"type": "function", "function": {"name": "weather", "parameters": {"type": "object",
      "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}}}])"));
  return *tools;
}

OutputFormat Format(const std::string& name, bool reasoning = true) {
  OutputFormat format;
  format.name = name;
  if (reasoning) {
    format.reasoning_begin = "<think>";
    format.reasoning_end = "</think>";
  }
  return format;
}

void Add(const ChatDelta& delta, ChatDelta* all) {
  all->content += delta.content;
  all->reasoning += delta.reasoning;
  for (const ToolCall& call : delta.tool_calls) all->tool_calls.push_back(call);
}

ChatDelta ParseIn(const OutputFormat& format, const std::string& text, size_t piece,
                  const std::string& prompt) {
  const auto parser = MakeOutputParser(format, Tools(), prompt);
  ChatDelta all;
  for (size_t i = 0; i < text.size(); i += piece) Add(parser->Append(text.substr(i, piece)), &all);
  Add(parser->Finish(), &all);
  return all;
}

// The result, which must be the same however the text is cut.
ChatDelta Parse(const OutputFormat& format, const std::string& text,
                const std::string& prompt = "") {
  const ChatDelta whole = ParseIn(format, text, text.size() + 1, prompt);
  for (size_t piece : {1, 2, 3, 5, 7, 11}) {
    const ChatDelta cut = ParseIn(format, text, piece, prompt);
    EXPECT_EQ(cut.content, whole.content) << piece;
    EXPECT_EQ(cut.reasoning, whole.reasoning) << piece;
    EXPECT_EQ(cut.tool_calls.size(), whole.tool_calls.size()) << piece;
  }
  return whole;
}

struct Written {
  const char* format;
  const char* text;  // two calls of weather: city Oslo and days 3, city "7" alone
};

void PrintTo(const Written& written, std::ostream* out) { *out << written.format; }

class ToolFormatTest : public testing::TestWithParam<Written> {};

TEST_P(ToolFormatTest, CallsAreReadWithContentAndReasoningAroundThem) {
  const std::string text =
      std::string("<think>\nLet me see.\n</think>\n\nI look it up.\n") + GetParam().text;
  const ChatDelta all = Parse(Format(GetParam().format), text);
  EXPECT_EQ(all.reasoning, "Let me see.");
  EXPECT_EQ(all.content, "I look it up.");
  ASSERT_EQ(all.tool_calls.size(), 2u);
  EXPECT_EQ(all.tool_calls[0].name, "weather");
  EXPECT_EQ(all.tool_calls[0].arguments, R"({"city":"Oslo","days":3})");
  EXPECT_EQ(all.tool_calls[1].arguments, R"({"city":"7"})");
}

TEST_P(ToolFormatTest, WhatIsCutOffComesOutAsItWasWritten) {
  const std::string text = GetParam().text;
  const OutputFormat format = Format(GetParam().format);
  for (size_t length = 0; length < text.size(); ++length) {
    // Whole characters only, as the engine delivers.
    if ((static_cast<unsigned char>(text[length]) & 0xC0) == 0x80) continue;
    const std::string part = text.substr(0, length);
    const ChatDelta all = ParseIn(format, part, 3, "");
    // Either still text, or a call that is complete; never a call with other arguments.
    if (all.tool_calls.empty()) {
      EXPECT_EQ(all.content, part);
    }
    for (size_t c = 0; c < all.tool_calls.size(); ++c) {
      EXPECT_EQ(all.tool_calls[c].arguments,
                c == 0 ? R"({"city":"Oslo","days":3})" : R"({"city":"7"})");
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, ToolFormatTest,
    testing::Values(
        Written{"hermes",
                "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Oslo\", "
                "\"days\": 3}}\n</tool_call>\n<tool_call>\n{\"name\": \"weather\", "
                "\"arguments\": {\"city\": \"7\"}}\n</tool_call>"},
        Written{"qwen-xml",
                "<tool_call>\n<function=weather>\n<parameter=city>\nOslo\n</parameter>\n"
                "<parameter=days>\n3\n</parameter>\n</function>\n</tool_call>\n<tool_call>\n"
                "<function=weather>\n<parameter=city>\n7\n</parameter>\n</function>\n</tool_call>"},
        Written{"glm",
                "<tool_call>weather\n<arg_key>city</arg_key>\n<arg_value>Oslo</arg_value>\n"
                "<arg_key>days</arg_key>\n<arg_value>3</arg_value>\n</tool_call>\n"
                "<tool_call>weather\n<arg_key>city</arg_key>\n<arg_value>7</arg_value>\n"
                "</tool_call>"},
        Written{
            "deepseek",
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n"
            "{\"city\": \"Oslo\", \"days\": 3}\n```<｜tool▁call▁end｜>\n"
            "<｜tool▁call▁begin｜>weather<｜tool▁sep｜>{\"city\": \"7\"}<｜tool▁call▁end｜>"
            "<｜tool▁calls▁end｜>"},
        Written{"deepseek-dsml",
                "<｜DSML｜function_calls>\n<｜DSML｜invoke name=\"weather\">\n"
                "<｜DSML｜parameter name=\"city\" string=\"true\">Oslo</｜DSML｜parameter>\n"
                "<｜DSML｜parameter name=\"days\" string=\"false\">3</｜DSML｜parameter>\n"
                "</｜DSML｜invoke>\n<｜DSML｜invoke name=\"weather\">\n"
                "<｜DSML｜parameter name=\"city\" string=\"true\">7</｜DSML｜parameter>\n"
                "</｜DSML｜invoke>\n</｜DSML｜function_calls>"},
        Written{"deepseek-v4",
                "<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"weather\">\n"
                "<｜DSML｜parameter name=\"city\" string=\"true\">Oslo</｜DSML｜parameter>\n"
                "<｜DSML｜parameter name=\"days\" string=\"false\">3</｜DSML｜parameter>\n"
                "</｜DSML｜invoke>\n<｜DSML｜invoke name=\"weather\">\n"
                "<｜DSML｜parameter name=\"city\" string=\"true\">7</｜DSML｜parameter>\n"
                "</｜DSML｜invoke>\n</｜DSML｜tool_calls>"},
        Written{"minimax",
                "<minimax:tool_call>\n<invoke name=\"weather\">\n<parameter "
                "name=\"city\">Oslo</parameter>\n<parameter name=\"days\">3</parameter>\n</invoke>"
                "\n<invoke name=\"weather\">\n<parameter name=\"city\">7</parameter>\n</invoke>\n"
                "</minimax:tool_call>"},
        Written{"kimi",
                "<|tool_calls_section_begin|><|tool_call_begin|>functions.weather:0"
                "<|tool_call_argument_begin|>{\"city\": \"Oslo\", \"days\": 3}<|tool_call_end|>"
                "<|tool_call_begin|>functions.weather:1<|tool_call_argument_begin|>{\"city\": "
                "\"7\"}<|tool_call_end|><|tool_calls_section_end|>"},
        Written{"mistral",
                "[TOOL_CALLS]weather[CALL_ID]abc123def[ARGS]{\"city\": \"Oslo\", \"days\": 3}"
                "[TOOL_CALLS]weather[ARGS]{\"city\": \"7\"}"}),
    [](const auto& info) { return TestName(info.param.format); });

TEST(OutputParser, IdsAreTheModelsOwnWhereItHasSome) {
  const ChatDelta mistral = Parse(
      Format("mistral"), R"([TOOL_CALLS][{"name": "weather", "arguments": {}, "id": "abc"}])");
  ASSERT_EQ(mistral.tool_calls.size(), 1u);
  EXPECT_EQ(mistral.tool_calls[0].id, "abc");
  const ChatDelta kimi = Parse(Format("kimi"),
                               "<|tool_calls_section_begin|><|tool_call_begin|>functions.f:3"
                               "<|tool_call_argument_begin|>{}<|tool_call_end|>"
                               "<|tool_calls_section_end|>");
  ASSERT_EQ(kimi.tool_calls.size(), 1u);
  EXPECT_EQ(kimi.tool_calls[0].id, "functions.f:3");
  EXPECT_EQ(kimi.tool_calls[0].name, "f");
}

TEST(OutputParser, WrongCallsStayContent) {
  for (const char* text :
       {"<tool_call>not json</tool_call> after", "<tool_call>{\"name\": 3}</tool_call>",
        "<tool_call>{\"name\": \"f\", \"arguments\": [1]}</tool_call>", "<tool_call>",
        "a <tool_call> b", "<tool_call></tool_call>", "</tool_call>", "x < y <to <tool_cal"}) {
    const ChatDelta all = Parse(Format("hermes"), text);
    EXPECT_EQ(all.content, text);
    EXPECT_TRUE(all.tool_calls.empty());
  }
}

TEST(OutputParser, ReasoningMayBeOpenFromThePromptOnAndNeverEnd) {
  const std::string prompt = "<|im_start|>assistant\n<think>\n";
  ChatDelta all = Parse(Format("hermes"), "hmm\n</think>\n\nyes", prompt);
  EXPECT_EQ(all.reasoning, "hmm");
  EXPECT_EQ(all.content, "yes");
  all = Parse(Format("hermes"), "hmm <think> still", prompt);
  EXPECT_EQ(all.reasoning, "hmm <think> still");
  EXPECT_EQ(all.content, "");
}

TEST(OutputParser, SchemasOfAnyShapeAreSurvived) {
  for (const char* schema : {R"({"properties": []})", R"({"properties": {"x": 3}})", R"([])",
                             R"({"properties": {"": {"type": ["string", "null"]}}})"}) {
    const auto tools = ParseOrderedJson(
        std::string(R"([{"type": "function", "function": {"name": "f", "parameters": )") + schema +
        "}}, 3]");
    ASSERT_TRUE(tools.ok());
    const auto parser = MakeOutputParser(Format("qwen-xml"), *tools, "");
    ChatDelta all;
    Add(parser->Append("<tool_call>\n<function=f>\n<parameter=>\nTrue\n</parameter>\n<parameter="
                       "99999999999999999999>\n2\n</parameter>\n</function>\n</tool_call>"),
        &all);
    ASSERT_EQ(all.tool_calls.size(), 1u) << schema;
    const bool text = std::string(schema).find("string") != std::string::npos;
    EXPECT_EQ(all.tool_calls[0].arguments, std::string(R"({"":)") + (text ? "\"True\"" : "true") +
                                               R"(,"99999999999999999999":2})");
  }
}

TEST(OutputParser, WithoutToolsAnExampleOfACallIsText) {
  const std::string text = "<think>so</think>Like <tool_call>{\"name\": \"f\"}</tool_call>";
  const auto parser = MakeOutputParser(Format("hermes"), nullptr, "");
  ChatDelta all;
  Add(parser->Append(text), &all);
  Add(parser->Finish(), &all);
  EXPECT_EQ(all.reasoning, "so");
  EXPECT_EQ(all.content, "Like <tool_call>{\"name\": \"f\"}</tool_call>");
}

TEST(OutputParser, ReasoningInsideContentLeavesOneOfTheSpaces) {
  EXPECT_EQ(Parse(Format("hermes"), "\n<think>\nx</think>\n\ny").reasoning, "x");
  EXPECT_EQ(Parse(Format("hermes"), "\n<think>\nx</think>\n\ny").content, "y");
  EXPECT_EQ(Parse(Format("hermes"), "A. <think>x</think> B").content, "A. B");
  EXPECT_EQ(Parse(Format("hermes"), "A. <think>x</think>B").content, "A. B");
  EXPECT_EQ(Parse(Format("hermes"), "A.<think>x</think>\nB").content, "A.\nB");
}

TEST(OutputParser, ACallInControlTokensEndsReasoning) {
  const ChatDelta all =
      Parse(Format("kimi"),
            "<think>Look<|tool_calls_section_begin|><|tool_call_begin|>functions.weather:0"
            "<|tool_call_argument_begin|>{}<|tool_call_end|><|tool_calls_section_end|>");
  EXPECT_EQ(all.reasoning, "Look");
  EXPECT_EQ(all.tool_calls.size(), 1u);
}

TEST(OutputParser, FencesInsideArgumentsStay) {
  const ChatDelta all =
      Parse(Format("deepseek"),
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n"
            "```json\n{\"city\": \"```x```\"}\n```<｜tool▁call▁end｜>"
            "<｜tool▁calls▁end｜>");
  ASSERT_EQ(all.tool_calls.size(), 1u);
  EXPECT_EQ(all.tool_calls[0].arguments, R"({"city":"```x```"})");
}

TEST(OutputParser, PlainOutputIsLeftAlone) {
  const std::string text = "  <think>x</think> <tool_call>{}</tool_call>\n ";
  EXPECT_EQ(Parse(Format("plain", false), text).content, text);
}

TEST(OutputParser, StreamsWhatIsCertainAtOnce) {
  const auto parser = MakeOutputParser(Format("hermes"), Tools(), "");
  EXPECT_EQ(parser->Append("Hello").content, "Hello");
  EXPECT_EQ(parser->Append(" wor").content, " wor");
  EXPECT_EQ(parser->Append("ld <to").content, "ld");
  EXPECT_EQ(parser->Append("ast>").content, " <toast>");
}

TEST(Harmony, ChannelsAreReasoningContentAndCalls) {
  const OutputFormat format = Format("harmony", false);
  ChatDelta all = Parse(format,
                        "<|channel|>analysis<|message|>Think.<|end|><|start|>assistant"
                        "<|channel|>commentary to=functions.weather <|constrain|>json<|message|>"
                        "{\"city\": \"Oslo\"}<|call|>");
  EXPECT_EQ(all.reasoning, "Think.");
  EXPECT_EQ(all.content, "");
  ASSERT_EQ(all.tool_calls.size(), 1u);
  EXPECT_EQ(all.tool_calls[0].name, "weather");
  EXPECT_EQ(all.tool_calls[0].arguments, "{\"city\": \"Oslo\"}");
  // The recipient may come before the channel; the token that ends the call is not in the text.
  all = Parse(format, "<|start|>assistant to=functions.f<|channel|>commentary json<|message|>{}");
  ASSERT_EQ(all.tool_calls.size(), 1u);
  EXPECT_EQ(all.tool_calls[0].name, "f");
  all = Parse(format, "<|channel|>final<|message|>Four.<|return|>");
  EXPECT_EQ(all.content, "Four.");
}

TEST(Harmony, NothingIsLostWhenTheModelErrs) {
  const OutputFormat format = Format("harmony", false);
  EXPECT_EQ(Parse(format, "Just text.").content, "Just text.");
  const std::string unended = "<|channel|>final and no message";
  EXPECT_EQ(Parse(format, unended).content, unended);
  const std::string wrong = "<|channel|>commentary to=functions.f<|message|>not json<|call|>";
  EXPECT_EQ(Parse(format, wrong).content, wrong);
  EXPECT_EQ(Parse(format, "<|channel|>final<|message|>cut o").content, "cut o");
}

TEST(DetectOutputFormat, KnowsPublishedTemplates) {
  const std::string folder = GoldenPath("templates");
  const std::pair<const char*, const char*> expected[] = {
      {"Qwen-Qwen3-0.6B", "hermes"},
      {"Qwen3.5-4B", "qwen-xml"},
      {"GLM-4.7-Flash", "glm"},
      {"Kimi-K2-Thinking", "kimi"},
      {"deepseek-ai-DeepSeek-R1-Distill-Qwen-32B", "deepseek"},
      {"deepseek-ai-DeepSeek-V3.2", "deepseek-dsml"},
      {"deepseek-ai-DeepSeek-V4", "deepseek-v4"},
      {"Qwen-Qwen2.5-7B-Instruct", "hermes"},
      {"SmolLM2-135M-Instruct", "plain"}};
  for (const auto& [name, format] : expected) {
    const auto source = ReadWholeFile(folder + "/" + name + ".jinja", 1 << 20);
    ASSERT_TRUE(source.ok()) << source.status();
    EXPECT_EQ(DetectOutputFormat(*source).name, format) << name;
  }
  EXPECT_TRUE(DetectOutputFormat("{{ '<|channel|>' }}").needs_special_tokens);
  EXPECT_EQ(DetectOutputFormat("x [TOOL_CALLS] y").name, "mistral");
  EXPECT_EQ(DetectOutputFormat("<minimax:tool_call>").name, "minimax");
  const auto hermes = [](const char* special) {
    return DetectOutputFormat("<tool_call> </think>",
                              [=](absl::string_view marker) { return marker == special; })
        .needs_special_tokens;
  };
  EXPECT_TRUE(hermes("<tool_call>"));
  EXPECT_TRUE(hermes("</think>"));
  EXPECT_FALSE(hermes("<other>"));
}

}  // namespace
}  // namespace thermocline
