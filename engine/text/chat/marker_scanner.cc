#include "engine/text/chat/marker_scanner.h"

#include <algorithm>

#include "absl/strings/match.h"

namespace thermocline {

int MarkerScanner::Take(absl::Span<const absl::string_view> markers, std::string* text) {
  size_t first = std::string::npos;
  int found = -1;
  for (size_t m = 0; m < markers.size(); ++m) {
    const size_t at = pending_.find(markers[m].data(), 0, markers[m].size());
    if (at == std::string::npos || at > first) continue;
    const bool longer =
        at < first || markers[m].size() > markers[static_cast<size_t>(found)].size();
    if (!longer) continue;
    first = at;
    found = static_cast<int>(m);
  }
  if (found >= 0) {
    text->append(pending_, 0, first);
    pending_.erase(0, first + markers[static_cast<size_t>(found)].size());
    return found;
  }
  // The longest end that may be the beginning of a marker stays.
  size_t keep = 0;
  for (absl::string_view marker : markers) {
    for (size_t length = std::min(marker.size() - 1, pending_.size()); length > keep; --length) {
      if (absl::EndsWith(pending_, marker.substr(0, length))) keep = length;
    }
  }
  text->append(pending_, 0, pending_.size() - keep);
  pending_.erase(0, pending_.size() - keep);
  return -1;
}

std::string MarkerScanner::TakeRest() {
  std::string rest;
  rest.swap(pending_);
  return rest;
}

}  // namespace thermocline
