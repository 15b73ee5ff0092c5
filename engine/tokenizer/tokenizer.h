// Tokenizer: text to token ids and back.
#ifndef THERMOCLINE_ENGINE_TOKENIZER_TOKENIZER_H_
#define THERMOCLINE_ENGINE_TOKENIZER_TOKENIZER_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "engine/formats/checkpoint.h"

namespace thermocline {

// Tokens that the model's files name; -1 where they name none.
struct SpecialTokens {
  int32_t bos = -1;
  int32_t eos = -1;
  int32_t pad = -1;
  int32_t unk = -1;
  bool add_bos = false;
};

// Const after creation; any thread.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  virtual int64_t vocab_size() const = 0;
  // Token ids of a text, nothing added in front or behind. With parse_special, control tokens
  // written in the text are recognised; without, they are ordinary text (untrusted input must not
  // forge them). INVALID_ARGUMENT for text above kMaxTextBytes.
  virtual absl::StatusOr<std::vector<int32_t>> Encode(absl::string_view text,
                                                      bool parse_special) const = 0;
  // The token's bytes, which need not be valid UTF-8 alone. Control tokens give "" unless asked
  // for. Ids outside the vocabulary give "".
  virtual std::string TokenBytes(int32_t id, bool with_special) const = 0;
  virtual bool IsSpecial(int32_t id) const = 0;

  // The bytes of all tokens, ill-formed parts replaced by U+FFFD.
  std::string Decode(absl::Span<const int32_t> ids, bool with_special) const;

  const SpecialTokens& special() const { return special_; }
  // Ids that end a generation: eos and its relatives (end of turn, end of message).
  const std::vector<int32_t>& end_tokens() const { return end_tokens_; }
  // Jinja source; empty when the model has none.
  const std::string& chat_template() const { return chat_template_; }

  static constexpr int64_t kMaxTextBytes = int64_t{64} << 20;

 protected:
  SpecialTokens special_;
  std::vector<int32_t> end_tokens_;
  std::string chat_template_;
};

// From GGUF metadata. NOT_FOUND when there is no tokenizer, UNIMPLEMENTED (naming the kind) when it
// is of another kind.
absl::StatusOr<std::unique_ptr<Tokenizer>> TokenizerFromGguf(const Metadata& metadata);
// From a folder with tokenizer.json and, optionally, tokenizer_config.json.
absl::StatusOr<std::unique_ptr<Tokenizer>> TokenizerFromFolder(const std::string& folder);
// Whichever the checkpoint has.
absl::StatusOr<std::unique_ptr<Tokenizer>> TokenizerOf(const Checkpoint& checkpoint);

}  // namespace thermocline

#endif  // THERMOCLINE_ENGINE_TOKENIZER_TOKENIZER_H_
