// BpeTokenizer: byte-level byte-pair encoding, as GPT-2 introduced it and most open models use it.
#ifndef THERMOCLINE_ENGINE_TEXT_TOKENIZER_BPE_TOKENIZER_H_
#define THERMOCLINE_ENGINE_TEXT_TOKENIZER_BPE_TOKENIZER_H_

#include <array>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/text/tokenizer/merge_pairs.h"
#include "engine/text/tokenizer/pre_tokenizer.h"
#include "engine/text/tokenizer/tokenizer.h"

namespace thermocline {

// Tokens in GPT-2's printable alphabet.
struct BpeOptions : TokenizerOptions {
  // Pairs in order of priority, in the same alphabet.
  std::vector<std::pair<std::string, std::string>> merges;
  std::vector<SplitRule> split_rules;
  bool ignore_merges = false;  // a whole piece that is a token needs no merges
};

// Sennrich et al. 2016; Radford et al. 2019.
class BpeTokenizer : public Tokenizer {
 public:
  // INVALID_ARGUMENT when merges or added tokens do not fit the vocabulary.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Create(BpeOptions options);

 private:
  BpeTokenizer() = default;
  absl::Status Initialize(BpeOptions options);
  void EncodeOrdinary(absl::string_view text, bool first, std::vector<int32_t>* ids) const override;
  void EncodePiece(absl::string_view piece, std::vector<int32_t>* ids) const;

  std::unordered_map<std::string, int32_t> ids_;  // bytes -> id of ordinary tokens
  std::array<int32_t, 256> byte_ids_;             // -1: no token for this byte
  MergeTable merges_;
  std::unique_ptr<PreTokenizer> pre_tokenizer_;
  bool ignore_merges_ = false;
};

// GPT-2's printable alphabet: the bytes that a token string of it stands for. Characters outside
// the alphabet stand for their UTF-8.
std::string BytesOfPrintable(absl::string_view printable);
// And back.
std::string PrintableOfBytes(absl::string_view bytes);

}  // namespace thermocline

#endif  // THERMOCLINE_ENGINE_TEXT_TOKENIZER_BPE_TOKENIZER_H_
