// MarkerScanner: a stream of text cut at the first of some markers, which may straddle pieces.
#ifndef THERMOCLINE_ENGINE_TEXT_CHAT_MARKER_SCANNER_H_
#define THERMOCLINE_ENGINE_TEXT_CHAT_MARKER_SCANNER_H_

#include <string>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace thermocline {

class MarkerScanner {
 public:
  void Append(absl::string_view text) { pending_.append(text.data(), text.size()); }

  // Takes the text before the first of the markers, the longest where several start, and the marker
  // itself: its index is returned. Without one, takes what cannot be part of one and returns -1.
  int Take(absl::Span<const absl::string_view> markers, std::string* text);
  // Everything, at the end.
  std::string TakeRest();

 private:
  std::string pending_;
};

}  // namespace thermocline

#endif  // THERMOCLINE_ENGINE_TEXT_CHAT_MARKER_SCANNER_H_
