// Reader of tokenizer.json and its companions, before a tokenizer is made of them.
#ifndef THERMOCLINE_ENGINE_TEXT_TOKENIZER_TOKENIZER_JSON_H_
#define THERMOCLINE_ENGINE_TEXT_TOKENIZER_TOKENIZER_JSON_H_

#include <string>
#include <variant>

#include "absl/status/statusor.h"
#include "engine/text/tokenizer/bpe_tokenizer.h"
#include "engine/text/tokenizer/sentencepiece_tokenizer.h"

namespace thermocline {

using AnyTokenizerOptions = std::variant<BpeOptions, SentencePieceOptions>;

// From a folder's tokenizer.json, tokenizer_config.json, generation_config.json and
// chat_template.jinja, of which only the first is needed. NOT_FOUND without it, UNIMPLEMENTED
// (naming the part) for what is not supported.
absl::StatusOr<AnyTokenizerOptions> ReadTokenizerFolder(const std::string& folder);

}  // namespace thermocline

#endif  // THERMOCLINE_ENGINE_TEXT_TOKENIZER_TOKENIZER_JSON_H_
