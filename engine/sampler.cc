#include "engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <unordered_map>

namespace thermocline {
namespace {

struct Candidate {
  int32_t token;
  float logit;
};

bool Likelier(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
}

// splitmix64: Steele et al. 2014.
uint64_t Mix(uint64_t x) {
  x += 0x9E3779B97F4A7C15ull;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
  return x ^ (x >> 31);
}

// In [0, 1).
double Uniform(uint64_t seed, uint64_t position) {
  return static_cast<double>(Mix(Mix(seed) ^ position) >> 11) * 0x1.0p-53;
}

void ApplyBiasAndPenalties(const SamplingParams& params, absl::Span<const int32_t> tokens,
                           int64_t num_prompt, std::vector<float>* logits) {
  for (const auto& [token, bias] : params.logit_bias) (*logits)[static_cast<size_t>(token)] += bias;
  const bool repetition = params.repetition_penalty != 1.0f;
  const bool output_penalty = params.presence_penalty != 0.0f || params.frequency_penalty != 0.0f;
  if (!repetition && !output_penalty) return;
  struct Seen {
    bool any = false;
    int in_output = 0;
  };
  std::unordered_map<int32_t, Seen> seen;
  for (size_t i = 0; i < tokens.size(); ++i) {
    Seen& entry = seen[tokens[i]];
    entry.any = true;
    if (static_cast<int64_t>(i) >= num_prompt) ++entry.in_output;
  }
  for (const auto& [token, entry] : seen) {
    float& logit = (*logits)[static_cast<size_t>(token)];
    if (repetition)
      logit = logit > 0 ? logit / params.repetition_penalty : logit * params.repetition_penalty;
    if (entry.in_output > 0) {
      logit -=
          params.presence_penalty + params.frequency_penalty * static_cast<float>(entry.in_output);
    }
  }
}

int32_t ArgMax(absl::Span<const float> logits) {
  int32_t best = 0;
  for (size_t i = 1; i < logits.size(); ++i) {
    const float current = logits[static_cast<size_t>(best)];
    if (logits[i] > current || std::isnan(current)) best = static_cast<int32_t>(i);
  }
  return best;
}

// Keeps the likeliest candidates whose probability sums to top_p, sorted; at least one.
void KeepTopP(float top_p, float max_logit, std::vector<Candidate>* candidates) {
  double total = 0.0;
  for (const Candidate& c : *candidates)
    total += std::exp(static_cast<double>(c.logit - max_logit));
  // Sorts only as far as needed: doubling prefixes.
  size_t sorted = 0;
  double cumulative = 0.0;
  for (size_t want = 64; sorted < candidates->size(); want *= 4) {
    const size_t end = std::min(want, candidates->size());
    std::partial_sort(candidates->begin() + static_cast<ptrdiff_t>(sorted),
                      candidates->begin() + static_cast<ptrdiff_t>(end), candidates->end(),
                      Likelier);
    for (; sorted < end; ++sorted) {
      cumulative += std::exp(static_cast<double>((*candidates)[sorted].logit - max_logit));
      if (cumulative >= static_cast<double>(top_p) * total) {
        candidates->resize(sorted + 1);
        return;
      }
    }
  }
}

double LogSumExp(absl::Span<const float> logits) {
  const float max = *std::max_element(logits.begin(), logits.end());
  double sum = 0.0;
  for (float logit : logits) sum += std::exp(static_cast<double>(logit - max));
  return static_cast<double>(max) + std::log(sum);
}

}  // namespace

int32_t SampleToken(absl::Span<const float> logits, const SamplingParams& params,
                    absl::Span<const int32_t> tokens, int64_t num_prompt) {
  std::vector<float> adjusted(logits.begin(), logits.end());
  ApplyBiasAndPenalties(params, tokens, num_prompt, &adjusted);
  // Below this everything but the largest logit underflows.
  if (params.temperature < 1e-5f) return ArgMax(adjusted);

  std::vector<Candidate> candidates;
  candidates.reserve(adjusted.size());
  for (size_t i = 0; i < adjusted.size(); ++i) {
    if (std::isnan(adjusted[i])) continue;
    // Penalties near zero can push logits to infinity; the order must survive.
    candidates.push_back({static_cast<int32_t>(i), std::clamp(adjusted[i], -1e30f, 1e30f)});
  }
  if (candidates.empty()) return 0;
  float largest = candidates[0].logit;
  for (const Candidate& c : candidates) largest = std::max(largest, c.logit);
  for (Candidate& c : candidates) c.logit = (c.logit - largest) / params.temperature;
  constexpr float max_logit = 0.0f;
  if (params.min_p > 0.0f) {
    const float floor = max_logit + std::log(params.min_p);
    std::erase_if(candidates, [floor](const Candidate& c) { return c.logit < floor; });
  }
  if (params.top_k > 0 && static_cast<size_t>(params.top_k) < candidates.size()) {
    std::nth_element(candidates.begin(), candidates.begin() + params.top_k, candidates.end(),
                     Likelier);
    candidates.resize(static_cast<size_t>(params.top_k));
  }
  if (params.top_p < 1.0f) KeepTopP(params.top_p, max_logit, &candidates);

  double total = 0.0;
  for (const Candidate& c : candidates) total += std::exp(static_cast<double>(c.logit - max_logit));
  double rest = Uniform(params.seed, tokens.size()) * total;
  for (const Candidate& c : candidates) {
    rest -= std::exp(static_cast<double>(c.logit - max_logit));
    if (rest < 0.0) return c.token;
  }
  return candidates.back().token;
}

float LogprobOf(absl::Span<const float> logits, int32_t token) {
  return static_cast<float>(static_cast<double>(logits[static_cast<size_t>(token)]) -
                            LogSumExp(logits));
}

OutputToken WithLogprobs(absl::Span<const float> logits, int32_t token, int num_top) {
  const double log_sum = LogSumExp(logits);
  const auto logprob = [&](int32_t t) {
    return static_cast<float>(static_cast<double>(logits[static_cast<size_t>(t)]) - log_sum);
  };
  OutputToken output = {.token = token, .logprob = logprob(token), .top = {}};
  if (num_top <= 0) return output;
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  const size_t count = std::min(static_cast<size_t>(num_top), order.size());
  std::partial_sort(order.begin(), order.begin() + static_cast<ptrdiff_t>(count), order.end(),
                    [&](int32_t a, int32_t b) {
                      const float x = logits[static_cast<size_t>(a)],
                                  y = logits[static_cast<size_t>(b)];
                      return x != y ? x > y : a < b;
                    });
  for (size_t i = 0; i < count; ++i) output.top.push_back({order[i], logprob(order[i])});
  return output;
}

}  // namespace thermocline
