#include "engine/request.h"

#include <cmath>

#include "absl/strings/str_cat.h"

namespace thermocline {
namespace {

absl::Status OutOfRange(absl::string_view field, double value, absl::string_view allowed) {
  return absl::InvalidArgumentError(absl::StrCat(field, " = ", value, ", but ", allowed));
}

absl::Status CheckSampling(const SamplingParams& s, int64_t vocab_size) {
  // Written so that NaN fails.
  if (!(s.temperature >= 0.0f && s.temperature <= 100.0f)) {
    return OutOfRange("temperature", s.temperature, "0 to 100 is allowed");
  }
  if (s.top_k < 0) return OutOfRange("top_k", s.top_k, "0 (all) or more is allowed");
  if (!(s.top_p > 0.0f && s.top_p <= 1.0f))
    return OutOfRange("top_p", s.top_p, "above 0 up to 1 is allowed");
  if (!(s.min_p >= 0.0f && s.min_p <= 1.0f))
    return OutOfRange("min_p", s.min_p, "0 to 1 is allowed");
  if (!(s.repetition_penalty > 0.0f && s.repetition_penalty <= 100.0f)) {
    return OutOfRange("repetition_penalty", s.repetition_penalty, "above 0 up to 100 is allowed");
  }
  if (!(std::fabs(s.presence_penalty) <= 2.0f)) {
    return OutOfRange("presence_penalty", s.presence_penalty, "-2 to 2 is allowed");
  }
  if (!(std::fabs(s.frequency_penalty) <= 2.0f)) {
    return OutOfRange("frequency_penalty", s.frequency_penalty, "-2 to 2 is allowed");
  }
  if (s.logit_bias.size() > kMaxLogitBias) {
    return OutOfRange("entries of logit_bias", static_cast<double>(s.logit_bias.size()),
                      absl::StrCat("at most ", kMaxLogitBias, " are allowed"));
  }
  for (const auto& [token, bias] : s.logit_bias) {
    if (token < 0 || token >= vocab_size) {
      return absl::InvalidArgumentError(
          absl::StrCat("logit_bias names token ", token, ", but the vocabulary has ", vocab_size));
    }
    if (!(std::fabs(bias) <= 100.0f))
      return OutOfRange("logit_bias", bias, "-100 to 100 is allowed");
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ValidateRequest(const GenerateRequest& request, int64_t vocab_size,
                             int64_t max_context) {
  if (request.prompt.empty())
    return absl::InvalidArgumentError("the prompt is empty: at least one token is needed");
  for (int32_t token : request.prompt) {
    if (token < 0 || token >= vocab_size) {
      return absl::InvalidArgumentError(
          absl::StrCat("prompt token ", token, ", but the vocabulary has ", vocab_size, " tokens"));
    }
  }
  for (int32_t token : request.forced) {
    if (token < 0 || token >= vocab_size) {
      return absl::InvalidArgumentError(
          absl::StrCat("forced token ", token, ", but the vocabulary has ", vocab_size, " tokens"));
    }
  }
  const int64_t prompt = static_cast<int64_t>(request.prompt.size());
  if (request.max_tokens.has_value() && *request.max_tokens < 0) {
    return OutOfRange("max_tokens", static_cast<double>(*request.max_tokens),
                      "0 or more is allowed");
  }
  const int64_t least = request.max_tokens.value_or(1) > 0 ? 1 : 0;
  if (prompt + least > max_context) {
    return absl::InvalidArgumentError(absl::StrCat("the prompt has ", prompt,
                                                   " tokens, but the context holds ", max_context,
                                                   " with the answer"));
  }
  if (request.stop.size() > kMaxStopStrings) {
    return OutOfRange("number of stop strings", static_cast<double>(request.stop.size()),
                      absl::StrCat("at most ", kMaxStopStrings, " are allowed"));
  }
  for (const std::string& stop : request.stop) {
    if (stop.empty() || stop.size() > kMaxStopBytes) {
      return OutOfRange("length of a stop string", static_cast<double>(stop.size()),
                        absl::StrCat("1 to ", kMaxStopBytes, " bytes are allowed"));
    }
  }
  if (request.stop_token_ids.size() > kMaxStopTokenIds) {
    return OutOfRange("number of stop_token_ids",
                      static_cast<double>(request.stop_token_ids.size()),
                      absl::StrCat("at most ", kMaxStopTokenIds, " are allowed"));
  }
  if (request.logprobs < -1 || request.logprobs > kMaxTopLogprobs) {
    return OutOfRange("logprobs", request.logprobs,
                      absl::StrCat("0 to ", kMaxTopLogprobs, " is allowed"));
  }
  return CheckSampling(request.sampling, vocab_size);
}

}  // namespace thermocline
