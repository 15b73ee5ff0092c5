// A tokenizer from GGUF metadata (tokenizer.ggml.*). Source: the tokenizer section of docs/gguf.md
// of ggml, and llama-vocab.cpp of llama.cpp for the names that end a generation.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/formats/gguf_types.h"
#include "engine/text/tokenizer/bpe_tokenizer.h"
#include "engine/text/tokenizer/sentencepiece_tokenizer.h"

namespace thermocline {
namespace {

// Control tokens that end a turn or a text whatever the metadata say.
constexpr absl::string_view kEndNames[] = {"<|endoftext|>",
                                           "<|im_end|>",
                                           "<|eot_id|>",
                                           "<|end_of_text|>",
                                           "<|end|>",
                                           "<end_of_turn>",
                                           "<|eom_id|>",
                                           "<|return|>",
                                           "</s>",
                                           "<|end_of_role|>",
                                           "<|call|>",
                                           "[e~[",
                                           "<\xEF\xBD\x9C"
                                           "end\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>"};

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

// gpt-oss ends a message with <|end|> but a turn with <|return|> or <|call|>.
void DropMessageEnd(TokenizerOptions* options) {
  const auto id_of = [&](absl::string_view text) {
    for (const AddedToken& token : options->added) {
      if (token.text == text) return token.id;
    }
    return -1;
  };
  const int32_t end = id_of("<|end|>");
  if (end < 0 || id_of("<|return|>") < 0 || id_of("<|call|>") < 0) return;
  std::vector<int32_t>& ids = options->end_tokens;
  ids.erase(std::remove(ids.begin(), ids.end(), end), ids.end());
}

// Phi-3's tokens swallow the white space behind them, which GGUF does not say. After
// llama-vocab.cpp.
void StripBehindPhi3(const Metadata& metadata, TokenizerOptions* options) {
  const std::string* architecture = Get<std::string>(metadata, "general.architecture");
  if (architecture == nullptr || (*architecture != "phi3" && *architecture != "phimoe")) return;
  for (AddedToken& token : options->added) {
    token.rstrip = token.special && token.text != "<unk>" && token.text != "<s>" &&
                   token.text != "<|endoftext|>";
  }
}

// What all kinds have: texts, added tokens, special ids, chat template.
absl::Status ReadCommon(const Metadata& metadata, TokenizerOptions* options) {
  const auto* tokens = Get<std::vector<std::string>>(metadata, "tokenizer.ggml.tokens");
  const auto* types = Get<std::vector<int64_t>>(metadata, "tokenizer.ggml.token_type");
  if (tokens == nullptr || (types != nullptr && types->size() != tokens->size())) {
    return absl::InvalidArgumentError(
        "tokenizer.ggml.tokens or .token_type are missing or do not agree");
  }
  options->tokens = *tokens;
  for (size_t id = 0; types != nullptr && id < tokens->size(); ++id) {
    const int64_t type = (*types)[id];
    if ((type != kControlToken && type != kUserDefinedToken && type != kUnknownToken) ||
        (*tokens)[id].empty())
      continue;
    options->added.push_back({.id = static_cast<int32_t>(id),
                              .text = (*tokens)[id],
                              .special = type != kUserDefinedToken});
  }
  const size_t vocab = tokens->size();
  options->special = {.bos = IdOr(metadata, "tokenizer.ggml.bos_token_id", vocab),
                      .eos = IdOr(metadata, "tokenizer.ggml.eos_token_id", vocab),
                      .pad = IdOr(metadata, "tokenizer.ggml.padding_token_id", vocab),
                      .unk = IdOr(metadata, "tokenizer.ggml.unknown_token_id", vocab),
                      .add_bos = false};
  if (const bool* add_bos = Get<bool>(metadata, "tokenizer.ggml.add_bos_token"))
    options->special.add_bos = *add_bos;
  for (int32_t id : {options->special.eos, IdOr(metadata, "tokenizer.ggml.eot_token_id", vocab),
                     IdOr(metadata, "tokenizer.ggml.eom_token_id", vocab)}) {
    if (id >= 0) options->end_tokens.push_back(id);
  }
  for (const AddedToken& token : options->added) {
    const bool ends =
        std::find(std::begin(kEndNames), std::end(kEndNames), token.text) != std::end(kEndNames);
    if (ends && token.special) options->end_tokens.push_back(token.id);
  }
  DropMessageEnd(options);
  if (const auto* chat = Get<std::string>(metadata, "tokenizer.chat_template"))
    options->chat_template = *chat;
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Tokenizer>> ReadBpe(const Metadata& metadata) {
  BpeOptions options;
  if (absl::Status s = ReadCommon(metadata, &options); !s.ok()) return s;
  const auto* merges = Get<std::vector<std::string>>(metadata, "tokenizer.ggml.merges");
  if (merges == nullptr) return absl::InvalidArgumentError("tokenizer.ggml.merges is missing");
  for (const std::string& merge : *merges) {
    // The first character belongs to the left side even if it is a space.
    const size_t space = merge.find(' ', 1);
    if (space == std::string::npos) {
      return absl::InvalidArgumentError(absl::StrCat("merge \"", merge, "\" has no space"));
    }
    options.merges.emplace_back(merge.substr(0, space), merge.substr(space + 1));
  }
  const std::string* pre = Get<std::string>(metadata, "tokenizer.ggml.pre");
  absl::StatusOr<NamedPreTokenizer> named = PreTokenizerByName(pre != nullptr ? *pre : "default");
  if (!named.ok()) return named.status();
  options.split_rules = std::move(named->split_rules);
  options.ignore_merges = named->ignore_merges;
  if (Get<bool>(metadata, "tokenizer.ggml.add_bos_token") == nullptr)
    options.special.add_bos = named->add_bos;
  if (named->nfc) options.normalizer.push_back({.kind = NormalizerStep::Kind::kNfc});
  return BpeTokenizer::Create(std::move(options));
}

// "llama": scored merges; "t5": unigram.
absl::StatusOr<std::unique_ptr<Tokenizer>> ReadSentencePiece(const Metadata& metadata,
                                                             bool unigram) {
  SentencePieceOptions options;
  if (absl::Status s = ReadCommon(metadata, &options); !s.ok()) return s;
  StripBehindPhi3(metadata, &options);
  options.model =
      unigram ? SentencePieceOptions::Model::kUnigram : SentencePieceOptions::Model::kScoredMerges;
  const auto* scores = Get<std::vector<double>>(metadata, "tokenizer.ggml.scores");
  if (scores == nullptr) return absl::InvalidArgumentError("tokenizer.ggml.scores is missing");
  options.scores.assign(scores->begin(), scores->end());
  // What files of this kind mean when they do not say.
  const size_t vocab = options.tokens.size();
  SpecialTokens& special = options.special;
  if (!unigram && vocab > 2) {
    if (special.bos < 0) special.bos = 1;
    if (special.eos < 0) options.end_tokens.push_back(special.eos = 2);
    if (special.unk < 0) special.unk = 0;
    if (Get<bool>(metadata, "tokenizer.ggml.add_bos_token") == nullptr) special.add_bos = true;
  }
  const bool* prefix = Get<bool>(metadata, "tokenizer.ggml.add_space_prefix");
  options.prefix = prefix != nullptr && !*prefix ? SentencePieceOptions::Prefix::kNever
                                                 : SentencePieceOptions::Prefix::kEvery;
  return SentencePieceTokenizer::Create(std::move(options));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> TokenizerFromGguf(const Metadata& metadata) {
  const std::string* model = Get<std::string>(metadata, "tokenizer.ggml.model");
  if (model == nullptr || *model == "none" || *model == "no_vocab") {
    return absl::NotFoundError("the model has no tokenizer");
  }
  if (*model == "gpt2") return ReadBpe(metadata);
  if (*model == "llama") return ReadSentencePiece(metadata, /*unigram=*/false);
  if (*model == "t5") return ReadSentencePiece(metadata, /*unigram=*/true);
  return absl::UnimplementedError(absl::StrCat(
      "tokenizer of kind \"", *model,
      "\" is not supported; supported are gpt2 (byte-level BPE), llama (SentencePiece) and t5 "
      "(unigram)"));
}

}  // namespace thermocline
