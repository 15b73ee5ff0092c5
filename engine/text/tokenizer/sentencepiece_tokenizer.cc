#include "engine/text/tokenizer/sentencepiece_tokenizer.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "engine/text/tokenizer/merge_pairs.h"
#include "engine/text/tokenizer/piece_cache.h"

namespace thermocline {
namespace {

constexpr absl::string_view kSpace = "\xE2\x96\x81";  // U+2581
// How much less probable an unknown character is than the least probable token; the value of
// SentencePiece and of Hugging Face tokenizers.
constexpr float kUnknownPenalty = 10.0f;

// Bytes of the character that starts with this byte, in valid UTF-8.
size_t CharacterBytes(char lead) {
  const unsigned char c = static_cast<unsigned char>(lead);
  return c < 0x80 ? 1 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;
}

// The byte that "<0x0A>" stands for, or -1.
int ByteOf(absl::string_view token) {
  unsigned value = 0;
  char end = 0;
  const std::string text(token);
  if (text.size() != 6 || std::sscanf(text.c_str(), "<0x%2X%c", &value, &end) != 2 || end != '>')
    return -1;
  return static_cast<int>(value);
}

std::vector<absl::string_view> Characters(absl::string_view text) {
  std::vector<absl::string_view> characters;
  for (size_t i = 0; i < text.size();) {
    const size_t length = std::min(CharacterBytes(text[i]), text.size() - i);
    characters.push_back(text.substr(i, length));
    i += length;
  }
  return characters;
}

// A word ends where U+2581 follows another character, or anything.
std::vector<absl::string_view> Words(absl::string_view text, bool anything) {
  std::vector<absl::string_view> words;
  size_t begin = 0;
  for (size_t i = text.find(kSpace); i != absl::string_view::npos; i = text.find(kSpace, i)) {
    if (i > begin && (anything || i < kSpace.size() ||
                      text.substr(i - kSpace.size(), kSpace.size()) != kSpace)) {
      words.push_back(text.substr(begin, i - begin));
      begin = i;
    }
    i += kSpace.size();
  }
  if (begin < text.size()) words.push_back(text.substr(begin));
  return words;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> SentencePieceTokenizer::Create(
    SentencePieceOptions options) {
  std::unique_ptr<SentencePieceTokenizer> tokenizer(new SentencePieceTokenizer());
  if (absl::Status s = tokenizer->Initialize(std::move(options)); !s.ok()) return s;
  return std::unique_ptr<Tokenizer>(std::move(tokenizer));
}

absl::Status SentencePieceTokenizer::Initialize(SentencePieceOptions options) {
  const std::vector<std::string>& tokens = options.tokens;
  if (options.model != Model::kRankedMerges && options.scores.size() != tokens.size()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the tokenizer has ", tokens.size(), " tokens, but ", options.scores.size(), " scores"));
  }
  model_ = options.model;
  prefix_ = options.prefix;
  prefix_even_before_space_ = options.prefix_even_before_space;
  split_spaces_ = options.split_spaces;
  scores_ = std::move(options.scores);
  unk_ = options.special.unk;
  if (absl::Status s = InitializeBase(&options); !s.ok()) return s;
  byte_ids_.fill(-1);
  float lowest = 0.0f;
  absl::flat_hash_map<std::string, int32_t> added;
  for (size_t id = 0; id < tokens.size(); ++id) {
    if (!bytes_[id].empty() || tokens[id].empty()) {  // an added token has its bytes
      added.emplace(tokens[id], static_cast<int32_t>(id));
      continue;
    }
    const int byte = options.byte_fallback ? ByteOf(tokens[id]) : -1;
    if (byte >= 0) {
      byte_ids_[static_cast<size_t>(byte)] = static_cast<int32_t>(id);
      bytes_[id] = std::string(1, static_cast<char>(byte));
      continue;
    }
    ids_.emplace(tokens[id], static_cast<int32_t>(id));  // the first of equal tokens wins
    bytes_[id] = absl::StrReplaceAll(tokens[id], {{kSpace, " "}});
    longest_token_ = std::max(longest_token_, tokens[id].size());
    words_are_apart_ &= Words(tokens[id], split_spaces_).size() == 1;
    if (!scores_.empty()) lowest = std::min(lowest, scores_[id]);
  }
  unknown_score_ = lowest - kUnknownPenalty;
  const auto bytes_of = [](const std::string& text) { return text; };
  return ReadMerges(options.merges, ids_, added, bytes_of, &merges_);
}

void SentencePieceTokenizer::EncodeOrdinary(absl::string_view text, bool first,
                                            std::vector<int32_t>* ids) const {
  std::string spaced = absl::StrReplaceAll(text, {{" ", kSpace}});
  const bool wanted = prefix_ == SentencePieceOptions::Prefix::kEvery ||
                      (prefix_ == SentencePieceOptions::Prefix::kFirst && first);
  if (wanted && !spaced.empty() &&
      (prefix_even_before_space_ || !absl::StartsWith(spaced, kSpace))) {
    spaced.insert(0, kSpace.data(), kSpace.size());
  }
  PieceCache cache;
  const std::vector<absl::string_view> words = split_spaces_ || words_are_apart_
                                                   ? Words(spaced, split_spaces_)
                                                   : std::vector<absl::string_view>{spaced};
  for (absl::string_view word : words) {
    cache.Append(word, ids, [&] { EncodeWord(word, ids); });
  }
}

void SentencePieceTokenizer::EncodeWord(absl::string_view word, std::vector<int32_t>* ids) const {
  switch (model_) {
    case Model::kScoredMerges:
      return EncodeByScores(word, ids);
    case Model::kRankedMerges:
      return EncodeByRanks(word, ids);
    case Model::kUnigram:
      return EncodeUnigram(word, ids);
  }
}

void SentencePieceTokenizer::AppendUnknown(absl::string_view character,
                                           std::vector<int32_t>* ids) const {
  for (char c : character) {
    if (byte_ids_[static_cast<unsigned char>(c)] >= 0) continue;
    if (unk_ >= 0) ids->push_back(unk_);
    return;
  }
  for (char c : character) ids->push_back(byte_ids_[static_cast<unsigned char>(c)]);
}

void SentencePieceTokenizer::EncodeByScores(absl::string_view word,
                                            std::vector<int32_t>* ids) const {
  // A character that is no token can still be part of one: it goes by a number of its own.
  const int32_t vocab = static_cast<int32_t>(bytes_.size());
  std::vector<absl::string_view> others;
  std::vector<int32_t> symbols;
  absl::flat_hash_map<int32_t, absl::string_view> texts;
  for (absl::string_view character : Characters(word)) {
    const auto it = ids_.find(character);
    if (it != ids_.end()) {
      symbols.push_back(it->second);
    } else {
      symbols.push_back(vocab + static_cast<int32_t>(others.size()));
      others.push_back(character);
    }
    texts.emplace(symbols.back(), character);
  }
  std::string joined;
  const auto find = [&](int32_t left, int32_t right, double* rank, int32_t* result) {
    const absl::string_view l = texts.at(left), r = texts.at(right);
    if (l.size() + r.size() > longest_token_) return false;
    joined.assign(l.data(), l.size());
    joined.append(r.data(), r.size());
    const auto it = ids_.find(joined);
    if (it == ids_.end()) return false;
    *rank = -static_cast<double>(scores_[static_cast<size_t>(it->second)]);
    *result = it->second;
    texts.emplace(it->second, it->first);
    return true;
  };
  std::vector<int32_t> merged;
  MergePairs(LinkSymbols(symbols), find, &merged);
  for (int32_t id : merged) {
    if (id < vocab) {
      ids->push_back(id);
    } else {
      AppendUnknown(others[static_cast<size_t>(id - vocab)], ids);
    }
  }
}

void SentencePieceTokenizer::EncodeByRanks(absl::string_view word,
                                           std::vector<int32_t>* ids) const {
  std::vector<int32_t> symbols;
  for (absl::string_view character : Characters(word)) {
    const auto it = ids_.find(character);
    if (it != ids_.end()) {
      symbols.push_back(it->second);
    } else {
      AppendUnknown(character, &symbols);
    }
  }
  MergePairs(LinkSymbols(symbols), merges_, ids);
}

// Viterbi: the best segmentation of the first i bytes, for every i at a character's end.
void SentencePieceTokenizer::EncodeUnigram(absl::string_view word,
                                           std::vector<int32_t>* ids) const {
  struct Best {
    double score = -std::numeric_limits<double>::infinity();
    size_t begin = 0;
    int32_t id = -1;  // -1: an unknown character
  };
  std::vector<Best> best(word.size() + 1);
  best[0].score = 0.0;
  for (size_t begin = 0; begin < word.size(); begin += CharacterBytes(word[begin])) {
    const double score = best[begin].score;
    const size_t character = std::min(CharacterBytes(word[begin]), word.size() - begin);
    bool single = false;
    for (size_t end = begin + character; end <= word.size() && end - begin <= longest_token_;) {
      const auto it = ids_.find(word.substr(begin, end - begin));
      if (it != ids_.end()) {
        const double with = score + static_cast<double>(scores_[static_cast<size_t>(it->second)]);
        if (with > best[end].score) best[end] = {with, begin, it->second};
        single |= end == begin + character;
      }
      if (end == word.size()) break;
      end += std::min(CharacterBytes(word[end]), word.size() - end);
    }
    const double unknown = score + static_cast<double>(unknown_score_);
    Best& next = best[begin + character];
    if (!single && unknown > next.score) next = {unknown, begin, -1};
  }
  std::vector<std::pair<absl::string_view, int32_t>> pieces;
  for (size_t end = word.size(); end > 0; end = best[end].begin) {
    pieces.emplace_back(word.substr(best[end].begin, end - best[end].begin), best[end].id);
  }
  bool after_unknown = false;  // unknown characters in a row are one unknown token
  for (auto piece = pieces.rbegin(); piece != pieces.rend(); ++piece) {
    if (piece->second >= 0) {
      ids->push_back(piece->second);
      after_unknown = false;
      continue;
    }
    const size_t before = ids->size();
    AppendUnknown(piece->first, ids);
    const bool is_unk = ids->size() == before + 1 && ids->back() == unk_;
    if (is_unk && after_unknown) ids->pop_back();
    after_unknown = is_unk;
  }
}

}  // namespace thermocline
