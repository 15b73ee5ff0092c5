#include "engine/tokenizer/bpe_tokenizer.h"

#include <unicode/normalizer2.h>

#include <algorithm>
#include <queue>

#include "absl/strings/str_cat.h"
#include "engine/text_stream.h"

namespace thermocline {
namespace {

// Code point -> byte of GPT-2's alphabet: printable Latin-1 characters stand for themselves, the
// other bytes for the code points from 256 on, in order. Source: bytes_to_unicode in encoder.py of
// gpt-2.
const std::array<int, 512>& AlphabetToByte() {
  static const auto* const table = [] {
    auto* t = new std::array<int, 512>();
    t->fill(-1);
    int next = 256;
    for (int b = 0; b < 256; ++b) {
      const bool printable = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
      (*t)[static_cast<size_t>(printable ? b : next++)] = b;
    }
    return t;
  }();
  return *table;
}

std::string Nfc(absl::string_view text) {
  UErrorCode error = U_ZERO_ERROR;
  const icu::Normalizer2* nfc = icu::Normalizer2::getNFCInstance(error);
  if (U_FAILURE(error)) return std::string(text);
  std::string normalized;
  icu::StringByteSink<std::string> sink(&normalized);
  nfc->normalizeUTF8(0, icu::StringPiece(text.data(), static_cast<int32_t>(text.size())), sink,
                     nullptr, error);
  return U_FAILURE(error) ? std::string(text) : normalized;
}

uint64_t PairKey(int32_t left, int32_t right) {
  return (static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32) | static_cast<uint32_t>(right);
}

uint64_t TrieKey(int32_t node, char byte) {
  return (static_cast<uint64_t>(static_cast<uint32_t>(node)) << 8) |
         static_cast<unsigned char>(byte);
}

bool IsSpace(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

}  // namespace

std::string BytesOfPrintable(absl::string_view printable) {
  std::string bytes;
  for (size_t i = 0; i < printable.size();) {
    const unsigned char lead = static_cast<unsigned char>(printable[i]);
    // The alphabet lies below U+0200: one or two bytes of UTF-8.
    const bool two = (lead & 0xE0) == 0xC0 && i + 1 < printable.size();
    const int code_point =
        two ? ((lead & 0x1F) << 6) | (static_cast<unsigned char>(printable[i + 1]) & 0x3F) : lead;
    const int byte = code_point < 512 ? AlphabetToByte()[static_cast<size_t>(code_point)] : -1;
    const size_t length = two ? 2 : 1;
    if (byte >= 0) {
      bytes.push_back(static_cast<char>(byte));
    } else {
      bytes.append(printable.data() + i, length);
    }
    i += length;
  }
  return bytes;
}

absl::StatusOr<std::unique_ptr<Tokenizer>> BpeTokenizer::Create(BpeOptions options) {
  std::unique_ptr<BpeTokenizer> tokenizer(new BpeTokenizer());
  if (absl::Status s = tokenizer->Initialize(std::move(options)); !s.ok()) return s;
  return std::unique_ptr<Tokenizer>(std::move(tokenizer));
}

absl::Status BpeTokenizer::Initialize(BpeOptions options) {
  const size_t vocab = options.tokens.size();
  bytes_.resize(vocab);
  special_ids_.assign(vocab, false);
  byte_ids_.fill(-1);
  std::vector<bool> is_added(vocab, false);
  for (const AddedToken& token : options.added) {
    if (token.id < 0 || static_cast<size_t>(token.id) >= vocab || token.text.empty()) {
      return absl::InvalidArgumentError(absl::StrCat("added token \"", token.text, "\" has id ",
                                                     token.id, ", but the vocabulary has ", vocab));
    }
    bytes_[static_cast<size_t>(token.id)] = token.text;
    special_ids_[static_cast<size_t>(token.id)] = token.special;
    is_added[static_cast<size_t>(token.id)] = true;
  }
  for (size_t id = 0; id < vocab; ++id) {
    if (is_added[id] || options.tokens[id].empty()) continue;
    bytes_[id] = BytesOfPrintable(options.tokens[id]);
    ids_.emplace(bytes_[id], static_cast<int32_t>(id));  // the first of equal tokens wins
    if (bytes_[id].size() == 1)
      byte_ids_[static_cast<unsigned char>(bytes_[id][0])] = static_cast<int32_t>(id);
  }
  int32_t rank = 0;
  for (const auto& [left, right] : options.merges) {
    const std::string left_bytes = BytesOfPrintable(left), right_bytes = BytesOfPrintable(right);
    const auto l = ids_.find(left_bytes), r = ids_.find(right_bytes),
               whole = ids_.find(left_bytes + right_bytes);
    if (l == ids_.end() || r == ids_.end() || whole == ids_.end()) {
      return absl::InvalidArgumentError(
          absl::StrCat("merge \"", left, " ", right, "\" names tokens that the vocabulary lacks"));
    }
    merges_.emplace(PairKey(l->second, r->second), Merge{rank++, whole->second});
  }
  added_ = std::move(options.added);
  trie_token_.assign(1, -1);
  for (size_t i = 0; i < added_.size(); ++i) {
    int32_t node = 0;
    for (char c : added_[i].text) {
      const auto [next, fresh] =
          trie_.try_emplace(TrieKey(node, c), static_cast<int32_t>(trie_token_.size()));
      if (fresh) trie_token_.push_back(-1);
      node = next->second;
    }
    trie_token_[static_cast<size_t>(node)] = static_cast<int32_t>(i);
  }
  absl::StatusOr<std::unique_ptr<PreTokenizer>> pre_tokenizer =
      PreTokenizer::Create(options.split_rules);
  if (!pre_tokenizer.ok()) return pre_tokenizer.status();
  pre_tokenizer_ = *std::move(pre_tokenizer);
  nfc_ = options.nfc;
  ignore_merges_ = options.ignore_merges;
  special_ = options.special;
  end_tokens_ = std::move(options.end_tokens);
  chat_template_ = std::move(options.chat_template);
  return absl::OkStatus();
}

const AddedToken* BpeTokenizer::AddedAt(absl::string_view text, size_t position,
                                        bool parse_special) const {
  const AddedToken* longest = nullptr;
  int32_t node = 0;
  for (; position < text.size(); ++position) {
    const auto next = trie_.find(TrieKey(node, text[position]));
    if (next == trie_.end()) break;
    node = next->second;
    const int32_t index = trie_token_[static_cast<size_t>(node)];
    if (index < 0) continue;
    const AddedToken& token = added_[static_cast<size_t>(index)];
    if (!token.special || parse_special) longest = &token;
  }
  return longest;
}

absl::StatusOr<std::vector<int32_t>> BpeTokenizer::Encode(absl::string_view text,
                                                          bool parse_special) const {
  if (static_cast<int64_t>(text.size()) > kMaxTextBytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a text of ", text.size(), " bytes, but at most ", kMaxTextBytes, " are allowed"));
  }
  const std::string valid = ToValidUtf8(text);
  text = valid;
  std::vector<int32_t> ids;
  size_t begin = 0;  // of the ordinary text before the next added token
  for (size_t i = 0; i < text.size();) {
    const AddedToken* token = AddedAt(text, i, parse_special);
    if (token == nullptr) {
      ++i;
      continue;
    }
    size_t end = i;
    while (token->lstrip && end > begin && IsSpace(text[end - 1])) --end;
    EncodeOrdinary(text.substr(begin, end - begin), &ids);
    ids.push_back(token->id);
    i += token->text.size();
    while (token->rstrip && i < text.size() && IsSpace(text[i])) ++i;
    begin = i;
  }
  EncodeOrdinary(text.substr(begin), &ids);
  return ids;
}

void BpeTokenizer::EncodeOrdinary(absl::string_view text, std::vector<int32_t>* ids) const {
  if (text.empty()) return;
  std::string normalized;
  if (nfc_) {
    normalized = Nfc(text);
    text = normalized;
  }
  for (absl::string_view piece : pre_tokenizer_->Split(text)) EncodePiece(piece, ids);
}

void BpeTokenizer::EncodePiece(absl::string_view piece, std::vector<int32_t>* ids) const {
  if (ignore_merges_) {
    if (const auto it = ids_.find(std::string(piece)); it != ids_.end()) {
      ids->push_back(it->second);
      return;
    }
  }
  // A doubly linked list of symbols and a queue of possible merges: n log n for a piece of n bytes.
  struct Symbol {
    int32_t id;
    int32_t previous;
    int32_t next;
  };
  struct Possible {
    int32_t rank;
    int32_t left;  // index of the left symbol
    int32_t left_id, right_id, result;
    bool operator>(const Possible& other) const {
      return rank != other.rank ? rank > other.rank : left > other.left;
    }
  };
  std::vector<Symbol> symbols;
  symbols.reserve(piece.size());
  for (char c : piece) {
    const int32_t id = byte_ids_[static_cast<unsigned char>(c)];
    if (id < 0) continue;  // the vocabulary cannot express this byte
    const int32_t index = static_cast<int32_t>(symbols.size());
    symbols.push_back({id, index - 1, index + 1});
  }
  if (symbols.empty()) return;
  symbols.back().next = -1;
  std::priority_queue<Possible, std::vector<Possible>, std::greater<Possible>> queue;
  const auto consider = [&](int32_t left) {
    if (left < 0 || symbols[static_cast<size_t>(left)].next < 0) return;
    const Symbol& l = symbols[static_cast<size_t>(left)];
    const int32_t right_id = symbols[static_cast<size_t>(l.next)].id;
    const auto it = merges_.find(PairKey(l.id, right_id));
    if (it != merges_.end()) queue.push({it->second.rank, left, l.id, right_id, it->second.result});
  };
  for (size_t i = 0; i + 1 < symbols.size(); ++i) consider(static_cast<int32_t>(i));
  while (!queue.empty()) {
    const Possible merge = queue.top();
    queue.pop();
    Symbol& left = symbols[static_cast<size_t>(merge.left)];
    // Stale when either side has changed since; a consumed symbol has id -1.
    if (left.id != merge.left_id || left.next < 0) continue;
    Symbol& right = symbols[static_cast<size_t>(left.next)];
    if (right.id != merge.right_id) continue;
    left.id = merge.result;
    left.next = right.next;
    right.id = -1;
    if (left.next >= 0) symbols[static_cast<size_t>(left.next)].previous = merge.left;
    consider(left.previous);
    consider(merge.left);
  }
  for (int32_t i = 0; i >= 0; i = symbols[static_cast<size_t>(i)].next) {
    ids->push_back(symbols[static_cast<size_t>(i)].id);
  }
}

std::string BpeTokenizer::TokenBytes(int32_t id, bool with_special) const {
  if (id < 0 || static_cast<size_t>(id) >= bytes_.size()) return "";
  if (IsSpecial(id) && !with_special) return "";
  return bytes_[static_cast<size_t>(id)];
}

bool BpeTokenizer::IsSpecial(int32_t id) const {
  return id >= 0 && static_cast<size_t>(id) < special_ids_.size() &&
         special_ids_[static_cast<size_t>(id)];
}

}  // namespace thermocline
