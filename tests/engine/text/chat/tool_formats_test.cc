// How each family writes calls, and what is no call: that comes out as it was written.
#include "engine/text/chat/tool_format.h"

#include <gtest/gtest.h>

#include "tests/support/parse_output.h"

namespace thermocline {
namespace {

// Cases whose text is content.
void ExpectNoCalls(const char* format, const std::vector<std::string>& texts) {
  std::vector<OutputCase> cases;
  for (const std::string& text : texts) cases.push_back({format, text, "", text});
  ExpectOutputs(cases);
}

std::string Hermes(const std::string& inside) { return "<tool_call>" + inside + "</tool_call>"; }

TEST(Hermes, ACallIsAnObjectWithANameAndPerhapsArguments) {
  ExpectOutputs({
      {"hermes", Hermes(R"({"name": "now"})"), "now{}", ""},
      {"hermes", Hermes(R"( {"name": "f", "arguments": {"b": 1, "a": [2]}} )"),
       R"(f{"b":1,"a":[2]})", ""},
      {"hermes", Hermes(R"({"name": "f", "parameters": {"a": 1}})"), R"(f{"a":1})", ""},
      // The first of the two names of the arguments counts.
      {"hermes", Hermes(R"({"name": "f", "parameters": {"a": 1}, "arguments": {"a": 2}})"),
       R"(f{"a":2})", ""},
      // Arguments may be JSON in a text.
      {"hermes", Hermes(R"({"name": "f", "arguments": "{\"a\": 1}"})"), R"(f{"a":1})", ""},
      {"hermes", Hermes(R"({"name": "f", "arguments": {}, "id": "x"})"), "#x f{}", ""},
      {"hermes", Hermes(R"({"name": "f", "arguments": {}, "id": 3})"), "f{}", ""},
      {"hermes", Hermes(R"([{"name": "f"}, {"name": "g", "arguments": {"a": 1}}])"),
       R"(f{}g{"a":1})", ""},
  });
  ExpectNoCalls("hermes",
                {Hermes(R"({"name": ""})"), Hermes(R"({"name": "a b"})"), Hermes(R"({"name": 3})"),
                 Hermes(R"({"arguments": {}})"), Hermes(R"({"name": "f", "arguments": [1]})"),
                 Hermes(R"({"name": "f", "arguments": 3})"),
                 Hermes(R"({"name": "f", "arguments": "not json"})"),
                 Hermes(R"({"name": "f", "arguments": "[1]"})"), Hermes("[]"), Hermes("3"),
                 Hermes(R"([{"name": "f"}, 3])"), Hermes("{")});
}

std::string Qwen(const std::string& inside) {
  return "<tool_call>\n<function=weather>\n" + inside + "</function>\n</tool_call>";
}
std::string Parameter(const std::string& name, const std::string& value) {
  return "<parameter=" + name + ">" + value + "</parameter>\n";
}

// One line end on either side of a value belongs to the markup, further ones to the value.
TEST(QwenXml, OneLineEndOnEitherSideIsMarkup) {
  ExpectOutputs({
      {"qwen-xml", Qwen(Parameter("city", "\nOslo\n")), R"(weather{"city":"Oslo"})", ""},
      {"qwen-xml", Qwen(Parameter("city", "Oslo")), R"(weather{"city":"Oslo"})", ""},
      {"qwen-xml", Qwen(Parameter("city", "\n\nOslo\n")), R"(weather{"city":"\nOslo"})", ""},
      {"qwen-xml", Qwen(Parameter("city", "\nOslo\n\n")), R"(weather{"city":"Oslo\n"})", ""},
      {"qwen-xml", Qwen(Parameter("city", "\n\n\nOslo\n\n\n")), R"(weather{"city":"\n\nOslo\n\n"})",
       ""},
      {"qwen-xml", Qwen(Parameter("city", "\n  Oslo \n")), R"(weather{"city":"  Oslo "})", ""},
      {"qwen-xml", Qwen(Parameter("city", "\n\n")), R"(weather{"city":""})", ""},
      {"qwen-xml", Qwen(Parameter("city", "\n")), R"(weather{"city":""})", ""},
      {"qwen-xml", Qwen(Parameter("city", "")), R"(weather{"city":""})", ""},
  });
}

TEST(QwenXml, TheSchemaTellsTextsFromOtherValues) {
  ExpectOutputs({
      {"qwen-xml", Qwen(Parameter("city", "7") + Parameter("days", "7")),
       R"(weather{"city":"7","days":7})", ""},
      {"qwen-xml", Qwen(Parameter("city", "true")), R"(weather{"city":"true"})", ""},
      {"qwen-xml", Qwen(Parameter("days", " 7 ")), R"(weather{"days":7})", ""},
      {"qwen-xml", Qwen(Parameter("days", "many")), R"(weather{"days":"many"})", ""},
      {"qwen-xml", Qwen(Parameter("either", "7")), R"(weather{"either":"7"})", ""},
      // What the schema does not know is JSON where it is some, or one of Python's literals.
      {"qwen-xml", Qwen(Parameter("x", "[1, \"a\"]")), R"(weather{"x":[1,"a"]})", ""},
      {"qwen-xml",
       Qwen(Parameter("x", "True") + Parameter("y", " False ") + Parameter("z", "None")),
       R"(weather{"x":true,"y":false,"z":null})", ""},
      {"qwen-xml", Qwen(Parameter("x", "\ntrue\n")), R"(weather{"x":true})", ""},
      {"qwen-xml", Qwen(Parameter("x", " plain text ")), R"(weather{"x":" plain text "})", ""},
      {"qwen-xml", Qwen(""), "weather{}", ""},
  });
}

TEST(QwenXml, WhatIsNotWrittenSoIsNoCall) {
  ExpectNoCalls(
      "qwen-xml",
      {"<tool_call>\n<function=weather\n</tool_call>", "<tool_call>weather</tool_call>",
       Qwen("text"), Qwen("<parameter=city Oslo"),
       "<tool_call><function=a b></function></tool_call>",
       "<tool_call><function=weather></function>junk</tool_call>", "<tool_call></tool_call>"});
}

std::string Glm(const std::string& inside) { return "<tool_call>" + inside + "</tool_call>"; }
std::string Argument(const std::string& key, const std::string& value) {
  return "<arg_key>" + key + "</arg_key>\n<arg_value>" + value + "</arg_value>\n";
}

TEST(Glm, KeysAreStrippedAndValuesAreNot) {
  ExpectOutputs({
      {"glm", Glm("now"), "now{}", ""},
      {"glm", Glm("\n weather \n" + Argument(" city ", " Oslo\n")), R"(weather{"city":" Oslo\n"})",
       ""},
      {"glm",
       Glm("weather\n" + Argument("city", "7") + Argument("days", "7") + Argument("x", "{}")),
       R"(weather{"city":"7","days":7,"x":{}})", ""},
      {"glm", Glm("weather<arg_key>x</arg_key><arg_value>None</arg_value>"), R"(weather{"x":null})",
       ""},
  });
  ExpectNoCalls("glm", {Glm("two\nlines" + Argument("a", "1")), Glm("<b" + Argument("a", "1")),
                        Glm("weather<arg_key>a</arg_key>junk<arg_value>1</arg_value>"),
                        Glm("weather<arg_key>a</arg_key>"), Glm("weather<arg_key>a"),
                        Glm("weather" + Argument("a", "1") + "junk"), Glm("two words")});
}

std::string Deepseek(const std::string& inside) {
  return "<｜tool▁calls▁begin｜>" + inside + "<｜tool▁calls▁end｜>";
}
std::string DeepseekCall(const std::string& head, const std::string& body) {
  return "<｜tool▁call▁begin｜>" + head + "<｜tool▁sep｜>" + body + "<｜tool▁call▁end｜>";
}

TEST(Deepseek, TheNameComesBeforeTheJsonOrBehindTheWordFunction) {
  ExpectOutputs({
      {"deepseek", Deepseek(DeepseekCall("f", R"({"a": 1})")), R"(f{"a":1})", ""},
      {"deepseek", Deepseek(DeepseekCall("function", "f\n```json\n{\"a\": 1}\n```")), R"(f{"a":1})",
       ""},
      {"deepseek", Deepseek(DeepseekCall(" f ", "{}") + "\n" + DeepseekCall("g", " {} ")), "f{}g{}",
       ""},
      // The last fence closes.
      {"deepseek", Deepseek(DeepseekCall("function", "f\n```json\n{\"a\": \"```\"}\n```")),
       R"(f{"a":"```"})", ""},
      // A function may have that name.
      {"deepseek", Deepseek(DeepseekCall("function", R"({"a": 1})")), R"(function{"a":1})", ""},
  });
  ExpectNoCalls("deepseek",
                {Deepseek(""), Deepseek("junk"), Deepseek(DeepseekCall("f", "junk")),
                 Deepseek(DeepseekCall("f", "[]")), Deepseek(DeepseekCall("", R"({"a": 1})")),
                 Deepseek(DeepseekCall("f", "{}") + "junk"),
                 Deepseek(DeepseekCall("function", "f\n```json\n{}")),
                 Deepseek("<｜tool▁call▁begin｜>f{}<｜tool▁call▁end｜>")});
}

std::string Dsml(const std::string& inside) {
  return "<｜DSML｜function_calls>\n" + inside + "</｜DSML｜function_calls>";
}
std::string Invoke(const std::string& attributes, const std::string& inside) {
  return "<｜DSML｜invoke" + attributes + ">\n" + inside + "</｜DSML｜invoke>\n";
}
std::string DsmlParameter(const std::string& attributes, const std::string& value) {
  return "<｜DSML｜parameter" + attributes + ">" + value + "</｜DSML｜parameter>\n";
}

TEST(Dsml, AnAttributeTellsTextsWhichAreKeptAsTheyAre) {
  const std::string weather = " name=\"weather\"";
  ExpectOutputs({
      {"deepseek-dsml",
       Dsml(Invoke(weather, DsmlParameter(" name=\"x\" string=\"true\"", "\n7\n"))),
       R"(weather{"x":"\n7\n"})", ""},
      {"deepseek-dsml", Dsml(Invoke(weather, DsmlParameter(" name=\"x\" string=\"false\"", "7"))),
       R"(weather{"x":7})", ""},
      {"deepseek-dsml", Dsml(Invoke(weather, DsmlParameter(" name=\"city\"", "7"))),
       R"(weather{"city":"7"})", ""},
      {"deepseek-dsml",
       Dsml(Invoke(weather, DsmlParameter(" string=\"true\" name=\"x\"", "a")) +
            Invoke(" name=\"now\"", "")),
       R"(weather{"x":"a"}now{})", ""},
  });
  ExpectNoCalls("deepseek-dsml",
                {Dsml(""), Dsml("junk"), Dsml(Invoke("", "")), Dsml(Invoke(" name=\"f", "")),
                 Dsml(Invoke(weather, "junk")), Dsml(Invoke(weather, DsmlParameter("", "7"))),
                 Dsml(Invoke(weather, "") + "junk"), Dsml(Invoke(" name=\"\"", ""))});
}

TEST(Minimax, InvocationsWithoutPrefix) {
  const auto section = [](const std::string& inside) {
    return "<minimax:tool_call>\n" + inside + "</minimax:tool_call>";
  };
  ExpectOutputs({
      {"minimax",
       section(
           "<invoke name=\"weather\">\n<parameter name=\"city\">7</parameter>\n"
           "<parameter name=\"days\">7</parameter>\n</invoke>\n<invoke name=\"now\"></invoke>\n"),
       R"(weather{"city":"7","days":7}now{})", ""},
  });
  ExpectNoCalls("minimax", {section(""), section("<invoke name=\"weather\">junk</invoke>")});
}

TEST(Kimi, TheIdCarriesTheName) {
  const auto section = [](const std::string& inside) {
    return "<|tool_calls_section_begin|>" + inside + "<|tool_calls_section_end|>";
  };
  const auto call = [](const std::string& id, const std::string& arguments) {
    return "<|tool_call_begin|>" + id + "<|tool_call_argument_begin|>" + arguments +
           "<|tool_call_end|>";
  };
  ExpectOutputs({
      {"kimi", section(call("functions.weather:0", R"({"a": 1})")),
       R"(#functions.weather:0 weather{"a":1})", ""},
      {"kimi", section(call(" functions.now:7 ", " {} ") + "\n" + call("functions.now:8", "{}")),
       "#functions.now:7 now{}#functions.now:8 now{}", ""},
  });
  ExpectNoCalls("kimi", {section("junk"), section(call("functions.now:0", "junk")),
                         section(call("functions.now:0", "{}") + "junk"),
                         section("<|tool_call_begin|>functions.now:0{}<|tool_call_end|>")});
}

TEST(Mistral, AListOrNamesWithArguments) {
  ExpectOutputs({
      {"mistral", R"([TOOL_CALLS][{"name": "f", "arguments": {"a": 1}, "id": "x"}])",
       R"(#x f{"a":1})", ""},
      {"mistral", R"([TOOL_CALLS]f[ARGS]{"a": 1})", R"(f{"a":1})", ""},
      {"mistral", R"([TOOL_CALLS] f [CALL_ID] y [ARGS] {"a": 1} )", R"(#y f{"a":1})", ""},
      {"mistral", R"([TOOL_CALLS]f[ARGS]{}[TOOL_CALLS]g[CALL_ID]z[ARGS]{"b": 2})",
       R"(f{}#z g{"b":2})", ""},
      {"mistral", R"(Say. [TOOL_CALLS]f[ARGS]{})", "f{}", "Say."},
  });
  ExpectNoCalls("mistral", {"[TOOL_CALLS]", "[TOOL_CALLS]f[ARGS]junk", "[TOOL_CALLS][3]",
                            "[TOOL_CALLS]a b[ARGS]{}", "[TOOL_CALLS]f[ARGS]{}[TOOL_CALLS]g"});
}

// A section that the output's end cut off is a call where it shows that it is whole.
TEST(ToolFormats, WithoutTheEndMarkerACallIsOneOnlyIfItShowsItsEnd) {
  ExpectOutputs({
      {"hermes", R"(<tool_call>{"name": "f"})", "f{}", ""},
      {"hermes", R"(a <tool_call>{"name": "f")", "", R"(a <tool_call>{"name": "f")"},
      {"qwen-xml", "<tool_call><function=f></function>", "f{}", ""},
      {"minimax", "<minimax:tool_call><invoke name=\"f\"></invoke>", "f{}", ""},
      {"kimi",
       "<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{}"
       "<|tool_call_end|>",
       "#functions.f:0 f{}", ""},
      {"deepseek", "<｜tool▁calls▁begin｜>" + DeepseekCall("f", "{}"), "f{}", ""},
      {"deepseek-dsml", "<｜DSML｜function_calls>" + Invoke(" name=\"f\"", ""), "f{}", ""},
      // A name alone may go on.
      {"glm", "<tool_call>weather", "", "<tool_call>weather"},
      {"glm", "<tool_call>weather" + Argument("a", "1"), "",
       "<tool_call>weather" + Argument("a", "1")},
  });
}

TEST(ToolFormats, TheListIsInOrderOfDetection) {
  const std::pair<std::string, const char*> marks[] = {{"'tool_calls>", "deepseek-v4"},
                                                       {"｜DSML｜", "deepseek-dsml"},
                                                       {"<｜tool▁calls▁begin｜>", "deepseek"},
                                                       {"<|tool_calls_section_begin|>", "kimi"},
                                                       {"<minimax:tool_call>", "minimax"},
                                                       {"<arg_key>", "glm"},
                                                       {"<function=", "qwen-xml"},
                                                       {"[TOOL_CALLS]", "mistral"},
                                                       {"<tool_call>", "hermes"}};
  ASSERT_EQ(ToolFormats().size(), std::size(marks));
  for (size_t i = 0; i < std::size(marks); ++i) {
    EXPECT_EQ(DetectOutputFormat(marks[i].first).name, marks[i].second);
    // With the marks of all that come later.
    std::string all;
    for (size_t k = i; k < std::size(marks); ++k) all = marks[k].first + " " + all;
    EXPECT_EQ(DetectOutputFormat(all).name, marks[i].second);
    const bool special = std::string(marks[i].second) == "deepseek" ||
                         std::string(marks[i].second) == "kimi" ||
                         std::string(marks[i].second) == "mistral";
    EXPECT_EQ(DetectOutputFormat(marks[i].first).needs_special_tokens, special) << marks[i].second;
  }
}

TEST(DetectOutputFormat, ReasoningIsFoundByItsEnd) {
  const auto check = [](const char* source, const char* begin, const char* end, bool special) {
    const OutputFormat format = DetectOutputFormat(source);
    EXPECT_EQ(format.reasoning_begin, begin) << source;
    EXPECT_EQ(format.reasoning_end, end) << source;
    EXPECT_EQ(format.needs_special_tokens, special) << source;
  };
  check("x", "", "", false);
  check("<think>", "", "", false);
  check("</think>", "<think>", "</think>", false);
  check("[/THINK]", "[THINK]", "[/THINK]", true);
  check("</think>[/THINK]", "<think>", "</think>", false);
  check("<|channel|></think>", "", "", true);
  EXPECT_EQ(DetectOutputFormat("x").name, "plain");
  EXPECT_EQ(DetectOutputFormat("<|channel|><tool_call>").name, "harmony");
  const auto all_special = [](absl::string_view) { return true; };
  EXPECT_FALSE(DetectOutputFormat("x", all_special).needs_special_tokens);
  EXPECT_TRUE(DetectOutputFormat("</think>", all_special).needs_special_tokens);
  EXPECT_TRUE(DetectOutputFormat("<tool_call>", all_special).needs_special_tokens);
  const auto none_special = [](absl::string_view) { return false; };
  EXPECT_TRUE(DetectOutputFormat("[TOOL_CALLS]", none_special).needs_special_tokens);
  EXPECT_FALSE(DetectOutputFormat("<tool_call></think>", none_special).needs_special_tokens);
}

}  // namespace
}  // namespace thermocline
