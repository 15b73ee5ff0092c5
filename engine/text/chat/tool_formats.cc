#include <algorithm>
#include <array>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "engine/formats/json.h"
#include "engine/text/chat/tool_format.h"

namespace thermocline {
namespace {

using nlohmann::ordered_json;

std::string Dump(const ordered_json& json) {
  return json.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

// Takes what lies before `mark` off the front of `text`, the mark too. False when there is none.
bool TakeUntil(absl::string_view mark, absl::string_view* text, absl::string_view* before) {
  const size_t at = text->find(mark);
  if (at == absl::string_view::npos) return false;
  *before = text->substr(0, at);
  text->remove_prefix(at + mark.size());
  return true;
}

absl::string_view Strip(absl::string_view text) { return absl::StripAsciiWhitespace(text); }

bool AddCall(absl::string_view id, absl::string_view name, const ordered_json& arguments,
             std::vector<ToolCall>* calls) {
  const bool proper = !name.empty() && std::none_of(name.begin(), name.end(), absl::ascii_isspace);
  if (!proper || !arguments.is_object()) return false;
  calls->push_back({std::string(id), std::string(name), Dump(arguments)});
  return true;
}

// Arguments given as JSON text.
bool AddJsonCall(absl::string_view id, absl::string_view name, absl::string_view text,
                 std::vector<ToolCall>* calls) {
  absl::StatusOr<ordered_json> arguments = ParseOrderedJson(Strip(text));
  return arguments.ok() && AddCall(id, name, *arguments, calls);
}

// {"name": ..., "arguments": {...}}
bool AddObject(const ordered_json& call, std::vector<ToolCall>* calls) {
  if (!call.is_object()) return false;
  const auto name = call.find("name");
  auto arguments = call.find("arguments");
  if (arguments == call.end()) arguments = call.find("parameters");
  if (name == call.end() || !name->is_string()) return false;
  const auto id = call.find("id");
  const std::string id_text = id != call.end() && id->is_string() ? id->get<std::string>() : "";
  if (arguments == call.end())
    return AddCall(id_text, name->get<std::string>(), ordered_json::object(), calls);
  if (arguments->is_string()) {
    return AddJsonCall(id_text, name->get<std::string>(), arguments->get<std::string>(), calls);
  }
  return AddCall(id_text, name->get<std::string>(), *arguments, calls);
}

// Whether the tool's schema says that the parameter is a string, as its type or among its types;
// unknown counts as not.
bool IsString(const ordered_json& tools, absl::string_view tool, absl::string_view parameter) {
  const auto member = [](const ordered_json& object, absl::string_view key) -> const ordered_json& {
    static const auto* const none = new ordered_json();
    if (!object.is_object()) return *none;
    const auto it = object.find(key);
    return it == object.end() ? *none : *it;
  };
  if (!tools.is_array()) return false;
  for (const ordered_json& entry : tools) {
    const ordered_json& wrapped = member(entry, "function");
    const ordered_json& function = wrapped.is_null() ? entry : wrapped;
    if (member(function, "name") != std::string(tool)) continue;
    const ordered_json& properties = member(member(function, "parameters"), "properties");
    const ordered_json& type = member(member(properties, parameter), "type");
    return type == "string" ||
           (type.is_array() && std::find(type.begin(), type.end(), "string") != type.end());
  }
  return false;
}

// A value written as text: a string where the schema says so, else JSON or one of Python's literals
// (templates write those) where it is some.
ordered_json ValueOf(const ordered_json& tools, absl::string_view tool, absl::string_view parameter,
                     absl::string_view text) {
  if (IsString(tools, tool, parameter)) return std::string(text);
  const absl::string_view value = Strip(text);
  if (value == "True" || value == "False") return value == "True";
  if (value == "None") return nullptr;
  absl::StatusOr<ordered_json> json = ParseOrderedJson(value);
  return json.ok() ? *std::move(json) : ordered_json(std::string(text));
}

// One line end on either side belongs to the markup.
absl::string_view WithoutLineEnds(absl::string_view text) {
  if (absl::StartsWith(text, "\n")) text.remove_prefix(1);
  if (absl::EndsWith(text, "\n")) text.remove_suffix(1);
  return text;
}

// Hermes, Qwen 2.5 and 3: one JSON object.
bool ParseHermes(absl::string_view section, const ordered_json&, std::vector<ToolCall>* calls) {
  absl::StatusOr<ordered_json> json = ParseOrderedJson(Strip(section));
  if (!json.ok()) return false;
  if (!json->is_array()) return AddObject(*json, calls);
  for (const ordered_json& call : *json) {
    if (!AddObject(call, calls)) return false;
  }
  return !json->empty();
}

// Qwen3-Coder: <function=NAME> <parameter=NAME> value </parameter> ... </function>
bool ParseQwenXml(absl::string_view section, const ordered_json& tools,
                  std::vector<ToolCall>* calls) {
  absl::string_view rest = Strip(section), name, body;
  if (!absl::ConsumePrefix(&rest, "<function=") || !TakeUntil(">", &rest, &name) ||
      !TakeUntil("</function>", &rest, &body)) {
    return false;
  }
  ordered_json arguments = ordered_json::object();
  body = Strip(body);
  while (!body.empty()) {
    absl::string_view parameter, value;
    if (!absl::ConsumePrefix(&body, "<parameter=") || !TakeUntil(">", &body, &parameter) ||
        !TakeUntil("</parameter>", &body, &value)) {
      return false;
    }
    arguments[std::string(parameter)] = ValueOf(tools, name, parameter, WithoutLineEnds(value));
    body = absl::StripLeadingAsciiWhitespace(body);
  }
  return Strip(rest).empty() && AddCall("", name, arguments, calls);
}

// GLM 4.5: NAME <arg_key>k</arg_key> <arg_value>v</arg_value> ...
bool ParseGlm(absl::string_view section, const ordered_json& tools, std::vector<ToolCall>* calls) {
  const size_t first = section.find("<arg_key>");
  const absl::string_view name = Strip(section.substr(0, first));
  if (absl::StrContains(name, "\n") || absl::StrContains(name, "<")) return false;
  absl::string_view rest = first == absl::string_view::npos ? "" : Strip(section.substr(first));
  ordered_json arguments = ordered_json::object();
  while (!rest.empty()) {
    absl::string_view key, between, value;
    if (!absl::ConsumePrefix(&rest, "<arg_key>") || !TakeUntil("</arg_key>", &rest, &key) ||
        !TakeUntil("<arg_value>", &rest, &between) || !Strip(between).empty() ||
        !TakeUntil("</arg_value>", &rest, &value)) {
      return false;
    }
    arguments[std::string(Strip(key))] = ValueOf(tools, name, Strip(key), value);
    rest = absl::StripLeadingAsciiWhitespace(rest);
  }
  return AddCall("", name, arguments, calls);
}

// DeepSeek R1 and V3: function<sep>NAME ```json {...} ```; V3.1: NAME<sep>{...}
bool ParseDeepseek(absl::string_view section, const ordered_json&, std::vector<ToolCall>* calls) {
  absl::string_view rest = Strip(section);
  while (!rest.empty()) {
    absl::string_view head, body;
    if (!absl::ConsumePrefix(&rest, "<｜tool▁call▁begin｜>") ||
        !TakeUntil("<｜tool▁sep｜>", &rest, &head) ||
        !TakeUntil("<｜tool▁call▁end｜>", &rest, &body)) {
      return false;
    }
    absl::string_view name = Strip(head), arguments = body;
    if (name == "function" && absl::StrContains(body, "```json")) {
      absl::string_view fenced = body;
      if (!TakeUntil("```json", &fenced, &name)) return false;
      // The arguments may hold fences of their own.
      const size_t end = fenced.rfind("```");
      if (end == absl::string_view::npos) return false;
      arguments = fenced.substr(0, end);
      name = Strip(name);
    }
    if (!AddJsonCall("", name, arguments, calls)) return false;
    rest = absl::StripLeadingAsciiWhitespace(rest);
  }
  return !calls->empty();
}

// The value of attribute `key` in the rest of a tag, ` name="x" string="true"`.
bool Attribute(absl::string_view tag, absl::string_view key, absl::string_view* value) {
  absl::string_view rest = tag, before;
  return TakeUntil(absl::StrCat(key, "=\""), &rest, &before) && TakeUntil("\"", &rest, value);
}

// <invoke name="NAME"> <parameter name="NAME"> value </parameter> ... </invoke>; MiniMax-M2, and
// DeepSeek V3.2 and V4 with a prefix to the names of tags and an attribute that marks strings.
bool ParseInvokes(absl::string_view section, absl::string_view prefix, const ordered_json& tools,
                  std::vector<ToolCall>* calls) {
  const auto open = [&](const char* tag) { return absl::StrCat("<", prefix, tag); };
  const auto close = [&](const char* tag) { return absl::StrCat("</", prefix, tag, ">"); };
  absl::string_view rest = Strip(section);
  while (!rest.empty()) {
    absl::string_view tag, body, name;
    if (!absl::ConsumePrefix(&rest, open("invoke")) || !TakeUntil(">", &rest, &tag) ||
        !Attribute(tag, "name", &name) || !TakeUntil(close("invoke"), &rest, &body)) {
      return false;
    }
    ordered_json arguments = ordered_json::object();
    body = Strip(body);
    while (!body.empty()) {
      absl::string_view parameter, value, is_string;
      if (!absl::ConsumePrefix(&body, open("parameter")) || !TakeUntil(">", &body, &tag) ||
          !Attribute(tag, "name", &parameter) || !TakeUntil(close("parameter"), &body, &value)) {
        return false;
      }
      const bool text = Attribute(tag, "string", &is_string) && is_string == "true";
      arguments[std::string(parameter)] =
          text ? ordered_json(std::string(value))
               : ValueOf(tools, name, parameter, WithoutLineEnds(value));
      body = absl::StripLeadingAsciiWhitespace(body);
    }
    if (!AddCall("", name, arguments, calls)) return false;
    rest = absl::StripLeadingAsciiWhitespace(rest);
  }
  return !calls->empty();
}

bool ParseMinimax(absl::string_view section, const ordered_json& tools,
                  std::vector<ToolCall>* calls) {
  return ParseInvokes(section, "", tools, calls);
}

bool ParseDsml(absl::string_view section, const ordered_json& tools, std::vector<ToolCall>* calls) {
  return ParseInvokes(section, "｜DSML｜", tools, calls);
}

// Kimi K2: <|tool_call_begin|>functions.NAME:0<|tool_call_argument_begin|>{...}<|tool_call_end|>
bool ParseKimi(absl::string_view section, const ordered_json&, std::vector<ToolCall>* calls) {
  absl::string_view rest = Strip(section);
  while (!rest.empty()) {
    absl::string_view id, arguments;
    if (!absl::ConsumePrefix(&rest, "<|tool_call_begin|>") ||
        !TakeUntil("<|tool_call_argument_begin|>", &rest, &id) ||
        !TakeUntil("<|tool_call_end|>", &rest, &arguments)) {
      return false;
    }
    id = Strip(id);
    absl::string_view name = id;
    absl::ConsumePrefix(&name, "functions.");
    name = name.substr(0, name.rfind(':'));
    if (!AddJsonCall(id, name, arguments, calls)) return false;
    rest = absl::StripLeadingAsciiWhitespace(rest);
  }
  return !calls->empty();
}

// Mistral: a JSON list, or NAME[CALL_ID]id[ARGS]{...}, the start repeated before each further call.
bool ParseMistral(absl::string_view section, const ordered_json& tools,
                  std::vector<ToolCall>* calls) {
  absl::string_view rest = Strip(section);
  if (absl::StartsWith(rest, "[")) return ParseHermes(rest, tools, calls);
  while (!rest.empty()) {
    const size_t next = rest.find("[TOOL_CALLS]");
    absl::string_view call = rest.substr(0, next), head, id;
    rest = next == absl::string_view::npos ? "" : rest.substr(next + sizeof("[TOOL_CALLS]") - 1);
    if (!TakeUntil("[ARGS]", &call, &head)) return false;
    absl::string_view name = head;
    if (TakeUntil("[CALL_ID]", &head, &name)) id = Strip(head);
    if (!AddJsonCall(id, Strip(name), call, calls)) return false;
  }
  return !calls->empty();
}

constexpr ToolFormat kFormats[] = {
    {"deepseek-v4", "'tool_calls>", "<｜DSML｜tool_calls>", "</｜DSML｜tool_calls>", false, true,
     &ParseDsml},
    {"deepseek-dsml", "｜DSML｜", "<｜DSML｜function_calls>", "</｜DSML｜function_calls>", false,
     true, &ParseDsml},
    {"deepseek", "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", true,
     true, &ParseDeepseek},
    {"kimi", "<|tool_calls_section_begin|>", "<|tool_calls_section_begin|>",
     "<|tool_calls_section_end|>", true, true, &ParseKimi},
    {"minimax", "<minimax:tool_call>", "<minimax:tool_call>", "</minimax:tool_call>", false, true,
     &ParseMinimax},
    {"glm", "<arg_key>", "<tool_call>", "</tool_call>", false, false, &ParseGlm},
    {"qwen-xml", "<function=", "<tool_call>", "</tool_call>", false, true, &ParseQwenXml},
    {"mistral", "[TOOL_CALLS]", "[TOOL_CALLS]", "", true, true, &ParseMistral},
    {"hermes", "<tool_call>", "<tool_call>", "</tool_call>", false, true, &ParseHermes},
};

}  // namespace

absl::Span<const ToolFormat> ToolFormats() { return kFormats; }

}  // namespace thermocline
