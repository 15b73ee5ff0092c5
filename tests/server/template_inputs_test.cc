// Chat requests as the JSON that templates see.
#include "server/grpc/template_inputs.h"

#include <gtest/gtest.h>

#include "engine/formats/checkpoint.h"
#include "engine/text/template/chat_template.h"
#include "tests/support/golden.h"

namespace thermocline {
namespace {

v1::ChatRequest WeatherRequest() {
  v1::ChatRequest request;
  request.add_messages()->set_role("user");
  request.mutable_messages(0)->set_content("Oslo?");
  v1::ChatMessage* answer = request.add_messages();
  answer->set_role("assistant");
  answer->set_reasoning_content("hm");
  v1::ToolCall* call = answer->add_tool_calls();
  call->set_id("call_1");
  call->set_name("weather");
  call->set_arguments_json(R"({"city": "Oslo", "days": 3})");
  v1::ChatMessage* result = request.add_messages();
  result->set_role("tool");
  result->set_content("rain");
  result->set_tool_call_id("call_1");
  v1::Tool* tool = request.add_tools();
  tool->set_name("weather");
  tool->set_description("Of a city");
  tool->set_parameters_json(R"({"type": "object", "properties": {"city": {"type": "string"}}})");
  return request;
}

TEST(ToTemplateInputs, MessagesToolsAndCallsComeInTheFormOfTemplates) {
  const v1::ChatRequest request = WeatherRequest();
  const auto inputs =
      ToTemplateInputs(request.messages(), request.tools(), R"({"enable_thinking": false})");
  ASSERT_TRUE(inputs.ok()) << inputs.status();
  const auto chat = ChatTemplate::Create(
      "{% for t in tools %}{{ t | tojson }}\n{% endfor %}{% for m in messages %}{{ m.role }}"
      "{% if m.reasoning_content %} ({{ m.reasoning_content }}){% endif %}: {{ m.content }}"
      "{% for c in m.tool_calls or [] %}{{ c.function.name }}{{ c.function.arguments | tojson }}"
      "{% endfor %}{% if m.tool_call_id %} <- {{ m.tool_call_id }}{% endif %} | {% endfor %}"
      "{{ enable_thinking }}");
  ASSERT_TRUE(chat.ok()) << chat.status();
  const auto text = (*chat)->Render(*inputs, {});
  ASSERT_TRUE(text.ok()) << text.status();
  EXPECT_EQ(*text,
            R"({"type": "function", "function": {"name": "weather", "description": "Of a city", )"
            R"("parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}})"
            "\nuser: Oslo? | assistant (hm): weather{\"city\": \"Oslo\", \"days\": 3} | "
            "tool: rain <- call_1 | False");
}

TEST(ToTemplateInputs, ErrorsNameTheField) {
  const auto expect = [](const v1::ChatRequest& request, const std::string& arguments,
                         const char* part) {
    const auto inputs = ToTemplateInputs(request.messages(), request.tools(), arguments);
    ASSERT_FALSE(inputs.ok());
    EXPECT_EQ(inputs.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_NE(inputs.status().message().find(part), std::string::npos) << inputs.status();
  };
  expect(v1::ChatRequest(), "", "0 messages");
  expect(WeatherRequest(), "[1]", "template_arguments_json");
  expect(WeatherRequest(), std::string(300 << 10, ' ') + "{}", "template_arguments_json has");
  v1::ChatRequest request = WeatherRequest();
  request.mutable_messages(0)->clear_role();
  expect(request, "", "no role");
  request = WeatherRequest();
  request.mutable_messages(1)->mutable_tool_calls(0)->set_arguments_json("3");
  expect(request, "", "tool_calls.arguments_json");
  request = WeatherRequest();
  request.mutable_messages(1)->mutable_tool_calls(0)->clear_name();
  expect(request, "", "a tool call has no name");
  request = WeatherRequest();
  request.mutable_tools(0)->clear_name();
  expect(request, "", "a tool has no name");
  request = WeatherRequest();
  request.mutable_tools(0)->set_parameters_json("\"x\"");
  expect(request, "", "tools.parameters_json");
  request = WeatherRequest();
  for (int i = 0; i < 1100; ++i) request.add_tools()->set_name("f");
  expect(request, "", "1101 tools");
  request = WeatherRequest();
  std::string many = R"({"0": 0)";
  for (int i = 1; i < 2000; ++i) many += ", \"" + std::to_string(i) + "\": 0";
  request.mutable_tools(0)->set_parameters_json(many + "}");
  expect(request, "", "more than 1024 keys");
  request = WeatherRequest();
  for (int i = 0; i < 5; ++i)
    request.add_tools()->set_parameters_json(std::string(1 << 20, ' ') + "{}");
  expect(request, "", "tools.parameters_json and tool_calls.arguments_json has");
}

std::string StyleOf(const char* source) {
  const auto chat = ChatTemplate::Create(source);
  EXPECT_TRUE(chat.ok()) << chat.status();
  const CallStyle style = FindCallStyle(**chat, {});
  return std::string(style.null_content ? "null" : "text") +
         (style.string_arguments ? " string" : " object");
}

TEST(FindCallStyle, IsTheOneInWhichTheTemplateShowsCalls) {
  const std::string calls =
      "{% for c in m.tool_calls or [] %}{{ c.function.name }} ARGS{% endfor %}{% endfor %}";
  const auto with = [&](const std::string& content, const std::string& arguments) {
    std::string source = "{% for m in messages %}" + content + calls;
    source.replace(source.find("ARGS"), 4, "{{ " + arguments + " }}");
    return StyleOf(source.c_str());
  };
  EXPECT_EQ(with("{{ m.content or '' }}", "c.function.arguments | tojson"), "null object");
  EXPECT_EQ(with("{{ m.content or '' }}", "'' + c.function.arguments"), "null string");
  EXPECT_EQ(with("{{ m.content }}", "c.function.arguments | tojson"), "text object");
  EXPECT_EQ(with("{{ '' + m.content }}", "c.function.arguments"), "text string");
  EXPECT_EQ(StyleOf("{% for m in messages %}{{ m.content }}{% endfor %}"), "text object");
}

TEST(FindCallStyle, KnowsPublishedTemplates) {
  const std::string folder = GoldenPath("templates");
  const std::pair<const char*, const char*> expected[] = {{"Qwen-Qwen3-0.6B", "text object"},
                                                          {"tokenizer_deepseek_v3", "null string"}};
  for (const auto& [name, style] : expected) {
    const auto source = ReadWholeFile(folder + "/" + name + ".jinja", 1 << 20);
    ASSERT_TRUE(source.ok()) << source.status();
    EXPECT_EQ(StyleOf(source->c_str()), style) << name;
  }
}

}  // namespace
}  // namespace thermocline
