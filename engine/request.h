// What a client asks of the engine, and what it gets back. Both doors and the command line fill
// these.
#ifndef THERMOCLINE_ENGINE_REQUEST_H_
#define THERMOCLINE_ENGINE_REQUEST_H_

#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"

namespace thermocline {

using RequestId = uint64_t;

struct SamplingParams {
  float temperature = 1.0f;  // 0: greedy
  int top_k = 0;             // 0: all
  float top_p = 1.0f;
  float min_p = 0.0f;
  float repetition_penalty = 1.0f;  // over prompt and output
  float presence_penalty = 0.0f;    // over the output
  float frequency_penalty = 0.0f;   // over the output
  uint64_t seed = 0;
  std::map<int32_t, float> logit_bias;
};

struct GenerateRequest {
  std::vector<int32_t> prompt;
  SamplingParams sampling;
  // At most this many new tokens; 0 computes the prompt only (scoring). Unset: up to the context's
  // end.
  std::optional<int64_t> max_tokens;
  // Output token i is forced[i], as far as there are any, instead of one chosen from the logits:
  // for benchmarks that must not depend on what a model says.
  std::vector<int32_t> forced;
  std::vector<std::string> stop;
  std::vector<int32_t> stop_token_ids;
  bool ignore_eos = false;
  bool show_special = false;  // control tokens are part of the text; those that end it are not
  // -1: none; n >= 0: the log-probability of each output token and of the n likeliest.
  int logprobs = -1;
  // Deliver the logits of every prompt token to ResponseSink::OnPromptLogits.
  bool prompt_logits = false;
  double deadline = std::numeric_limits<double>::infinity();  // on the engine's clock, seconds
};

// Limits of requests, checked once at the edge.
inline constexpr int kMaxStopStrings = 64;
inline constexpr int kMaxStopBytes = 1024;
inline constexpr int kMaxStopTokenIds = 1024;
inline constexpr int kMaxTopLogprobs = 20;
inline constexpr int kMaxLogitBias = 4096;

// INVALID_ARGUMENT naming the field, its value and what is allowed.
absl::Status ValidateRequest(const GenerateRequest& request, int64_t vocab_size,
                             int64_t max_context);

enum class FinishReason { kStop, kLength, kCancelled, kDeadline, kError };

struct TokenLogprob {
  int32_t token = 0;
  float logprob = 0.0f;
};

struct OutputToken {
  int32_t token = 0;
  float logprob = 0.0f;           // when asked for
  std::vector<TokenLogprob> top;  // when asked for, likeliest first
};

// What one step adds to a response. Text is valid UTF-8 and may lag behind the tokens: incomplete
// characters and possible beginnings of stop strings are held back.
struct Delta {
  std::vector<OutputToken> tokens;
  std::string text;
};

struct Result {
  FinishReason reason = FinishReason::kStop;
  absl::Status status;       // not OK for kError, kCancelled and kDeadline
  std::string stop_matched;  // the stop string, if one ended the output
  int64_t prompt_tokens = 0;
  int64_t completion_tokens = 0;
  double queue_seconds = 0.0;        // until the first token was scheduled; negative if none was
  double first_token_seconds = 0.0;  // since submission; 0 without output
  double total_seconds = 0.0;        // since submission
};

// Receives one request's output on the engine thread, which it must not block.
class ResponseSink {
 public:
  virtual ~ResponseSink() = default;
  // False asks the engine to cancel the request (the client reads too slowly, or has gone).
  virtual bool OnDelta(Delta delta) = 0;
  // Logits [vocab] after prompt token `position`; may come again after a preemption.
  virtual void OnPromptLogits(int64_t position, absl::Span<const float> logits) {
    (void)position;
    (void)logits;
  }
  // Exactly once, as the last call.
  virtual void OnDone(const Result& result) = 0;
};

}  // namespace thermocline

#endif  // THERMOCLINE_ENGINE_REQUEST_H_
