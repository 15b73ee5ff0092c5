// Tokenizer: text to token ids and back.
#ifndef THERMOCLINE_ENGINE_TEXT_TOKENIZER_TOKENIZER_H_
#define THERMOCLINE_ENGINE_TEXT_TOKENIZER_TOKENIZER_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "engine/formats/checkpoint.h"
#include "engine/text/tokenizer/added_tokens.h"
#include "engine/text/tokenizer/normalizer.h"

namespace thermocline {

// Tokens that the model's files name; -1 where they name none.
struct SpecialTokens {
  int32_t bos = -1;
  int32_t eos = -1;
  int32_t pad = -1;
  int32_t unk = -1;
  bool add_bos = false;
};

// What every kind of tokenizer is made from.
struct TokenizerOptions {
  std::vector<std::string> tokens;  // as the file spells them, by id; "": only an added token
  std::vector<AddedToken> added;
  std::vector<NormalizerStep> normalizer;
  SpecialTokens special;
  std::vector<int32_t> end_tokens;
  std::string chat_template;
  bool decode_strips_space = false;  // one space at the start of a text was put there by Encode
};

// Const after creation; any thread.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  int64_t vocab_size() const { return static_cast<int64_t>(bytes_.size()); }
  // Token ids of a text, nothing added in front or behind. With parse_special, control tokens
  // written in the text are recognised; without, they are ordinary text (untrusted input must not
  // forge them). INVALID_ARGUMENT for text above kMaxTextBytes.
  absl::StatusOr<std::vector<int32_t>> Encode(absl::string_view text, bool parse_special) const;
  // The token's bytes, which need not be valid UTF-8 alone. Control tokens give "" unless asked
  // for. Ids outside the vocabulary give "".
  std::string TokenBytes(int32_t id, bool with_special) const;
  bool IsSpecial(int32_t id) const;

  // The bytes of all tokens, ill-formed parts replaced by U+FFFD.
  std::string Decode(absl::Span<const int32_t> ids, bool with_special) const;

  const SpecialTokens& special() const { return special_; }
  // Ids that end a generation: eos and its relatives (end of turn, end of message).
  const std::vector<int32_t>& end_tokens() const { return end_tokens_; }
  // Jinja source; empty when the model has none.
  const std::string& chat_template() const { return chat_template_; }

  static constexpr int64_t kMaxTextBytes = int64_t{64} << 20;

 protected:
  // Moves everything out of `options` but `tokens`, whose bytes are the subclass's to find.
  // INVALID_ARGUMENT for added tokens outside the vocabulary.
  absl::Status InitializeBase(TokenizerOptions* options);
  // Appends the ids of a normalised text without added tokens. `first`: at the text's beginning.
  virtual void EncodeOrdinary(absl::string_view text, bool first,
                              std::vector<int32_t>* ids) const = 0;

  std::vector<std::string> bytes_;  // id -> bytes

 private:
  std::vector<bool> special_ids_;
  std::unique_ptr<AddedTokens> added_;
  std::vector<NormalizerStep> normalizer_;
  SpecialTokens special_;
  std::vector<int32_t> end_tokens_;
  std::string chat_template_;
  bool decode_strips_space_ = false;
};

// From GGUF metadata. NOT_FOUND when there is no tokenizer, UNIMPLEMENTED (naming the kind) when it
// is of another kind.
absl::StatusOr<std::unique_ptr<Tokenizer>> TokenizerFromGguf(const Metadata& metadata);
// From a folder with tokenizer.json and, optionally, tokenizer_config.json.
absl::StatusOr<std::unique_ptr<Tokenizer>> TokenizerFromFolder(const std::string& folder);
// Whichever the checkpoint has.
absl::StatusOr<std::unique_ptr<Tokenizer>> TokenizerOf(const Checkpoint& checkpoint);

}  // namespace thermocline

#endif  // THERMOCLINE_ENGINE_TEXT_TOKENIZER_TOKENIZER_H_
