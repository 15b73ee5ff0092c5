// Reader of GGUF files, versions 2 and 3, single or split in shards.
// Source: docs/gguf.md of the ggml repository.
#ifndef THERMOCLINE_ENGINE_FORMATS_GGUF_H_
#define THERMOCLINE_ENGINE_FORMATS_GGUF_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "engine/formats/checkpoint.h"

namespace thermocline {

// Metadata comes from the first shard. Errors say what is wrong and at which byte.
absl::StatusOr<std::unique_ptr<Checkpoint>> OpenGguf(const std::string& path);

}  // namespace thermocline

#endif  // THERMOCLINE_ENGINE_FORMATS_GGUF_H_
