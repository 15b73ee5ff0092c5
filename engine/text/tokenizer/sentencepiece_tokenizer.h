// SentencePieceTokenizer: tokens made of characters, with bytes for what no token covers.
#ifndef THERMOCLINE_ENGINE_TEXT_TOKENIZER_SENTENCEPIECE_TOKENIZER_H_
#define THERMOCLINE_ENGINE_TEXT_TOKENIZER_SENTENCEPIECE_TOKENIZER_H_

#include <array>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "engine/text/tokenizer/merge_pairs.h"
#include "engine/text/tokenizer/tokenizer.h"

namespace thermocline {

// Tokens are UTF-8 in which U+2581 stands for a space, and "<0x0A>" for a byte.
struct SentencePieceOptions : TokenizerOptions {
  enum class Model {
    kScoredMerges,  // join the neighbours whose union scores highest (SentencePiece's BPE, GGUF)
    kRankedMerges,  // join by a list of pairs (the same models in tokenizer.json)
    kUnigram,       // the most probable segmentation (Kudo 2018)
  };
  Model model = Model::kScoredMerges;
  std::vector<float> scores;                                // by id; not for kRankedMerges
  std::vector<std::pair<std::string, std::string>> merges;  // kRankedMerges, in order of priority
  bool byte_fallback = true;
  // Spaces become U+2581, and one is put in front of the text (kFirst) or of every part between
  // added tokens (kEvery).
  enum class Prefix { kNever, kFirst, kEvery };
  Prefix prefix = Prefix::kEvery;
  bool prefix_even_before_space = true;  // one more, though the text begins with a space
  bool split_spaces = false;             // no token goes beyond a U+2581 that follows something
};

// Kudo and Richardson 2018.
class SentencePieceTokenizer : public Tokenizer {
 public:
  // INVALID_ARGUMENT when scores, merges or added tokens do not fit the vocabulary.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Create(SentencePieceOptions options);

 private:
  using Model = SentencePieceOptions::Model;

  SentencePieceTokenizer() = default;
  absl::Status Initialize(SentencePieceOptions options);
  void EncodeOrdinary(absl::string_view text, bool first, std::vector<int32_t>* ids) const override;
  void EncodeWord(absl::string_view word, std::vector<int32_t>* ids) const;
  void EncodeByScores(absl::string_view word, std::vector<int32_t>* ids) const;
  void EncodeByRanks(absl::string_view word, std::vector<int32_t>* ids) const;
  void EncodeUnigram(absl::string_view word, std::vector<int32_t>* ids) const;
  // The bytes of a character that is no token, or the unknown token.
  void AppendUnknown(absl::string_view character, std::vector<int32_t>* ids) const;

  Model model_ = Model::kScoredMerges;
  SentencePieceOptions::Prefix prefix_ = SentencePieceOptions::Prefix::kEvery;
  bool prefix_even_before_space_ = true;
  absl::flat_hash_map<std::string, int32_t> ids_;  // text -> id of ordinary tokens
  std::vector<float> scores_;
  MergeTable merges_;
  std::array<int32_t, 256> byte_ids_;  // -1: none
  int32_t unk_ = -1;
  bool split_spaces_ = false;
  bool words_are_apart_ = true;  // no token has U+2581 behind another character
  size_t longest_token_ = 0;     // bytes
  float unknown_score_ = 0.0f;   // of a character in kUnigram
};

}  // namespace thermocline

#endif  // THERMOCLINE_ENGINE_TEXT_TOKENIZER_SENTENCEPIECE_TOKENIZER_H_
