// Running one request to its end in the calling thread, for commands.
#ifndef THERMOCLINE_SERVER_CLI_RUN_REQUEST_H_
#define THERMOCLINE_SERVER_CLI_RUN_REQUEST_H_

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/engine.h"

namespace thermocline {

struct Completion {
  std::vector<int32_t> tokens;
  std::string text;
  Result result;
};

struct RunCallbacks {
  std::function<void(const std::string& text)> on_text;
  std::function<void(int64_t position, absl::Span<const float> logits)> on_prompt_logits;
};

// Errors of the request come back as the status.
absl::StatusOr<Completion> RunRequest(Engine* engine, GenerateRequest request,
                                      const RunCallbacks& callbacks = {});

}  // namespace thermocline

#endif  // THERMOCLINE_SERVER_CLI_RUN_REQUEST_H_
