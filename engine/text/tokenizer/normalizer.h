// Normalizer: what is done to a text before it is cut into tokens.
#ifndef THERMOCLINE_ENGINE_TEXT_TOKENIZER_NORMALIZER_H_
#define THERMOCLINE_ENGINE_TEXT_TOKENIZER_NORMALIZER_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace thermocline {

struct NormalizerStep {
  enum class Kind { kNfc, kNfkc, kNfd, kNfkd, kLowercase, kPrepend, kReplace, kStrip };
  Kind kind = Kind::kNfc;
  // Of the kinds that have them.
  std::string pattern = {};          // kReplace: a literal
  std::string content = {};          // kPrepend, kReplace
  bool left = false, right = false;  // kStrip
};

// Applies the steps in order. `text` is valid UTF-8, and so is the result. Unicode forms by ICU.
std::string Normalize(const std::vector<NormalizerStep>& steps, absl::string_view text);

}  // namespace thermocline

#endif  // THERMOCLINE_ENGINE_TEXT_TOKENIZER_NORMALIZER_H_
