#include "engine/text/tokenizer/added_tokens.h"

#include <unicode/uchar.h>
#include <unicode/utf8.h>

namespace thermocline {
namespace {

uint64_t TrieKey(int32_t node, char byte) {
  return (static_cast<uint64_t>(static_cast<uint32_t>(node)) << 8) |
         static_cast<unsigned char>(byte);
}

// The length of the white space character that ends at `end`, or begins at `begin`; 0 if none does.
size_t SpaceBefore(absl::string_view text, size_t end) {
  const uint8_t* bytes = reinterpret_cast<const uint8_t*>(text.data());
  int32_t at = static_cast<int32_t>(end);
  UChar32 c = 0;
  U8_PREV(bytes, 0, at, c);
  return c >= 0 && u_isUWhiteSpace(c) ? end - static_cast<size_t>(at) : 0;
}
size_t SpaceAfter(absl::string_view text, size_t begin) {
  const uint8_t* bytes = reinterpret_cast<const uint8_t*>(text.data());
  int32_t at = static_cast<int32_t>(begin);
  UChar32 c = 0;
  U8_NEXT(bytes, at, static_cast<int32_t>(text.size()), c);
  return c >= 0 && u_isUWhiteSpace(c) ? static_cast<size_t>(at) - begin : 0;
}

}  // namespace

AddedTokens::AddedTokens(std::vector<AddedToken> tokens) : tokens_(std::move(tokens)) {
  token_of_node_.assign(1, -1);
  for (size_t i = 0; i < tokens_.size(); ++i) {
    if (tokens_[i].text.empty()) continue;
    starts_[static_cast<unsigned char>(tokens_[i].text[0])] = true;
    int32_t node = 0;
    for (char c : tokens_[i].text) {
      const auto [next, fresh] =
          trie_.try_emplace(TrieKey(node, c), static_cast<int32_t>(token_of_node_.size()));
      if (fresh) token_of_node_.push_back(-1);
      node = next->second;
    }
    token_of_node_[static_cast<size_t>(node)] = static_cast<int32_t>(i);
  }
}

const AddedToken* AddedTokens::At(absl::string_view text, size_t position,
                                  bool parse_special) const {
  if (!starts_[static_cast<unsigned char>(text[position])]) return nullptr;
  const AddedToken* longest = nullptr;
  int32_t node = 0;
  for (; position < text.size(); ++position) {
    const auto next = trie_.find(TrieKey(node, text[position]));
    if (next == trie_.end()) break;
    node = next->second;
    const int32_t index = token_of_node_[static_cast<size_t>(node)];
    if (index < 0) continue;
    const AddedToken& token = tokens_[static_cast<size_t>(index)];
    if (!token.special || parse_special) longest = &token;
  }
  return longest;
}

void AddedTokens::Split(absl::string_view text, bool parse_special,
                        absl::FunctionRef<void(absl::string_view, bool)> ordinary,
                        absl::FunctionRef<void(int32_t)> token) const {
  size_t begin = 0;  // of the ordinary text before the next token
  bool first = true;
  const auto flush = [&](size_t end) {
    if (end > begin) ordinary(text.substr(begin, end - begin), first);
  };
  for (size_t i = 0; i < text.size();) {
    const AddedToken* found = At(text, i, parse_special);
    if (found == nullptr) {
      ++i;
      continue;
    }
    size_t end = i;
    for (size_t n = 1; found->lstrip && end > begin && n > 0; end -= n)
      n = SpaceBefore(text.substr(begin), end - begin);
    flush(end);
    token(found->id);
    first = false;
    i += found->text.size();
    for (size_t n = 1; found->rstrip && i < text.size() && n > 0; i += n) n = SpaceAfter(text, i);
    begin = i;
  }
  flush(text.size());
}

}  // namespace thermocline
