// PieceCache: the ids of the pieces that one text repeats.
#ifndef THERMOCLINE_ENGINE_TEXT_TOKENIZER_PIECE_CACHE_H_
#define THERMOCLINE_ENGINE_TEXT_TOKENIZER_PIECE_CACHE_H_

#include <cstdint>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"

namespace thermocline {

// Lives as long as one text; pieces are views of it. Words repeat, so most of a long text is found
// here.
class PieceCache {
 public:
  // Appends the piece's ids: those it had before, or else what `encode` appends to `ids`.
  template <class Encode>
  void Append(absl::string_view piece, std::vector<int32_t>* ids, const Encode& encode) {
    if (piece.size() > kMaxPieceBytes) return encode();
    const auto [it, fresh] = known_.try_emplace(piece);
    if (fresh) {
      it->second.begin = ids->size();
      encode();
      it->second.count = ids->size() - it->second.begin;
      return;
    }
    const Span span = it->second;
    for (size_t i = 0; i < span.count; ++i) ids->push_back((*ids)[span.begin + i]);
  }

 private:
  static constexpr size_t kMaxPieceBytes = 64;
  struct Span {
    size_t begin = 0, count = 0;  // where the ids lie that the piece got first
  };
  absl::flat_hash_map<absl::string_view, Span> known_;
};

}  // namespace thermocline

#endif  // THERMOCLINE_ENGINE_TEXT_TOKENIZER_PIECE_CACHE_H_
