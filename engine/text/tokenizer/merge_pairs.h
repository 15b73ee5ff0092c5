// MergePairs: joins neighbouring symbols by priority, the work inside every byte-pair encoding.
#ifndef THERMOCLINE_ENGINE_TEXT_TOKENIZER_MERGE_PAIRS_H_
#define THERMOCLINE_ENGINE_TEXT_TOKENIZER_MERGE_PAIRS_H_

#include <algorithm>
#include <cstdint>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace thermocline {

struct MergeSymbol {
  int32_t id;        // -1: swallowed by its left neighbour
  int32_t previous;  // -1: none
  int32_t next;      // -1: none
};

// Links ids into a list.
inline std::vector<MergeSymbol> LinkSymbols(const std::vector<int32_t>& ids) {
  std::vector<MergeSymbol> symbols;
  symbols.reserve(ids.size());
  for (int32_t id : ids) {
    const int32_t index = static_cast<int32_t>(symbols.size());
    symbols.push_back({id, index - 1, index + 1});
  }
  if (!symbols.empty()) symbols.back().next = -1;
  return symbols;
}

// Pairs of ids that merge, those added first first; of two for the same pair the first counts.
class MergeTable {
 public:
  void Add(int32_t left, int32_t right, int32_t result) {
    merges_.emplace(Key(left, right), Merge{next_rank_++, result});
  }
  bool operator()(int32_t left, int32_t right, double* rank, int32_t* result) const {
    const auto it = merges_.find(Key(left, right));
    if (it == merges_.end()) return false;
    *rank = it->second.rank;
    *result = it->second.result;
    return true;
  }

 private:
  struct Merge {
    int32_t rank;
    int32_t result;
  };

  static uint64_t Key(int32_t left, int32_t right) {
    return (static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32) |
           static_cast<uint32_t>(right);
  }

  std::unordered_map<uint64_t, Merge> merges_;
  int32_t next_rank_ = 0;
};

// Adds pairs of token texts in order of priority. `bytes_of` gives the key of a text in `ids`, or
// in `added`: added tokens may be part of merges too. INVALID_ARGUMENT names a pair that the
// vocabulary lacks.
template <class Ids, class BytesOf>
absl::Status ReadMerges(const std::vector<std::pair<std::string, std::string>>& merges,
                        const Ids& ids, const Ids& added, const BytesOf& bytes_of,
                        MergeTable* table) {
  const auto id_of = [&](const std::string& bytes) {
    if (const auto it = ids.find(bytes); it != ids.end()) return it->second;
    const auto it = added.find(bytes);
    return it == added.end() ? -1 : it->second;
  };
  for (const auto& [left, right] : merges) {
    const std::string left_bytes = bytes_of(left), right_bytes = bytes_of(right);
    const int32_t l = id_of(left_bytes), r = id_of(right_bytes),
                  whole = id_of(left_bytes + right_bytes);
    if (l < 0 || r < 0 || whole < 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("merge \"", left, " ", right, "\" names tokens that the vocabulary lacks"));
    }
    table->Add(l, r, whole);
  }
  return absl::OkStatus();
}

struct PossibleMerge {
  double rank;   // lower first, then further left
  int32_t left;  // index of the left symbol
  int32_t left_id, right_id, result;
};

// `find(left id, right id, &rank, &result)` says whether two ids merge. The surviving ids are
// appended to `out`. n log n for n symbols: a linked list and a heap of possible merges, of which
// stale ones are skipped when they come up.
template <class Find>
void MergePairs(std::vector<MergeSymbol> symbols, const Find& find, std::vector<int32_t>* out) {
  if (symbols.empty()) return;
  const auto later = [](const PossibleMerge& a, const PossibleMerge& b) {
    return a.rank != b.rank ? a.rank > b.rank : a.left > b.left;
  };
  std::vector<PossibleMerge> heap;
  const auto at = [&](int32_t i) -> MergeSymbol& { return symbols[static_cast<size_t>(i)]; };
  const auto possible = [&](int32_t left, PossibleMerge* merge) {
    if (left < 0 || at(left).next < 0) return false;
    *merge = {0.0, left, at(left).id, at(at(left).next).id, 0};
    return find(merge->left_id, merge->right_id, &merge->rank, &merge->result);
  };
  PossibleMerge merge;
  for (size_t i = 0; i + 1 < symbols.size(); ++i) {
    if (possible(static_cast<int32_t>(i), &merge)) heap.push_back(merge);
  }
  std::make_heap(heap.begin(), heap.end(), later);
  const auto consider = [&](int32_t left) {
    PossibleMerge next;
    if (!possible(left, &next)) return;
    heap.push_back(next);
    std::push_heap(heap.begin(), heap.end(), later);
  };
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), later);
    merge = heap.back();
    heap.pop_back();
    MergeSymbol& left = at(merge.left);
    // Stale when either side has changed since.
    if (left.id != merge.left_id || left.next < 0) continue;
    MergeSymbol& right = at(left.next);
    if (right.id != merge.right_id) continue;
    left.id = merge.result;
    left.next = right.next;
    right.id = -1;
    if (left.next >= 0) at(left.next).previous = merge.left;
    consider(left.previous);
    consider(merge.left);
  }
  for (int32_t i = 0; i >= 0; i = at(i).next) out->push_back(at(i).id);
}

}  // namespace thermocline

#endif  // THERMOCLINE_ENGINE_TEXT_TOKENIZER_MERGE_PAIRS_H_
