#include "kernels/reference/route_token.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

namespace thermocline {
namespace {

constexpr float kExcluded = -std::numeric_limits<float>::infinity();

// NaN if one of the values is NaN or infinite, else 0.
float LostIn(absl::Span<const float> values) {
  float lost = 0.0f;
  for (float value : values) lost += value * 0.0f;
  return lost;
}

// Indices of the `count` largest values, ties by lower index first.
std::vector<int32_t> LargestOf(const std::vector<float>& values, int count) {
  std::vector<int32_t> order(values.size());
  std::iota(order.begin(), order.end(), 0);
  const auto rank = [&](int32_t i) {
    const float value = values[static_cast<size_t>(i)];
    return std::isnan(value) ? kExcluded : value;
  };
  std::partial_sort(order.begin(), order.begin() + count, order.end(), [&](int32_t a, int32_t b) {
    return rank(a) != rank(b) ? rank(a) > rank(b) : a < b;
  });
  order.resize(static_cast<size_t>(count));
  return order;
}

std::vector<float> Scores(absl::Span<const float> logits, RouteArgs::Score score) {
  std::vector<float> scores(logits.begin(), logits.end());
  switch (score) {
    case RouteArgs::Score::kSigmoid:
      for (float& s : scores) s = 1.0f / (1.0f + std::exp(-s));
      break;
    case RouteArgs::Score::kSoftmax: {
      const float max = *std::max_element(scores.begin(), scores.end());
      float sum = 0.0f;
      for (float& s : scores) sum += (s = std::exp(s - max));
      for (float& s : scores) s /= sum;
      break;
    }
    case RouteArgs::Score::kSoftmaxOfChosen:
    case RouteArgs::Score::kSparseMixer:
      break;
  }
  return scores;
}

// Excludes the experts of all but the best groups.
void KeepBestGroups(const RouteArgs& args, std::vector<float>* choice) {
  const size_t size = choice->size() / static_cast<size_t>(args.num_groups);
  std::vector<float> group_scores;
  for (int g = 0; g < args.num_groups; ++g) {
    float best = kExcluded, second = kExcluded;  // NaN is never among them
    for (size_t e = static_cast<size_t>(g) * size; e < static_cast<size_t>(g + 1) * size; ++e) {
      const float value = (*choice)[e];
      if (value > best) {
        second = best;
        best = value;
      } else if (value > second) {
        second = value;
      }
    }
    group_scores.push_back(args.group_by_best_two && size > 1 ? best + second : best);
  }
  std::vector<bool> kept(group_scores.size(), false);
  for (int32_t g : LargestOf(group_scores, args.top_k_groups)) kept[static_cast<size_t>(g)] = true;
  for (size_t e = 0; e < choice->size(); ++e) {
    if (!kept[e / size]) (*choice)[e] = kExcluded;
  }
}

// Each expert in turn is the best of those left; its weight is its share of a softmax over those
// whose logit is within 2 * jitter of the best, relatively. Source: sparsemixer in
// modeling_phimoe.py of transformers.
void SparseMixer(absl::Span<const float> logits, const RouteArgs& args, float lost, int32_t* ids,
                 float* weights) {
  std::vector<float> left(logits.begin(), logits.end());
  for (int j = 0; j < args.top_k; ++j) {
    const int32_t best = LargestOf(left, 1)[0];
    const float max = left[static_cast<size_t>(best)];
    float sum = 0.0f;
    for (size_t e = 0; e < left.size(); ++e) {
      const float factor = std::max(std::fabs(logits[e]), max);
      if ((max - logits[e]) / factor > 2.0f * args.jitter) continue;
      sum += std::exp(left[e] - max);
    }
    ids[j] = best;
    weights[j] = args.scale / sum + lost;
    left[static_cast<size_t>(best)] = kExcluded;
  }
}

}  // namespace

void RouteToken(absl::Span<const float> logits, const RouteArgs& args, int32_t* ids,
                float* weights) {
  float lost = LostIn(logits);
  if (args.score == RouteArgs::Score::kSparseMixer) {
    return SparseMixer(logits, args, lost, ids, weights);
  }
  const std::vector<float> scores = Scores(logits, args.score);
  std::vector<float> choice = scores;
  if (!args.bias.empty()) {
    for (size_t e = 0; e < choice.size(); ++e) choice[e] += args.bias.Row<float>(0)[e];
    lost += LostIn(choice);
  }
  if (args.num_groups > 1) KeepBestGroups(args, &choice);
  const std::vector<int32_t> chosen = LargestOf(choice, args.top_k);
  float sum = 0.0f;
  for (int j = 0; j < args.top_k; ++j) {
    const float score = scores[static_cast<size_t>(chosen[static_cast<size_t>(j)])];
    const bool softmax = args.score == RouteArgs::Score::kSoftmaxOfChosen;
    ids[j] = chosen[static_cast<size_t>(j)];
    weights[j] = softmax ? std::exp(score - scores[static_cast<size_t>(chosen[0])]) : score;
    sum += weights[j];
  }
  float factor = args.scale;
  if (args.score == RouteArgs::Score::kSoftmaxOfChosen) {
    factor /= sum;
  } else if (args.normalize) {
    factor /= std::max(sum, args.normalize_min) + args.normalize_eps;
  }
  for (int j = 0; j < args.top_k; ++j) weights[j] = weights[j] * factor + lost;
}

}  // namespace thermocline
