#include "engine/text/tokenizer/tokenizer.h"

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "engine/text/text_stream.h"

namespace thermocline {

absl::Status Tokenizer::InitializeBase(TokenizerOptions* options) {
  const size_t vocab = options->tokens.size();
  bytes_.resize(vocab);
  special_ids_.assign(vocab, false);
  for (const AddedToken& token : options->added) {
    if (token.id < 0 || static_cast<size_t>(token.id) >= vocab || token.text.empty()) {
      return absl::InvalidArgumentError(absl::StrCat("added token \"", token.text, "\" has id ",
                                                     token.id, ", but the vocabulary has ", vocab));
    }
    bytes_[static_cast<size_t>(token.id)] = token.text;
    special_ids_[static_cast<size_t>(token.id)] = token.special;
  }
  added_ = std::make_unique<AddedTokens>(std::move(options->added));
  normalizer_ = std::move(options->normalizer);
  special_ = options->special;
  end_tokens_ = std::move(options->end_tokens);
  chat_template_ = std::move(options->chat_template);
  decode_strips_space_ = options->decode_strips_space;
  return absl::OkStatus();
}

absl::StatusOr<std::vector<int32_t>> Tokenizer::Encode(absl::string_view text,
                                                       bool parse_special) const {
  if (static_cast<int64_t>(text.size()) > kMaxTextBytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a text of ", text.size(), " bytes, but at most ", kMaxTextBytes, " are allowed"));
  }
  std::vector<int32_t> ids;
  added_->Split(
      ToValidUtf8(text), parse_special,
      [&](absl::string_view ordinary, bool first) {
        if (normalizer_.empty()) return EncodeOrdinary(ordinary, first, &ids);
        EncodeOrdinary(Normalize(normalizer_, ordinary), first, &ids);
      },
      [&](int32_t id) { ids.push_back(id); });
  return ids;
}

std::string Tokenizer::TokenBytes(int32_t id, bool with_special) const {
  if (id < 0 || static_cast<size_t>(id) >= bytes_.size()) return "";
  if (IsSpecial(id) && !with_special) return "";
  return bytes_[static_cast<size_t>(id)];
}

bool Tokenizer::IsSpecial(int32_t id) const {
  return id >= 0 && static_cast<size_t>(id) < special_ids_.size() &&
         special_ids_[static_cast<size_t>(id)];
}

std::string Tokenizer::Decode(absl::Span<const int32_t> ids, bool with_special) const {
  std::string bytes;
  for (int32_t id : ids) bytes += TokenBytes(id, with_special);
  if (decode_strips_space_ && !bytes.empty() && bytes[0] == ' ') bytes.erase(0, 1);
  return ToValidUtf8(bytes);
}

absl::StatusOr<std::unique_ptr<Tokenizer>> TokenizerOf(const Checkpoint& checkpoint) {
  if (checkpoint.kind() == Checkpoint::Kind::kGguf) return TokenizerFromGguf(checkpoint.metadata());
  return TokenizerFromFolder(checkpoint.path());
}

}  // namespace thermocline
