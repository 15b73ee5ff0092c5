#include "engine/tokenizer/tokenizer.h"

#include <filesystem>

#include "engine/text_stream.h"

namespace thermocline {

std::string Tokenizer::Decode(absl::Span<const int32_t> ids, bool with_special) const {
  std::string bytes;
  for (int32_t id : ids) bytes += TokenBytes(id, with_special);
  return ToValidUtf8(bytes);
}

absl::StatusOr<std::unique_ptr<Tokenizer>> TokenizerOf(const Checkpoint& checkpoint) {
  if (checkpoint.kind() == Checkpoint::Kind::kGguf) return TokenizerFromGguf(checkpoint.metadata());
  return TokenizerFromFolder(checkpoint.path());
}

}  // namespace thermocline
