// Source: the serialisation of Hugging Face tokenizers.
#include "engine/text/tokenizer/tokenizer_json.h"

#include <filesystem>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "engine/formats/json.h"

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

// What both kinds of tokenizer are read into, before it is known which one it is.
struct Parsed {
  BpeOptions common;  // the byte-level reading
  bool has_metaspace = false;
  SentencePieceOptions::Prefix prefix = SentencePieceOptions::Prefix::kNever;
  bool split_spaces = false;
};

absl::Status ReadNormalizer(const json& normalizer, TokenizerOptions* options) {
  if (normalizer.is_null()) return absl::OkStatus();
  const std::string type = TextOr(At(normalizer, "type"), "");
  if (type == "Sequence" && At(normalizer, "normalizers").is_array()) {
    for (const json& step : At(normalizer, "normalizers")) {
      if (absl::Status s = ReadNormalizer(step, options); !s.ok()) return s;
    }
    return absl::OkStatus();
  }
  using Kind = NormalizerStep::Kind;
  constexpr std::pair<absl::string_view, Kind> kPlain[] = {{"NFC", Kind::kNfc},
                                                           {"NFKC", Kind::kNfkc},
                                                           {"NFD", Kind::kNfd},
                                                           {"NFKD", Kind::kNfkd},
                                                           {"Lowercase", Kind::kLowercase}};
  for (const auto& [name, kind] : kPlain) {
    if (type != name) continue;
    options->normalizer.push_back({kind});
    return absl::OkStatus();
  }
  NormalizerStep step;
  if (type == "Prepend") {
    step.kind = Kind::kPrepend;
    step.content = TextOr(At(normalizer, "prepend"), "");
  } else if (type == "Replace" && At(At(normalizer, "pattern"), "String").is_string()) {
    step.kind = Kind::kReplace;
    step.pattern = At(At(normalizer, "pattern"), "String").get<std::string>();
    step.content = TextOr(At(normalizer, "content"), "");
    if (step.pattern.empty()) return Unsupported("normalizer", normalizer);
  } else if (type == "Strip") {
    step.kind = Kind::kStrip;
    step.left = FlagOr(At(normalizer, "strip_left"), true);
    step.right = FlagOr(At(normalizer, "strip_right"), true);
  } else {
    return Unsupported("normalizer", normalizer);
  }
  options->normalizer.push_back(std::move(step));
  return absl::OkStatus();
}

