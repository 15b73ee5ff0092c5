// A tokenizer from tokenizer.json and tokenizer_config.json. Source: the serialisation of Hugging
// Face tokenizers.
#include <filesystem>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "engine/formats/json.h"
#include "engine/tokenizer/bpe_tokenizer.h"

namespace thermocline {
namespace {

using nlohmann::json;

constexpr int64_t kMaxTokenizerBytes = int64_t{256} << 20;
constexpr int64_t kMaxVocab = 1 << 24;

absl::StatusOr<json> ReadJsonFile(const std::string& path) {
  absl::StatusOr<std::string> text = ReadWholeFile(path, kMaxTokenizerBytes);
  if (!text.ok()) return text.status();
  absl::StatusOr<json> parsed = ParseJson(*text);
  if (!parsed.ok())
    return absl::InvalidArgumentError(absl::StrCat("\"", path, "\": ", parsed.status().message()));
  return parsed;
}

// The member of an object, or null.
const json& At(const json& object, const char* key) {
  static const json* const null = new json();
  if (!object.is_object()) return *null;
  const auto it = object.find(key);
  return it == object.end() ? *null : *it;
}

std::string TextOr(const json& value, absl::string_view fallback) {
  return value.is_string() ? value.get<std::string>() : std::string(fallback);
}

bool FlagOr(const json& value, bool fallback) {
  return value.is_boolean() ? value.get<bool>() : fallback;
}

absl::Status Unsupported(absl::string_view what, const json& value) {
  return absl::UnimplementedError(
      absl::StrCat("tokenizer.json: ", what, " ", value.dump(), " is not supported"));
}

absl::Status ReadNormalizer(const json& normalizer, BpeOptions* options) {
  if (normalizer.is_null()) return absl::OkStatus();
  const std::string type = TextOr(At(normalizer, "type"), "");
  if (type == "NFC") {
    options->nfc = true;
    return absl::OkStatus();
  }
  if (type == "Sequence" && At(normalizer, "normalizers").is_array()) {
    for (const json& step : At(normalizer, "normalizers")) {
      if (absl::Status s = ReadNormalizer(step, options); !s.ok()) return s;
    }
    return absl::OkStatus();
  }
  return Unsupported("normalizer", normalizer);
}

absl::Status ReadSplit(const json& split, BpeOptions* options) {
  const json& pattern = At(split, "pattern");
  SplitRule rule;
  if (At(pattern, "Regex").is_string()) {
    rule.pattern = At(pattern, "Regex").get<std::string>();
  } else if (At(pattern, "String").is_string()) {
    const std::string text = At(pattern, "String").get<std::string>();
    rule.pattern = absl::StrCat("\\Q", absl::StrReplaceAll(text, {{"\\E", "\\E\\\\E\\Q"}}), "\\E");
  } else {
    return Unsupported("pattern", pattern);
  }
  const std::string behavior = TextOr(At(split, "behavior"), "Isolated");
  const bool invert = FlagOr(At(split, "invert"), false);
  // Inverted and removed: what does not match is dropped. Patterns of this kind match everything.
  if (behavior == "Removed" && !invert) {
    rule.removed = true;
  } else if (behavior != "Isolated" && !(behavior == "Removed" && invert)) {
    return Unsupported("split behavior", At(split, "behavior"));
  }
  options->split_rules.push_back(std::move(rule));
  return absl::OkStatus();
}

absl::Status ReadPreTokenizer(const json& pre, BpeOptions* options) {
  if (pre.is_null()) return absl::OkStatus();
  const std::string type = TextOr(At(pre, "type"), "");
  if (type == "Sequence" && At(pre, "pretokenizers").is_array()) {
    for (const json& step : At(pre, "pretokenizers")) {
      if (absl::Status s = ReadPreTokenizer(step, options); !s.ok()) return s;
    }
    return absl::OkStatus();
  }
  if (type == "Split") return ReadSplit(pre, options);
  if (type == "Digits") {
    options->split_rules.push_back(
        {FlagOr(At(pre, "individual_digits"), false) ? R"(\p{N})" : R"(\p{N}+)", false});
    return absl::OkStatus();
  }
  if (type == "ByteLevel" && !FlagOr(At(pre, "add_prefix_space"), false)) {
    if (FlagOr(At(pre, "use_regex"), true)) options->split_rules.push_back({kGpt2Pattern, false});
    return absl::OkStatus();
  }
  return Unsupported("pre_tokenizer", pre);
}

absl::Status ReadModel(const json& model, BpeOptions* options) {
  const std::string type = TextOr(At(model, "type"), "BPE");
  const json &vocab = At(model, "vocab"), &merges = At(model, "merges");
  if (type != "BPE" || FlagOr(At(model, "byte_fallback"), false)) {
    return absl::UnimplementedError(absl::StrCat("tokenizer.json: a model of type ", type,
                                                 " is not supported; supported is byte-level BPE"));
  }
  if (!vocab.is_object() || !merges.is_array()) {
    return absl::InvalidArgumentError("tokenizer.json: the model has no vocab or merges");
  }
  for (const auto& [token, id] : vocab.items()) {
    if (!id.is_number_unsigned() || id.get<uint64_t>() >= static_cast<uint64_t>(kMaxVocab)) {
      return absl::InvalidArgumentError(
          absl::StrCat("tokenizer.json: token \"", token, "\" has no proper id"));
    }
    const size_t index = id.get<size_t>();
    if (options->tokens.size() <= index) options->tokens.resize(index + 1);
    options->tokens[index] = token;
  }
  for (const json& merge : merges) {
    if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      options->merges.emplace_back(merge[0].get<std::string>(), merge[1].get<std::string>());
      continue;
    }
    const std::string text = TextOr(merge, "");
    const size_t space = text.find(' ', 1);
    if (space == std::string::npos)
      return absl::InvalidArgumentError("tokenizer.json: a merge is not a pair");
    options->merges.emplace_back(text.substr(0, space), text.substr(space + 1));
  }
  options->ignore_merges = FlagOr(At(model, "ignore_merges"), false);
  return absl::OkStatus();
}

absl::Status ReadAddedTokens(const json& added, BpeOptions* options) {
  if (!added.is_array()) return absl::OkStatus();
  for (const json& token : added) {
    const json& id = At(token, "id");
    if (!id.is_number_unsigned() || id.get<uint64_t>() >= static_cast<uint64_t>(kMaxVocab)) {
      return absl::InvalidArgumentError("tokenizer.json: an added token has no proper id");
    }
    const size_t index = id.get<size_t>();
    if (options->tokens.size() <= index) options->tokens.resize(index + 1);
    options->added.push_back({.id = static_cast<int32_t>(index),
                              .text = TextOr(At(token, "content"), ""),
                              .special = FlagOr(At(token, "special"), false),
                              .lstrip = FlagOr(At(token, "lstrip"), false),
                              .rstrip = FlagOr(At(token, "rstrip"), false)});
  }
  return absl::OkStatus();
}

// The id of a token that tokenizer_config.json names as a string or as an object with "content".
int32_t NamedToken(const json& config, const char* key, const BpeOptions& options) {
  const json& value = At(config, key);
  const std::string text = TextOr(value.is_object() ? At(value, "content") : value, "");
  if (text.empty()) return -1;
  for (const AddedToken& token : options.added) {
    if (token.text == text) return token.id;
  }
  return -1;
}

void ReadConfig(const json& config, const std::string& folder, BpeOptions* options) {
  options->special = {.bos = NamedToken(config, "bos_token", *options),
                      .eos = NamedToken(config, "eos_token", *options),
                      .pad = NamedToken(config, "pad_token", *options),
                      .unk = NamedToken(config, "unk_token", *options),
                      .add_bos = FlagOr(At(config, "add_bos_token"), false)};
  if (options->special.eos >= 0) options->end_tokens.push_back(options->special.eos);
  if (absl::StatusOr<json> generation = ReadJsonFile(folder + "/generation_config.json");
      generation.ok()) {
    const json& eos = At(*generation, "eos_token_id");
    for (const json& id : eos.is_array() ? eos : json::array({eos})) {
      if (id.is_number_unsigned() && id.get<uint64_t>() < static_cast<uint64_t>(kMaxVocab)) {
        options->end_tokens.push_back(id.get<int32_t>());
      }
    }
  }
  // chat_template.jinja beside it, a string, or a list of named ones of which "default" counts.
  if (absl::StatusOr<std::string> file = ReadWholeFile(folder + "/chat_template.jinja", 1 << 20);
      file.ok()) {
    options->chat_template = *file;
    return;
  }
  const json& chat = At(config, "chat_template");
  options->chat_template = TextOr(chat, "");
  if (!chat.is_array()) return;
  for (const json& named : chat) {
    if (TextOr(At(named, "name"), "") == "default")
      options->chat_template = TextOr(At(named, "template"), "");
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> TokenizerFromFolder(const std::string& folder) {
  const std::string path = folder + "/tokenizer.json";
  std::error_code error;
  if (!std::filesystem::exists(path, error)) {
    return absl::NotFoundError(absl::StrCat("\"", folder, "\" has no tokenizer.json"));
  }
  absl::StatusOr<json> file = ReadJsonFile(path);
  if (!file.ok()) return file.status();
  BpeOptions options;
  for (const absl::Status& s : {ReadModel(At(*file, "model"), &options),
                                ReadAddedTokens(At(*file, "added_tokens"), &options),
                                ReadNormalizer(At(*file, "normalizer"), &options),
                                ReadPreTokenizer(At(*file, "pre_tokenizer"), &options)}) {
    if (!s.ok()) return s;
  }
  if (absl::StatusOr<json> config = ReadJsonFile(folder + "/tokenizer_config.json"); config.ok()) {
    ReadConfig(*config, folder, &options);
  }
  return BpeTokenizer::Create(std::move(options));
}

}  // namespace thermocline
