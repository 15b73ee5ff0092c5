#include "server/grpc/template_inputs.h"

#include "absl/strings/str_cat.h"
#include "engine/formats/json.h"

namespace thermocline {
namespace {

using nlohmann::ordered_json;

constexpr size_t kMaxMessages = 4096;
constexpr size_t kMaxTools = 1024;
constexpr size_t kMaxTemplateArgumentBytes = size_t{256}
                                             << 10;    // keys are looked up one after another
constexpr size_t kMaxToolJsonBytes = size_t{1} << 20;  // of a schema, of a call's arguments

absl::StatusOr<ordered_json> ParseObject(const std::string& field, const std::string& text,
                                         size_t max_bytes) {
  if (text.size() > max_bytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        field, " has ", text.size(), " bytes, but at most ", max_bytes, " are allowed"));
  }
  absl::StatusOr<ordered_json> json = ParseOrderedJson(text);
  if (json.ok() && json->is_object()) return json;
  return absl::InvalidArgumentError(absl::StrCat(field, " is not a JSON object"));
}

absl::StatusOr<ordered_json> ToJson(const v1::ChatMessage& message) {
  if (message.role().empty()) return absl::InvalidArgumentError("a message has no role");
  ordered_json json = {{"role", message.role()}, {"content", message.content()}};
  if (message.has_reasoning_content()) json["reasoning_content"] = message.reasoning_content();
  if (message.has_tool_call_id()) json["tool_call_id"] = message.tool_call_id();
  if (message.has_name()) json["name"] = message.name();
  for (const v1::ToolCall& call : message.tool_calls()) {
    absl::StatusOr<ordered_json> arguments = ParseObject(
        "tool_calls.arguments_json", call.arguments_json().empty() ? "{}" : call.arguments_json(),
        kMaxToolJsonBytes);
    if (!arguments.ok()) return arguments.status();
    if (call.name().empty()) return absl::InvalidArgumentError("a tool call has no name");
    json["tool_calls"].push_back(
        {{"id", call.id()},
         {"type", "function"},
         {"function", {{"name", call.name()}, {"arguments", *std::move(arguments)}}}});
  }
  return json;
}

}  // namespace

absl::StatusOr<ordered_json> ToToolList(const Tools& tools) {
  if (static_cast<size_t>(tools.size()) > kMaxTools) {
    return absl::InvalidArgumentError(
        absl::StrCat(tools.size(), " tools, but at most ", kMaxTools, " are allowed"));
  }
  ordered_json list = ordered_json::array();
  for (const v1::Tool& tool : tools) {
    if (tool.name().empty()) return absl::InvalidArgumentError("a tool has no name");
    ordered_json function = {{"name", tool.name()}};
    if (tool.has_description()) function["description"] = tool.description();
    if (tool.has_parameters_json()) {
      absl::StatusOr<ordered_json> parameters =
          ParseObject("tools.parameters_json", tool.parameters_json(), kMaxToolJsonBytes);
      if (!parameters.ok()) return parameters.status();
      function["parameters"] = *std::move(parameters);
    }
    list.push_back({{"type", "function"}, {"function", std::move(function)}});
  }
  return list;
}

absl::StatusOr<ordered_json> ToTemplateInputs(const ChatMessages& messages, const Tools& tools,
                                              const std::string& arguments_json) {
  if (messages.empty() || static_cast<size_t>(messages.size()) > kMaxMessages) {
    return absl::InvalidArgumentError(
        absl::StrCat(messages.size(), " messages, but 1 to ", kMaxMessages, " are allowed"));
  }
  absl::StatusOr<ordered_json> inputs =
      ParseObject("template_arguments_json", arguments_json.empty() ? "{}" : arguments_json,
                  kMaxTemplateArgumentBytes);
  if (!inputs.ok()) return inputs.status();
  ordered_json list = ordered_json::array();
  for (const v1::ChatMessage& message : messages) {
    absl::StatusOr<ordered_json> json = ToJson(message);
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
