// The sampler: logits in, one token out. Pure: the same inputs give the same token.
#ifndef THERMOCLINE_ENGINE_SAMPLER_H_
#define THERMOCLINE_ENGINE_SAMPLER_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "engine/request.h"

namespace thermocline {

// Chooses the token that follows `tokens` (prompt, then output). logits [vocab].
//
// Bias, then penalties (Keskar et al. 2019 for repetition; OpenAI's for presence and frequency),
// then temperature, min_p (Nguyen et al. 2024), top_k, top_p (Holtzman et al. 2020). The random
// number is a hash of the seed and the position, so a request's output does not depend on what else
// ran. Greedy ties go to the lower id; NaN logits lose.
int32_t SampleToken(absl::Span<const float> logits, const SamplingParams& params,
                    absl::Span<const int32_t> tokens, int64_t num_prompt);

// Log-probabilities under the model's own distribution, before bias, penalties and temperature.
// log(softmax(logits))[token].
float LogprobOf(absl::Span<const float> logits, int32_t token);
// The chosen token with its log-probability and the `num_top` likeliest.
OutputToken WithLogprobs(absl::Span<const float> logits, int32_t token, int num_top);

}  // namespace thermocline

#endif  // THERMOCLINE_ENGINE_SAMPLER_H_
