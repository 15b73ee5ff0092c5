#include "engine/text/tokenizer/bpe_tokenizer.h"

#include "engine/text/tokenizer/merge_pairs.h"
#include "engine/text/tokenizer/piece_cache.h"

namespace thermocline {
namespace {

// Code point -> byte of GPT-2's alphabet: printable Latin-1 characters stand for themselves, the
// other bytes for the code points from 256 on, in order. Source: bytes_to_unicode in encoder.py of
// gpt-2.
const std::array<int, 512>& AlphabetToByte() {
  static const auto* const table = [] {
    auto* t = new std::array<int, 512>();
    t->fill(-1);
    int next = 256;
    for (int b = 0; b < 256; ++b) {
      const bool printable = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
      (*t)[static_cast<size_t>(printable ? b : next++)] = b;
    }
    return t;
  }();
  return *table;
}

}  // namespace

std::string BytesOfPrintable(absl::string_view printable) {
  std::string bytes;
  for (size_t i = 0; i < printable.size();) {
    const unsigned char lead = static_cast<unsigned char>(printable[i]);
    // The alphabet lies below U+0200: one or two bytes of UTF-8.
    const bool two = (lead & 0xE0) == 0xC0 && i + 1 < printable.size();
    const int code_point =
        two ? ((lead & 0x1F) << 6) | (static_cast<unsigned char>(printable[i + 1]) & 0x3F) : lead;
    const int byte = code_point < 512 ? AlphabetToByte()[static_cast<size_t>(code_point)] : -1;
    const size_t length = two ? 2 : 1;
    if (byte >= 0) {
      bytes.push_back(static_cast<char>(byte));
    } else {
      bytes.append(printable.data() + i, length);
    }
    i += length;
  }
  return bytes;
}

std::string PrintableOfBytes(absl::string_view bytes) {
  static const auto* const table = [] {
    auto* t = new std::array<std::string, 256>();
    for (int code_point = 0; code_point < 512; ++code_point) {
      const int byte = AlphabetToByte()[static_cast<size_t>(code_point)];
      if (byte < 0) continue;
      std::string& text = (*t)[static_cast<size_t>(byte)];
      if (code_point < 128) {
        text.push_back(static_cast<char>(code_point));
      } else {
        text.push_back(static_cast<char>(0xC0 | code_point >> 6));
        text.push_back(static_cast<char>(0x80 | (code_point & 0x3F)));
      }
    }
    return t;
  }();
  std::string printable;
  for (char c : bytes) printable += (*table)[static_cast<unsigned char>(c)];
  return printable;
}

absl::StatusOr<std::unique_ptr<Tokenizer>> BpeTokenizer::Create(BpeOptions options) {
  std::unique_ptr<BpeTokenizer> tokenizer(new BpeTokenizer());
  if (absl::Status s = tokenizer->Initialize(std::move(options)); !s.ok()) return s;
  return std::unique_ptr<Tokenizer>(std::move(tokenizer));
}

absl::Status BpeTokenizer::Initialize(BpeOptions options) {
  const std::vector<std::string>& tokens = options.tokens;
  if (absl::Status s = InitializeBase(&options); !s.ok()) return s;
  byte_ids_.fill(-1);
  std::unordered_map<std::string, int32_t> added;  // which may be part of merges too
  for (size_t id = 0; id < tokens.size(); ++id) {
    if (!bytes_[id].empty() || tokens[id].empty()) {  // an added token has its bytes
      added.emplace(BytesOfPrintable(tokens[id]), static_cast<int32_t>(id));
      continue;
    }
    bytes_[id] = BytesOfPrintable(tokens[id]);
    // The first of equal tokens wins.
    const bool fresh = ids_.emplace(bytes_[id], static_cast<int32_t>(id)).second;
    if (fresh && bytes_[id].size() == 1)
      byte_ids_[static_cast<unsigned char>(bytes_[id][0])] = static_cast<int32_t>(id);
  }
  const auto bytes_of = [](const std::string& text) { return BytesOfPrintable(text); };
  if (absl::Status s = ReadMerges(options.merges, ids_, added, bytes_of, &merges_); !s.ok())
    return s;
  absl::StatusOr<std::unique_ptr<PreTokenizer>> pre_tokenizer =
      PreTokenizer::Create(options.split_rules);
  if (!pre_tokenizer.ok()) return pre_tokenizer.status();
  pre_tokenizer_ = *std::move(pre_tokenizer);
  ignore_merges_ = options.ignore_merges;
  return absl::OkStatus();
}

void BpeTokenizer::EncodeOrdinary(absl::string_view text, bool, std::vector<int32_t>* ids) const {
  PieceCache cache;
  for (absl::string_view piece : pre_tokenizer_->Split(text)) {
    cache.Append(piece, ids, [&] { EncodePiece(piece, ids); });
  }
}

void BpeTokenizer::EncodePiece(absl::string_view piece, std::vector<int32_t>* ids) const {
  if (ignore_merges_) {
    if (const auto it = ids_.find(std::string(piece)); it != ids_.end()) {
      ids->push_back(it->second);
      return;
    }
  }
  std::vector<int32_t> bytes;
  bytes.reserve(piece.size());
  for (char c : piece) {
    const int32_t id = byte_ids_[static_cast<unsigned char>(c)];
    if (id >= 0) bytes.push_back(id);  // else the vocabulary cannot express this byte
  }
  MergePairs(LinkSymbols(bytes), merges_, ids);
}

}  // namespace thermocline
