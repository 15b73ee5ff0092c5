// A folder's tokenizer as the tokenizer.* metadata of GGUF.
#ifndef THERMOCLINE_ENGINE_MODEL_CONVERT_TOKENIZER_METADATA_H_
#define THERMOCLINE_ENGINE_MODEL_CONVERT_TOKENIZER_METADATA_H_

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "engine/formats/gguf_writer.h"
#include "nlohmann/json_fwd.hpp"

namespace thermocline {

// Reads tokenizer.json and its companions in `folder`. A folder without one gives a model that
// takes token ids only, and a warning. `config` is config.json, for vocab_size and the kind
// of model. What GGUF cannot hold is lost with a warning. Source of the keys and token types:
// gguf_writer.py and conversion/base.py of llama.cpp.
absl::Status AddTokenizerMetadata(const std::string& folder, const nlohmann::json& config,
                                  const std::function<void(const std::string&)>& warn,
                                  GgufWriter* writer);

}  // namespace thermocline

#endif  // THERMOCLINE_ENGINE_MODEL_CONVERT_TOKENIZER_METADATA_H_
