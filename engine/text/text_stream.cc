#include "engine/text/text_stream.h"

#include <algorithm>

namespace thermocline {
namespace {

enum class Utf8 { kValid, kIncomplete, kInvalid };

struct Utf8Step {
  Utf8 kind;
  size_t length;  // bytes of the character, or of the maximal ill-formed part
};

// Classifies the sequence at the start of non-empty `s` (Unicode table 3-7).
Utf8Step Next(absl::string_view s) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(s[i]); };
  const unsigned char lead = byte(0);
  if (lead < 0x80) return {Utf8::kValid, 1};
  size_t length = 0;
  unsigned char low = 0x80, high = 0xBF;  // bounds of the second byte
  if (lead >= 0xC2 && lead <= 0xDF) {
    length = 2;
  } else if (lead >= 0xE0 && lead <= 0xEF) {
    length = 3;
    if (lead == 0xE0) low = 0xA0;
    if (lead == 0xED) high = 0x9F;
  } else if (lead >= 0xF0 && lead <= 0xF4) {
    length = 4;
    if (lead == 0xF0) low = 0x90;
    if (lead == 0xF4) high = 0x8F;
  } else {
    return {Utf8::kInvalid, 1};
  }
  for (size_t i = 1; i < length; ++i) {
    if (i == s.size()) return {Utf8::kIncomplete, i};
    if (byte(i) < low || byte(i) > high) return {Utf8::kInvalid, i};
    low = 0x80;
    high = 0xBF;
  }
  return {Utf8::kValid, length};
}

}  // namespace

size_t CompleteUtf8Prefix(absl::string_view bytes) {
  // Only the last three bytes can begin an incomplete character.
  for (size_t back = std::min<size_t>(3, bytes.size()); back >= 1; --back) {
    const size_t start = bytes.size() - back;
    const Utf8Step step = Next(bytes.substr(start));
    if (step.kind == Utf8::kIncomplete && step.length == back) return start;
  }
  return bytes.size();
}

std::string ToValidUtf8(absl::string_view bytes) {
  std::string text;
  text.reserve(bytes.size());
  while (!bytes.empty()) {
    const Utf8Step step = Next(bytes);
    if (step.kind == Utf8::kValid) {
      text.append(bytes.data(), step.length);
    } else {
      text.append("\xEF\xBF\xBD");
    }
    bytes.remove_prefix(step.length);
  }
  return text;
}

std::string TextStream::Append(absl::string_view bytes) {
  pending_.append(bytes.data(), bytes.size());
  size_t first = std::string::npos;
  for (const std::string& stop : stops_) {
    const size_t found = pending_.find(stop);
    if (found < first) {
      first = found;
      matched_ = stop;
    }
  }
  if (first != std::string::npos) {
    std::string text = ToValidUtf8(absl::string_view(pending_).substr(0, first));
    pending_.clear();
    return text;
  }
  // The longest end of pending_ that is the beginning of a stop string stays.
  size_t keep = 0;
  for (const std::string& stop : stops_) {
    for (size_t length = std::min(stop.size() - 1, pending_.size()); length > keep; --length) {
      if (absl::string_view(pending_).substr(pending_.size() - length) ==
          absl::string_view(stop).substr(0, length)) {
        keep = length;
      }
    }
  }
  const size_t ready =
      CompleteUtf8Prefix(absl::string_view(pending_).substr(0, pending_.size() - keep));
  std::string text = ToValidUtf8(absl::string_view(pending_).substr(0, ready));
  pending_.erase(0, ready);
  return text;
}

std::string TextStream::Finish() {
  std::string text = ToValidUtf8(pending_);
  pending_.clear();
  return text;
}

}  // namespace thermocline
