// ToolFormat: how one family of models writes tool calls.
//
// To add one: a parse function in engine/text/chat/tool_formats.cc and a line in its list.
#ifndef THERMOCLINE_ENGINE_TEXT_CHAT_TOOL_FORMAT_H_
#define THERMOCLINE_ENGINE_TEXT_CHAT_TOOL_FORMAT_H_

#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "engine/text/chat/output_parser.h"

namespace thermocline {

struct ToolFormat {
  absl::string_view name;
  absl::string_view mark;   // a chat template that holds it uses the format
  absl::string_view start;  // begins a section of calls
  absl::string_view end;    // ends it; empty: the end of the output does
  bool special_tokens;      // start and end are control tokens
  bool shows_its_end;       // a section that the output's end cut off can be told from a whole one
  // Reads a section without start and end. False: it is none.
  bool (*parse)(absl::string_view section, const nlohmann::ordered_json& tools,
                std::vector<ToolCall>* calls);
};

// In order of detection: a template may hold the marks of more general formats too.
absl::Span<const ToolFormat> ToolFormats();

}  // namespace thermocline

#endif  // THERMOCLINE_ENGINE_TEXT_CHAT_TOOL_FORMAT_H_
