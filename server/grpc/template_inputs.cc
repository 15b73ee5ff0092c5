#include "server/grpc/template_inputs.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/formats/json.h"
#include "engine/text/template/chat_template.h"

namespace thermocline {
namespace {

using nlohmann::ordered_json;

constexpr size_t kMaxMessages = 4096;
constexpr size_t kMaxTools = 1024;
constexpr size_t kMaxTemplateArgumentBytes = size_t{256} << 10;
constexpr size_t kMaxToolJsonBytes = size_t{4} << 20;  // of all schemas and all calls' arguments

absl::Status CheckBytes(absl::string_view fields, size_t bytes, size_t max_bytes) {
  if (bytes <= max_bytes) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(fields, " has ", bytes, " bytes, but at most ", max_bytes, " are allowed"));
}

absl::StatusOr<ordered_json> ParseObject(const std::string& field, const std::string& text) {
  absl::StatusOr<ordered_json> json = ParseOrderedJson(text);
  if (json.ok() && json->is_object()) return json;
  return absl::InvalidArgumentError(
      absl::StrCat(field, " is not a JSON object",
                   json.ok() ? "" : absl::StrCat(": ", json.status().message())));
}

absl::StatusOr<ordered_json> ToJson(const v1::ChatMessage& message, CallStyle style) {
  if (message.role().empty()) return absl::InvalidArgumentError("a message has no role");
  ordered_json json = {{"role", message.role()}, {"content", message.content()}};
  const bool calls_alone = message.content().empty() && !message.tool_calls().empty();
  if (calls_alone && style.null_content) json["content"] = nullptr;
  if (message.has_reasoning_content()) {
    json["reasoning_content"] = message.reasoning_content();
    // gpt-oss's name for it, which its template refuses beside content.
    if (calls_alone) json["thinking"] = message.reasoning_content();
  }
  if (message.has_tool_call_id()) json["tool_call_id"] = message.tool_call_id();
  if (message.has_name()) json["name"] = message.name();
  for (const v1::ToolCall& call : message.tool_calls()) {
    const std::string text = call.arguments_json().empty() ? "{}" : call.arguments_json();
    absl::StatusOr<ordered_json> arguments = ParseObject("tool_calls.arguments_json", text);
    if (!arguments.ok()) return arguments.status();
    if (style.string_arguments) *arguments = text;
    if (call.name().empty()) return absl::InvalidArgumentError("a tool call has no name");
    json["tool_calls"].push_back(
        {{"id", call.id()},
         {"type", "function"},
         {"function", {{"name", call.name()}, {"arguments", *std::move(arguments)}}}});
  }
  return json;
}

// In OpenAI's form, [{"type": "function", "function": {...}}].
absl::StatusOr<ordered_json> ToToolList(const Tools& tools) {
  if (static_cast<size_t>(tools.size()) > kMaxTools) {
    return absl::InvalidArgumentError(
        absl::StrCat(tools.size(), " tools, but at most ", kMaxTools, " are allowed"));
  }
  ordered_json list = ordered_json::array();
  for (const v1::Tool& tool : tools) {
    if (tool.name().empty()) return absl::InvalidArgumentError("a tool has no name");
    // Some templates take it for granted that there is a description.
    ordered_json function = {{"name", tool.name()}, {"description", tool.description()}};
    if (tool.has_parameters_json()) {
      absl::StatusOr<ordered_json> parameters =
          ParseObject("tools.parameters_json", tool.parameters_json());
      if (!parameters.ok()) return parameters.status();
      function["parameters"] = *std::move(parameters);
    }
    list.push_back({{"type", "function"}, {"function", std::move(function)}});
  }
  return list;
}

}  // namespace

CallStyle FindCallStyle(const ChatTemplate& chat_template,
                        const std::map<std::string, std::string>& special) {
  v1::ChatRequest request;
  const auto add = [&](const char* role, const char* content) {
    v1::ChatMessage* message = request.add_messages();
    message->set_role(role);
    message->set_content(content);
    return message;
  };
  add("user", "x");
  v1::ToolCall* call = add("assistant", "")->add_tool_calls();
  call->set_id("abcdefghi");
  call->set_name("probe_name");
  call->set_arguments_json(R"({"probe_key": "probe_value"})");
  v1::ChatMessage* result = add("tool", "y");
  result->set_tool_call_id("abcdefghi");
  result->set_name("probe_name");
  request.add_tools()->set_name("other");
  request.mutable_tools(0)->set_parameters_json(R"({"type": "object", "properties": {}})");
  const auto render = [&](CallStyle style) -> std::string {
    absl::StatusOr<ordered_json> inputs =
        ToTemplateInputs(request.messages(), request.tools(), "", style);
    if (!inputs.ok()) return "";
    (*inputs)["add_generation_prompt"] = true;
    const absl::StatusOr<std::string> text = chat_template.Render(*inputs, special);
    return text.ok() ? *text : "";
  };
  for (bool null_content : {true, false}) {
    for (bool string_arguments : {false, true}) {
      const std::string text = render({null_content, string_arguments});
      const bool shows_call = absl::StrContains(text, "probe_name") &&
                              absl::StrContains(text, "probe_key") &&
                              absl::StrContains(text, "probe_value");
      // Python's spelling of an object, JSON text made JSON again, and null printed as such.
      const bool garbled = absl::StrContains(text, "'probe_key'") ||
                           absl::StrContains(text, R"(\"probe_key)") ||
                           (null_content && absl::StrContains(text, "None"));
      if (shows_call && !garbled) return {null_content, string_arguments};
    }
  }
  return {};
}

absl::StatusOr<ordered_json> ToTemplateInputs(const ChatMessages& messages, const Tools& tools,
                                              const std::string& arguments_json, CallStyle style) {
  if (messages.empty() || static_cast<size_t>(messages.size()) > kMaxMessages) {
    return absl::InvalidArgumentError(
        absl::StrCat(messages.size(), " messages, but 1 to ", kMaxMessages, " are allowed"));
  }
  size_t tool_bytes = 0;
  for (const v1::Tool& tool : tools) tool_bytes += tool.parameters_json().size();
  for (const v1::ChatMessage& message : messages) {
    for (const v1::ToolCall& call : message.tool_calls())
      tool_bytes += call.arguments_json().size();
  }
  absl::Status fits = CheckBytes("tools.parameters_json and tool_calls.arguments_json", tool_bytes,
                                 kMaxToolJsonBytes);
  fits.Update(
      CheckBytes("template_arguments_json", arguments_json.size(), kMaxTemplateArgumentBytes));
  if (!fits.ok()) return fits;
  absl::StatusOr<ordered_json> inputs =
      ParseObject("template_arguments_json", arguments_json.empty() ? "{}" : arguments_json);
  if (!inputs.ok()) return inputs.status();
  ordered_json list = ordered_json::array();
  for (const v1::ChatMessage& message : messages) {
    absl::StatusOr<ordered_json> json = ToJson(message, style);
    if (!json.ok()) return json.status();
    list.push_back(*std::move(json));
  }
  (*inputs)["messages"] = std::move(list);
  absl::StatusOr<ordered_json> tool_list = ToToolList(tools);
  if (!tool_list.ok()) return tool_list.status();
  if (!tool_list->empty()) (*inputs)["tools"] = *std::move(tool_list);
  return inputs;
}

}  // namespace thermocline
