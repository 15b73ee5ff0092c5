// TextStream: a request's output bytes on their way to valid UTF-8 deltas, watching for stop
// strings.
#ifndef THERMOCLINE_ENGINE_TEXT_TEXT_STREAM_H_
#define THERMOCLINE_ENGINE_TEXT_TEXT_STREAM_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace thermocline {

class TextStream {
 public:
  explicit TextStream(std::vector<std::string> stops) : stops_(std::move(stops)) {}

  // Adds one token's bytes and returns the text that is now certain: whole characters that cannot
  // belong to a stop string. Ill-formed bytes become U+FFFD. Once a stop string is complete, the
  // text before it is returned and stopped() holds.
  std::string Append(absl::string_view bytes);
  // What is still held back, at the end of the output.
  std::string Finish();

  bool stopped() const { return !matched_.empty(); }
  const std::string& matched() const { return matched_; }

 private:
  std::vector<std::string> stops_;
  std::string pending_;
  std::string matched_;
};

// Length of the longest prefix without an incomplete character at its end. Ill-formed sequences
// count as complete.
size_t CompleteUtf8Prefix(absl::string_view bytes);
// Every maximal ill-formed part replaced by U+FFFD (Unicode 15, section 3.9, best practice).
std::string ToValidUtf8(absl::string_view bytes);

}  // namespace thermocline

#endif  // THERMOCLINE_ENGINE_TEXT_TEXT_STREAM_H_
