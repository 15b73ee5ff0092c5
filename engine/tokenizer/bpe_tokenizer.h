// BpeTokenizer: byte-level byte-pair encoding, as GPT-2 introduced it and most open models use it.
#ifndef THERMOCLINE_ENGINE_TOKENIZER_BPE_TOKENIZER_H_
#define THERMOCLINE_ENGINE_TOKENIZER_BPE_TOKENIZER_H_

#include <array>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/tokenizer/pre_tokenizer.h"
#include "engine/tokenizer/tokenizer.h"

namespace thermocline {

// A token that is found in the text before anything else.
struct AddedToken {
  int32_t id = -1;
  std::string text;
  bool special = false;  // a control token: recognised only on request, not shown in output
  bool lstrip = false;   // swallows white space before it
  bool rstrip = false;   // and after it
};

struct BpeOptions {
  // Token strings in GPT-2's printable alphabet, indexed by id; "" for ids that are only added
  // tokens.
  std::vector<std::string> tokens;
  // Pairs in order of priority, in the same alphabet.
  std::vector<std::pair<std::string, std::string>> merges;
  std::vector<AddedToken> added;
  std::vector<SplitRule> split_rules;
  bool nfc = false;            // normalise to Unicode form C first
  bool ignore_merges = false;  // a whole piece that is a token needs no merges
  SpecialTokens special;
  std::vector<int32_t> end_tokens;
  std::string chat_template;
};

// Sennrich et al. 2016; Radford et al. 2019.
class BpeTokenizer : public Tokenizer {
 public:
  // INVALID_ARGUMENT when merges or added tokens do not fit the vocabulary.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Create(BpeOptions options);

  int64_t vocab_size() const override { return static_cast<int64_t>(bytes_.size()); }
  absl::StatusOr<std::vector<int32_t>> Encode(absl::string_view text,
                                              bool parse_special) const override;
  std::string TokenBytes(int32_t id, bool with_special) const override;
  bool IsSpecial(int32_t id) const override;

 private:
  struct Merge {
    int32_t rank;
    int32_t result;
  };

  BpeTokenizer() = default;
  absl::Status Initialize(BpeOptions options);
  // The added token that starts at text[position], longest first; null if none.
  const AddedToken* AddedAt(absl::string_view text, size_t position, bool parse_special) const;
  void EncodeOrdinary(absl::string_view text, std::vector<int32_t>* ids) const;
  void EncodePiece(absl::string_view piece, std::vector<int32_t>* ids) const;

  std::vector<std::string> bytes_;  // id -> bytes
  std::vector<bool> special_ids_;
  std::unordered_map<std::string, int32_t> ids_;  // bytes -> id of ordinary tokens
  std::array<int32_t, 256> byte_ids_;             // -1: no token for this byte
  std::unordered_map<uint64_t, Merge> merges_;    // (left id, right id)
  std::vector<AddedToken> added_;
  // A trie of the added tokens' bytes: (node, byte) -> node; node 0 is the root.
  std::unordered_map<uint64_t, int32_t> trie_;
  std::vector<int32_t> trie_token_;  // node -> index into added_, or -1
  std::unique_ptr<PreTokenizer> pre_tokenizer_;
  bool nfc_ = false;
  bool ignore_merges_ = false;
};

// GPT-2's printable alphabet: the bytes that a token string of it stands for. Characters outside
// the alphabet stand for their UTF-8.
std::string BytesOfPrintable(absl::string_view printable);

}  // namespace thermocline

#endif  // THERMOCLINE_ENGINE_TOKENIZER_BPE_TOKENIZER_H_
