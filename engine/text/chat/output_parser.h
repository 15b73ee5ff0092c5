// OutputParser: what a model writes, read back into content, reasoning and tool calls.
//
// A stream goes in piece by piece and comes out as soon as it is certain what it is. Nothing the
// model wrote is lost: what looks like a call but is none, or is cut off, comes out as content. A
// call comes out whole, once its end is there.
#ifndef THERMOCLINE_ENGINE_TEXT_CHAT_OUTPUT_PARSER_H_
#define THERMOCLINE_ENGINE_TEXT_CHAT_OUTPUT_PARSER_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"

namespace thermocline {

struct ToolCall {
  std::string id;  // as the model wrote it; "" when its format has none
  std::string name;
  std::string arguments;  // a JSON object, as text
};

struct ChatDelta {
  std::string content;
  std::string reasoning;
  std::vector<ToolCall> tool_calls;
};

class OutputParser {
 public:
  virtual ~OutputParser() = default;

  // `text` is valid UTF-8 as a whole; pieces end at characters.
  virtual ChatDelta Append(absl::string_view text) = 0;
  // The end of the output: what was held back.
  virtual ChatDelta Finish() = 0;
};

// How a model writes reasoning and calls, found out from its chat template.
struct OutputFormat {
  std::string name;  // "hermes", "harmony", ...; "plain" when the template shows none
  std::string reasoning_begin, reasoning_end;  // empty: no reasoning
  // The markers are control tokens: the engine must not hide those from the parser.
  bool needs_special_tokens = false;
};
// `is_special` says whether the tokenizer knows a marker as a control token.
OutputFormat DetectOutputFormat(absl::string_view chat_template,
                                const std::function<bool(absl::string_view)>& is_special = {});

// `tools` is the list given to the template, for the types of arguments; null or empty: no calls
// are looked for (but in the channels of harmony).
// `prompt` is
// the rendered conversation: one that ends with the beginning of reasoning leaves it open.
std::unique_ptr<OutputParser> MakeOutputParser(const OutputFormat& format,
                                               const nlohmann::ordered_json& tools,
                                               absl::string_view prompt);

}  // namespace thermocline

#endif  // THERMOCLINE_ENGINE_TEXT_CHAT_OUTPUT_PARSER_H_
