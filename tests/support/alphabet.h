// The model of tests/data/alphabet.gguf, whose every logit is known by hand: after token t they are
// 4 for t's successor, 2 for that one's successor and 0 for the other 62 of 64 tokens
// (tests/data/tools/make_alphabet.py).
#ifndef THERMOCLINE_TESTS_SUPPORT_ALPHABET_H_
#define THERMOCLINE_TESTS_SUPPORT_ALPHABET_H_

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

namespace thermocline::alphabet {

inline std::string Path() { return THERMOCLINE_SOURCE_DIR "/tests/data/alphabet.gguf"; }

inline constexpr int32_t kBos = 0;  // then a to z, then the end
inline constexpr int32_t kEnd = 1;  // then a again, for those who ignore it
inline constexpr int32_t kNote = 2;
inline constexpr int32_t kVocabSize = 64;
inline constexpr int kNumExperts = 4;
inline constexpr int kNumLayers = 2;
inline constexpr int64_t kContext = 16384;

constexpr int32_t Letter(char letter) { return 7 + (letter - 'a'); }
constexpr int32_t Digit(int digit) { return 33 + digit; }  // round and round, without an end
inline constexpr int32_t kSpace =
    43;  // then the three bytes of a euro sign, ".", a line end, the end
inline constexpr int32_t kColon = 46;  // then the control token <|note|>, "!", the end
inline constexpr int32_t kExclamationMark = 64 - 1;

// The tokens of a text of letters and digits.
inline std::vector<int32_t> Tokens(const std::string& text) {
  std::vector<int32_t> ids;
  for (char c : text) ids.push_back(c <= '9' ? Digit(c - '0') : Letter(c));
  return ids;
}

// A copy of the model with `from` replaced by `to`, which must be as long, at its first place.
inline void WriteVariant(const std::string& from, const std::string& to, const std::string& path) {
  std::ifstream in(Path(), std::ios::binary);
  std::string bytes((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  const size_t at = bytes.find(from);
  ASSERT_NE(at, std::string::npos) << from;
  ASSERT_EQ(from.size(), to.size());
  bytes.replace(at, to.size(), to);
  std::ofstream(path, std::ios::binary) << bytes;
}

// log(softmax) of the three logits that there are: log(e^4 + e^2 + 62 e^0) = 4.820178.
inline float LogProb(double logit) {
  return static_cast<float>(logit - std::log(std::exp(4.0) + std::exp(2.0) + 62.0));
}

}  // namespace thermocline::alphabet

#endif  // THERMOCLINE_TESTS_SUPPORT_ALPHABET_H_