absl::Status ReadSplit(const json& split, BpeOptions* options) {
  const json& pattern = At(split, "pattern");
  SplitRule rule;
  if (At(pattern, "Regex").is_string()) {
    rule.pattern = At(pattern, "Regex").get<std::string>();
    rule.oniguruma = true;
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

absl::Status ReadMetaspace(const json& metaspace, Parsed* parsed) {
  if (TextOr(At(metaspace, "replacement"), "\u2581") != "\u2581") {
    return Unsupported("metaspace replacement", At(metaspace, "replacement"));
  }
  using Prefix = SentencePieceOptions::Prefix;
  parsed->has_metaspace = true;
  const bool old_flag = FlagOr(At(metaspace, "add_prefix_space"), true);
  const std::string scheme = TextOr(At(metaspace, "prepend_scheme"), old_flag ? "always" : "never");
  parsed->prefix = scheme == "always"  ? Prefix::kEvery
                   : scheme == "first" ? Prefix::kFirst
                                       : Prefix::kNever;
  parsed->split_spaces = FlagOr(At(metaspace, "split"), true);
  return absl::OkStatus();
}

absl::Status ReadPreTokenizer(const json& pre, Parsed* parsed) {
  if (pre.is_null()) return absl::OkStatus();
  const std::string type = TextOr(At(pre, "type"), "");
  if (type == "Sequence" && At(pre, "pretokenizers").is_array()) {
    for (const json& step : At(pre, "pretokenizers")) {
      if (absl::Status s = ReadPreTokenizer(step, parsed); !s.ok()) return s;
    }
    return absl::OkStatus();
  }
  std::vector<SplitRule>& rules = parsed->common.split_rules;
  if (type == "Split") return ReadSplit(pre, &parsed->common);
  if (type == "Metaspace") return ReadMetaspace(pre, parsed);
  if (type == "Digits") {
    rules.push_back({FlagOr(At(pre, "individual_digits"), false) ? R"(\p{N})" : R"(\p{N}+)"});
    return absl::OkStatus();
  }
  if (type == "ByteLevel" && !FlagOr(At(pre, "add_prefix_space"), false)) {
    if (FlagOr(At(pre, "use_regex"), true)) rules.push_back({kGpt2Pattern});
    return absl::OkStatus();
  }
  return Unsupported("pre_tokenizer", pre);
}

absl::Status AddToken(const std::string& text, const json& id, TokenizerOptions* options) {
  if (!id.is_number_unsigned() || id.get<uint64_t>() >= static_cast<uint64_t>(kMaxVocab)) {
    return absl::InvalidArgumentError(
        absl::StrCat("tokenizer.json: token \"", text, "\" has no proper id"));
  }
  const size_t index = id.get<size_t>();
  if (options->tokens.size() <= index) options->tokens.resize(index + 1);
  options->tokens[index] = text;
  return absl::OkStatus();
}

absl::Status ReadMerges(const json& merges, BpeOptions* options) {
  if (!merges.is_array()) return absl::InvalidArgumentError("tokenizer.json: no merges");
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
  return absl::OkStatus();
}

// Pairs of token and score, in order of id.
absl::Status ReadUnigram(const json& vocab, SentencePieceOptions* options) {
  if (!vocab.is_array() || vocab.size() > static_cast<size_t>(kMaxVocab)) {
    return absl::InvalidArgumentError("tokenizer.json: the unigram vocabulary is no list");
  }
  for (const json& entry : vocab) {
    if (!entry.is_array() || entry.size() != 2 || !entry[0].is_string() || !entry[1].is_number()) {
      return absl::InvalidArgumentError(
          "tokenizer.json: a unigram entry is not a token with a score");
    }
    options->tokens.push_back(entry[0].get<std::string>());
    options->scores.push_back(entry[1].get<float>());
  }
  return absl::OkStatus();
}

absl::Status ReadAddedTokens(const json& added, TokenizerOptions* options) {
  if (!added.is_array()) return absl::OkStatus();
  for (const json& token : added) {
    const std::string text = TextOr(At(token, "content"), "");
    const json& id = At(token, "id");
    if (FlagOr(At(token, "single_word"), false)) return Unsupported("single_word in", token);
    if (absl::Status s = AddToken(text, id, options); !s.ok()) return s;
    options->added.push_back({.id = id.get<int32_t>(),
                              .text = text,
                              .special = FlagOr(At(token, "special"), false),
                              .lstrip = FlagOr(At(token, "lstrip"), false),
                              .rstrip = FlagOr(At(token, "rstrip"), false)});
  }
  return absl::OkStatus();
}

// The id of a token that a file names as a string or as an object with "content"; -1 for none.
int32_t NamedToken(const json& value, const TokenizerOptions& options) {
  const std::string text = TextOr(value.is_object() ? At(value, "content") : value, "");
  if (text.empty()) return -1;
  for (const AddedToken& token : options.added) {
    if (token.text == text) return token.id;
  }
  for (size_t id = 0; id < options.tokens.size(); ++id) {
    if (options.tokens[id] == text) return static_cast<int32_t>(id);
  }
  return -1;
}

// Whether a post-processor puts the token in front of a text.
bool PutsInFront(const json& processor, const std::string& token) {
  for (const json& step : At(processor, "processors")) {
    if (PutsInFront(step, token)) return true;
  }
  const json& single = At(processor, "single");
  if (!single.is_array() || single.empty()) return false;
  return TextOr(At(At(single[0], "SpecialToken"), "id"), "") == token;
}

std::string ReadChatTemplate(const json& config, const std::string& folder) {
  // chat_template.jinja beside it, a string, or a list of named ones of which "default" counts.
  if (absl::StatusOr<std::string> file = ReadWholeFile(folder + "/chat_template.jinja", 1 << 20);
      file.ok()) {
    return *file;
  }
  const json& chat = At(config, "chat_template");
  if (!chat.is_array()) return TextOr(chat, "");
  for (const json& named : chat) {
    if (TextOr(At(named, "name"), "") == "default") return TextOr(At(named, "template"), "");
  }
  return "";
}

void ReadConfig(const json& file, const std::string& folder, TokenizerOptions* options) {
  absl::StatusOr<json> read = ReadJsonFile(folder + "/tokenizer_config.json");
  const json config = read.ok() ? *std::move(read) : json::object();
  SpecialTokens& special = options->special;
  special.bos = NamedToken(At(config, "bos_token"), *options);
  special.eos = NamedToken(At(config, "eos_token"), *options);
  special.pad = NamedToken(At(config, "pad_token"), *options);
  special.unk = NamedToken(At(config, "unk_token"), *options);
  if (special.unk < 0) special.unk = NamedToken(At(At(file, "model"), "unk_token"), *options);
  const bool in_front =
      special.bos >= 0 &&
      PutsInFront(At(file, "post_processor"), options->tokens[static_cast<size_t>(special.bos)]);
  special.add_bos = FlagOr(At(config, "add_bos_token"), in_front);
  if (special.eos >= 0) options->end_tokens.push_back(special.eos);
  if (absl::StatusOr<json> generation = ReadJsonFile(folder + "/generation_config.json");
      generation.ok()) {
    const json& eos = At(*generation, "eos_token_id");
    for (const json& id : eos.is_array() ? eos : json::array({eos})) {
      if (id.is_number_unsigned() && id.get<uint64_t>() < static_cast<uint64_t>(kMaxVocab)) {
        options->end_tokens.push_back(id.get<int32_t>());
      }
    }
  }
  options->chat_template = ReadChatTemplate(config, folder);
}

// Whether decoding takes away one space at the start.
bool StripsSpace(const json& decoder) {
  for (const json& step : At(decoder, "decoders")) {
    if (StripsSpace(step)) return true;
  }
  const std::string type = TextOr(At(decoder, "type"), "");
  if (type == "Strip") {
    const json& start = At(decoder, "start");
    return TextOr(At(decoder, "content"), "") == " " && start.is_number_unsigned() &&
           start.get<uint64_t>() >= 1;
  }
  return type == "Metaspace" && TextOr(At(decoder, "prepend_scheme"), "always") != "never" &&
         FlagOr(At(decoder, "add_prefix_space"), true);
}

// True when spaces are written as U+2581 by the normalizer.
bool ReplacesSpaces(const TokenizerOptions& options) {
  for (const NormalizerStep& step : options.normalizer) {
    if (step.kind == NormalizerStep::Kind::kReplace && step.pattern == " " &&
        step.content == "\u2581") {
      return true;
    }
  }
  return false;
}

}  // namespace

absl::StatusOr<AnyTokenizerOptions> ReadTokenizerFolder(const std::string& folder) {
  const std::string path = folder + "/tokenizer.json";
  std::error_code error;
  if (!std::filesystem::exists(path, error)) {
    return absl::NotFoundError(absl::StrCat("\"", folder, "\" has no tokenizer.json"));
  }
  absl::StatusOr<json> file = ReadJsonFile(path);
  if (!file.ok()) return file.status();
  const json &model = At(*file, "model"), &vocab = At(model, "vocab");
  const std::string type = TextOr(At(model, "type"), vocab.is_array() ? "Unigram" : "BPE");
  if (type != "BPE" && type != "Unigram") {
    return absl::UnimplementedError(
        absl::StrCat("tokenizer.json: a model of type ", type,
                     " is not supported; supported are BPE and Unigram"));
  }
  Parsed parsed;
  SentencePieceOptions pieces;
  if (type == "Unigram") {
    if (absl::Status s = ReadUnigram(vocab, &pieces); !s.ok()) return s;
    parsed.common.tokens = pieces.tokens;
  } else {
    if (!vocab.is_object()) {
      return absl::InvalidArgumentError("tokenizer.json: the model has no vocab");
    }
    for (const auto& [token, id] : vocab.items()) {
      if (absl::Status s = AddToken(token, id, &parsed.common); !s.ok()) return s;
    }
    if (absl::Status s = ReadMerges(At(model, "merges"), &parsed.common); !s.ok()) return s;
  }
  for (const absl::Status& s : {ReadAddedTokens(At(*file, "added_tokens"), &parsed.common),
                                ReadNormalizer(At(*file, "normalizer"), &parsed.common),
                                ReadPreTokenizer(At(*file, "pre_tokenizer"), &parsed)}) {
    if (!s.ok()) return s;
  }
  ReadConfig(*file, folder, &parsed.common);
  parsed.common.decode_strips_space = StripsSpace(At(*file, "decoder"));
  const bool byte_fallback = FlagOr(At(model, "byte_fallback"), false);
  if (type == "BPE" && !byte_fallback && !parsed.has_metaspace && !ReplacesSpaces(parsed.common)) {
    parsed.common.ignore_merges = FlagOr(At(model, "ignore_merges"), false);
    return AnyTokenizerOptions(std::move(parsed.common));
  }
  if (!parsed.common.split_rules.empty()) {
    return absl::UnimplementedError(
        "tokenizer.json: split rules together with SentencePiece's spaces are not supported");
  }
  pieces.scores.resize(type == "Unigram" ? parsed.common.tokens.size() : 0, 0.0f);
  pieces.merges = std::move(parsed.common.merges);
  static_cast<TokenizerOptions&>(pieces) = static_cast<TokenizerOptions&&>(parsed.common);
  pieces.model = type == "Unigram" ? SentencePieceOptions::Model::kUnigram
                                   : SentencePieceOptions::Model::kRankedMerges;
  if (const json& unk = At(model, "unk_id"); unk.is_number_unsigned()) {
    const uint64_t id = unk.get<uint64_t>();
    if (id < pieces.tokens.size()) pieces.special.unk = static_cast<int32_t>(id);
  }
  pieces.byte_fallback = byte_fallback;
  pieces.prefix = parsed.prefix;
  pieces.split_spaces = parsed.split_spaces;
  pieces.prefix_even_before_space = false;
  return AnyTokenizerOptions(std::move(pieces));
}

absl::StatusOr<std::unique_ptr<Tokenizer>> TokenizerFromFolder(const std::string& folder) {
  absl::StatusOr<AnyTokenizerOptions> options = ReadTokenizerFolder(folder);
  if (!options.ok()) return options.status();
  if (BpeOptions* bpe = std::get_if<BpeOptions>(&*options)) {
    return BpeTokenizer::Create(std::move(*bpe));
  }
  return SentencePieceTokenizer::Create(std::get<SentencePieceOptions>(*std::move(options)));
}

}  // namespace thermocline
