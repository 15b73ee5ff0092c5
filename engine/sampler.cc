#include "engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <cstring>
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

bool NeedsAdjusting(const SamplingParams& params) {
  return !params.logit_bias.empty() || params.repetition_penalty != 1.0f ||
         params.presence_penalty != 0.0f || params.frequency_penalty != 0.0f;
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
  size_t best = 0;
  float largest = logits[0];
  for (size_t i = 1; i < logits.size(); ++i) {
    if (logits[i] > largest || std::isnan(largest)) {
      largest = logits[i];
      best = i;
    }
  }
  return static_cast<int32_t>(best);
}

// exp(x) for x <= 0, relative error below 1e-6, in a form that compilers vectorise: 2^n p(r) with
// x = n ln2 + r and p the Taylor polynomial.
float ExpOfNegative(float x) {
  x = std::max(x, -87.0f);
  const float n = (x * 1.44269504f + 12582912.0f) - 12582912.0f;  // rounds to an integer
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.0f / 5040.0f;
  p = p * r + 1.0f / 720.0f;
  p = p * r + 1.0f / 120.0f;
  p = p * r + 1.0f / 24.0f;
  p = p * r + 1.0f / 6.0f;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  const int32_t exponent = (static_cast<int32_t>(n) + 127) << 23;
  float power;
  std::memcpy(&power, &exponent, sizeof(power));
  return p * power;
}

// Weights are summed in pieces of this many, each in f32 in eight parts, the pieces in f64.
constexpr size_t kPiece = 256;
constexpr size_t kParts = 8;

// weight(i) for i in [begin, end), summed in an order that vectorises.
template <class Weight>
double SumPiece(const Weight& weight, size_t begin, size_t end) {
  float parts[kParts] = {};
  size_t i = begin;
  for (; i + kParts <= end; i += kParts) {
    for (size_t j = 0; j < kParts; ++j) parts[j] += weight(i + j);
  }
  for (; i < end; ++i) parts[0] += weight(i);
  return std::accumulate(parts, parts + kParts, 0.0);
}

// Draws index i of [0, n) with probability weight(i) / their sum; one has a weight. `uniform` is in
// [0, 1).
template <class Weight>
size_t Draw(const Weight& weight, size_t n, double uniform) {
  std::vector<double> pieces;
  double total = 0.0;
  for (size_t begin = 0; begin < n; begin += kPiece) {
    pieces.push_back(SumPiece(weight, begin, std::min(n, begin + kPiece)));
    total += pieces.back();
  }
  double rest = uniform * total;
  size_t piece = 0, last = 0;  // the last piece with a weight: where rounding sends what is left
  for (size_t i = 0; i < pieces.size(); ++i) {
    if (pieces[i] > 0.0) last = i;
  }
  for (; piece < last && rest >= pieces[piece]; ++piece) rest -= pieces[piece];
  size_t chosen = 0;
  for (size_t i = piece * kPiece; i < std::min(n, (piece + 1) * kPiece); ++i) {
    const double w = static_cast<double>(weight(i));
    if (w > 0.0) chosen = i;
    rest -= w;
    if (rest < 0.0) break;
  }
  return chosen;
}

// Draws from the whole vocabulary: nothing is cut off and NaN has no weight.
int32_t DrawFromAll(absl::Span<const float> logits, float temperature, double uniform) {
  float parts[kParts];
  std::fill_n(parts, kParts, -1e30f);
  size_t i = 0;
  for (; i + kParts <= logits.size(); i += kParts) {
    for (size_t j = 0; j < kParts; ++j) parts[j] = std::max(parts[j], logits[i + j]);
  }
  for (; i < logits.size(); ++i) parts[0] = std::max(parts[0], logits[i]);
  const float largest = std::min(*std::max_element(parts, parts + kParts), 1e30f);
  const float inverse = 1.0f / temperature;
  const auto weight = [&](size_t k) {
    const float logit = logits[k];
    const float below = std::min(0.0f, (std::max(-1e30f, logit) - largest) * inverse);
    return logit == logit ? ExpOfNegative(below) : 0.0f;
  };
  return static_cast<int32_t>(Draw(weight, logits.size(), uniform));
}

// Keeps the likeliest candidates whose probability sums to top_p, sorted; at least one.
void KeepTopP(float top_p, float max_logit, std::vector<Candidate>* candidates) {
  double total = 0.0;
  for (const Candidate& c : *candidates) {
    total += static_cast<double>(ExpOfNegative(c.logit - max_logit));
  }
  // Sorts only as far as needed: doubling prefixes.
  size_t sorted = 0;
  double cumulative = 0.0;
  for (size_t want = 64; sorted < candidates->size(); want *= 4) {
    const size_t end = std::min(want, candidates->size());
    std::partial_sort(candidates->begin() + static_cast<ptrdiff_t>(sorted),
                      candidates->begin() + static_cast<ptrdiff_t>(end), candidates->end(),
                      Likelier);
    for (; sorted < end; ++sorted) {
      cumulative += static_cast<double>(ExpOfNegative((*candidates)[sorted].logit - max_logit));
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
  std::vector<float> adjusted;
  if (NeedsAdjusting(params)) {
    adjusted.assign(logits.begin(), logits.end());
    ApplyBiasAndPenalties(params, tokens, num_prompt, &adjusted);
    logits = adjusted;
  }
  // Below this everything but the largest logit underflows.
  if (params.temperature < 1e-5f) return ArgMax(logits);
  const double uniform = Uniform(params.seed, tokens.size());
  if (params.min_p <= 0.0f && params.top_k <= 0 && params.top_p >= 1.0f) {
    return DrawFromAll(logits, params.temperature, uniform);
  }

  std::vector<Candidate> candidates;
  candidates.reserve(logits.size());
  for (size_t i = 0; i < logits.size(); ++i) {
    if (std::isnan(logits[i])) continue;
    // Penalties near zero can push logits to infinity; the order must survive.
    candidates.push_back({static_cast<int32_t>(i), std::clamp(logits[i], -1e30f, 1e30f)});
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

  const auto weight = [&](size_t i) { return ExpOfNegative(candidates[i].logit - max_logit); };
  return candidates[Draw(weight, candidates.size(), uniform)].token;
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
