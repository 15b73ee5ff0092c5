// ChatTemplate: a model's Jinja template, compiled once and rendered per conversation.
#ifndef THERMOCLINE_ENGINE_TEXT_TEMPLATE_CHAT_TEMPLATE_H_
#define THERMOCLINE_ENGINE_TEXT_TEMPLATE_CHAT_TEMPLATE_H_

#include <map>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/text/template/ast.h"
#include "engine/text/template/interpreter.h"
#include "nlohmann/json_fwd.hpp"

namespace thermocline {

class Tokenizer;

// Const after creation; any thread.
class ChatTemplate {
 public:
  // INVALID_ARGUMENT with the line of a syntax error.
  static absl::StatusOr<std::unique_ptr<ChatTemplate>> Create(absl::string_view source);

  // `inputs` is a JSON object: messages, tools, add_generation_prompt and whatever arguments the
  // template knows. `special` gives bos_token, eos_token and the like. Rendered as transformers
  // does it, inside `budget`.
  absl::StatusOr<std::string> Render(const nlohmann::ordered_json& inputs,
                                     const std::map<std::string, std::string>& special,
                                     jinja::Budget budget = {}) const;

 private:
  jinja::Body body_;
};

// bos_token, eos_token, pad_token and unk_token as a template sees them. Without a tokenizer: <s>,
// </s>, <pad>, <unk>.
std::map<std::string, std::string> SpecialTokenTexts(const Tokenizer* tokenizer);

}  // namespace thermocline

#endif  // THERMOCLINE_ENGINE_TEXT_TEMPLATE_CHAT_TEMPLATE_H_
