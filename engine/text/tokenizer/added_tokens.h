// AddedTokens: the tokens that are found in a text before anything else is done to it.
#ifndef THERMOCLINE_ENGINE_TEXT_TOKENIZER_ADDED_TOKENS_H_
#define THERMOCLINE_ENGINE_TEXT_TOKENIZER_ADDED_TOKENS_H_

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/strings/string_view.h"

namespace thermocline {

struct AddedToken {
  int32_t id = -1;
  std::string text;
  bool special = false;  // a control token: recognised only on request, not shown in output
  bool lstrip = false;   // swallows white space before it
  bool rstrip = false;   // and after it
};

// Const after creation; any thread.
class AddedTokens {
 public:
  explicit AddedTokens(std::vector<AddedToken> tokens);

  // Cuts a text at the tokens, the longest that start at a place winning, and calls in order
  // `ordinary` with what lies between (never empty; `first`: no token came before) and `token` with
  // the ids.
  void Split(absl::string_view text, bool parse_special,
             absl::FunctionRef<void(absl::string_view text, bool first)> ordinary,
             absl::FunctionRef<void(int32_t id)> token) const;

 private:
  // The token that starts at text[position]; null if none.
  const AddedToken* At(absl::string_view text, size_t position, bool parse_special) const;

  std::vector<AddedToken> tokens_;
  // A trie of the tokens' bytes: (node, byte) -> node; node 0 is the root.
  std::unordered_map<uint64_t, int32_t> trie_;
  std::vector<int32_t> token_of_node_;  // index into tokens_, or -1
  bool starts_[256] = {};               // bytes with which some token starts
};

}  // namespace thermocline

#endif  // THERMOCLINE_ENGINE_TEXT_TOKENIZER_ADDED_TOKENS_H_
