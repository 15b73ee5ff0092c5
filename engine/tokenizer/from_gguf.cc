// A tokenizer from GGUF metadata (tokenizer.ggml.*). Source: the tokenizer section of docs/gguf.md
// of ggml, and llama-vocab.cpp of llama.cpp for the names that end a generation.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "engine/tokenizer/bpe_tokenizer.h"

namespace thermocline {
namespace {

enum TokenType : int64_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6
};

// Control tokens that end a turn or a text whatever the metadata say.
constexpr absl::string_view kEndNames[] = {
    "<|endoftext|>", "<|im_end|>", "<|eot_id|>", "<|end_of_text|>", "<|end|>", "<end_of_turn>",
    "<|eom_id|>",    "<|return|>", "</s>",       "<|end_of_role|>"};

template <class T>
const T* Get(const Metadata& metadata, const std::string& key) {
  const auto it = metadata.find(key);
  return it == metadata.end() ? nullptr : std::get_if<T>(&it->second);
}

int32_t IdOr(const Metadata& metadata, const std::string& key, size_t vocab) {
  const int64_t* id = Get<int64_t>(metadata, key);
  return id != nullptr && *id >= 0 && *id < static_cast<int64_t>(vocab) ? static_cast<int32_t>(*id)
                                                                        : -1;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> TokenizerFromGguf(const Metadata& metadata) {
  const std::string* model = Get<std::string>(metadata, "tokenizer.ggml.model");
  if (model == nullptr) return absl::NotFoundError("the model has no tokenizer");
  if (*model != "gpt2") {
    return absl::UnimplementedError(absl::StrCat(
        "tokenizer of kind \"", *model, "\" is not supported; supported is gpt2 (byte-level BPE)"));
  }
  const auto* tokens = Get<std::vector<std::string>>(metadata, "tokenizer.ggml.tokens");
  const auto* merges = Get<std::vector<std::string>>(metadata, "tokenizer.ggml.merges");
  const auto* types = Get<std::vector<int64_t>>(metadata, "tokenizer.ggml.token_type");
  if (tokens == nullptr || merges == nullptr ||
      (types != nullptr && types->size() != tokens->size())) {
    return absl::InvalidArgumentError(
        "tokenizer.ggml.tokens, .merges or .token_type are missing or do not agree");
  }
  BpeOptions options;
  options.tokens = *tokens;
  for (const std::string& merge : *merges) {
    // The first character belongs to the left side even if it is a space.
    const size_t space = merge.find(' ', 1);
    if (space == std::string::npos) {
      return absl::InvalidArgumentError(absl::StrCat("merge \"", merge, "\" has no space"));
    }
    options.merges.emplace_back(merge.substr(0, space), merge.substr(space + 1));
  }
  for (size_t id = 0; types != nullptr && id < tokens->size(); ++id) {
    const int64_t type = (*types)[id];
    if ((type != kControl && type != kUserDefined && type != kUnknown) || (*tokens)[id].empty())
      continue;
    options.added.push_back(
        {.id = static_cast<int32_t>(id), .text = (*tokens)[id], .special = type != kUserDefined});
  }
  const std::string* pre = Get<std::string>(metadata, "tokenizer.ggml.pre");
  absl::StatusOr<std::vector<SplitRule>> rules =
      SplitRulesByName(pre != nullptr ? *pre : "default");
  if (!rules.ok()) return rules.status();
  options.split_rules = *std::move(rules);
  options.ignore_merges =
      pre != nullptr && (*pre == "llama-bpe" || *pre == "llama3" || *pre == "llama-v3");
  options.special = {.bos = IdOr(metadata, "tokenizer.ggml.bos_token_id", tokens->size()),
                     .eos = IdOr(metadata, "tokenizer.ggml.eos_token_id", tokens->size()),
                     .pad = IdOr(metadata, "tokenizer.ggml.padding_token_id", tokens->size()),
                     .unk = IdOr(metadata, "tokenizer.ggml.unknown_token_id", tokens->size()),
                     .add_bos = false};
  if (const bool* add_bos = Get<bool>(metadata, "tokenizer.ggml.add_bos_token"))
    options.special.add_bos = *add_bos;
  for (int32_t id :
       {options.special.eos, IdOr(metadata, "tokenizer.ggml.eot_token_id", tokens->size())}) {
    if (id >= 0) options.end_tokens.push_back(id);
  }
  for (const AddedToken& token : options.added) {
    const bool ends =
        std::find(std::begin(kEndNames), std::end(kEndNames), token.text) != std::end(kEndNames);
    if (ends && token.special) options.end_tokens.push_back(token.id);
  }
  if (const auto* chat = Get<std::string>(metadata, "tokenizer.chat_template"))
    options.chat_template = *chat;
  return BpeTokenizer::Create(std::move(options));
}

}  // namespace thermocline
