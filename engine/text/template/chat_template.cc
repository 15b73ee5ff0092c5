#include "engine/text/template/chat_template.h"

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "engine/text/template/parser.h"
#include "engine/text/tokenizer/tokenizer.h"

namespace thermocline {

static constexpr size_t kMaxTemplateBytes = size_t{1} << 20;

absl::StatusOr<std::unique_ptr<ChatTemplate>> ChatTemplate::Create(absl::string_view source) {
  if (source.size() > kMaxTemplateBytes) {
    return absl::InvalidArgumentError(absl::StrCat("a chat template of ", source.size(),
                                                   " bytes, but at most ", kMaxTemplateBytes,
                                                   " are allowed"));
  }
  absl::StatusOr<jinja::Body> body = jinja::Parse(source);
  if (!body.ok()) return body.status();
  auto chat_template = std::make_unique<ChatTemplate>();
  chat_template->body_ = *std::move(body);
  return chat_template;
}

absl::StatusOr<std::string> ChatTemplate::Render(const nlohmann::ordered_json& inputs,
                                                 const std::map<std::string, std::string>& special,
                                                 jinja::Budget budget) const {
  if (!inputs.is_object())
    return absl::InvalidArgumentError("template inputs must be a JSON object");
  std::map<std::string, jinja::Value> globals = jinja::BuiltinGlobals();
  for (const auto& [name, text] : special) globals[name] = jinja::Value(text);
  globals["tools"] = globals["documents"] = jinja::Value(jinja::Value::None{});
  for (const auto& [name, value] : inputs.items()) globals[name] = jinja::Value::FromJson(value);
  return jinja::Interpreter(budget, std::move(globals)).Render(body_);
}

std::map<std::string, std::string> SpecialTokenTexts(const Tokenizer* tokenizer) {
  if (tokenizer == nullptr) {
    return {{"bos_token", "<s>"},
            {"eos_token", "</s>"},
            {"pad_token", "<pad>"},
            {"unk_token", "<unk>"}};
  }
  std::map<std::string, std::string> texts;
  const SpecialTokens& special = tokenizer->special();
  for (const auto& [name, id] :
       {std::pair{"bos_token", special.bos}, std::pair{"eos_token", special.eos},
        std::pair{"pad_token", special.pad}, std::pair{"unk_token", special.unk}}) {
    if (id >= 0) texts[name] = tokenizer->TokenBytes(id, /*with_special=*/true);
  }
  return texts;
}

}  // namespace thermocline
