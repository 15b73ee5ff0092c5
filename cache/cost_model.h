// CostModel: what a MoE layer will cost, from what earlier ones have cost.
//
// Computing an expert reads its weights once and multiplies them with its tokens, so its time
// depends on how many there are; the model keeps a rate for each range of tokens. Reading from disk
// has one rate. A layer takes as long as the longer of the two, since they run at the same time.
// Rates are moving averages over the layers that can teach them: one in which nothing was missing
// teaches how fast experts are computed, one that waited for the disk how fast it is.
#ifndef THERMOCLINE_CACHE_COST_MODEL_H_
#define THERMOCLINE_CACHE_COST_MODEL_H_

#include <array>
#include <cstdint>

#include "cache/plan_experts.h"

namespace thermocline {

// What one place is to do for a layer.
struct PlaceWork {
  int64_t expert_bytes = 0;
  int64_t experts = 0;
  int64_t pairs = 0;  // of a token and one of its experts; at least one an expert
};

struct LayerWork {
  std::array<PlaceWork, kNumPlaces> places = {};
  int64_t missing_bytes = 0;  // of experts to be read

  PlaceWork& at(Place place) { return places[static_cast<size_t>(place)]; }
};

class CostModel {
 public:
  // Bytes a second until measured.
  struct Rates {
    double compute = 10e9;  // of weights, with one token
    double disk = 1e9;
  };

  CostModel() : CostModel(Rates()) {}
  explicit CostModel(const Rates& rates);

  // Seconds.
  double ComputeSeconds(Place place, const PlaceWork& work) const;
  // `queued`: bytes that are to be read before.
  double FetchSeconds(int64_t bytes, int64_t queued) const;
  double LayerSeconds(const LayerWork& work) const;

  // The layer has taken so long.
  void Observe(const LayerWork& work, double seconds);

  // The mean error of late is at most 15 % of what was measured, over at least 32 layers.
  bool trusted() const { return num_observed_ >= kEnough && error_ <= kTrustedError; }
  // Moving average of |predicted - measured| / measured.
  double error() const { return error_; }

 private:
  static constexpr int kEnough = 32;
  static constexpr double kTrustedError = 0.15;
  // Ranges of tokens an expert: 1, 2, 3 to 4, 5 to 8, ... 65 and more.
  static constexpr int kNumRanges = 8;
  static int RangeOf(const PlaceWork& work);

  struct PlaceRates {
    std::array<double, kNumRanges> bytes_per_second = {};  // 0: not measured
  };
  double RateAt(Place place, int range) const;

  const Rates first_;
  std::array<PlaceRates, kNumPlaces> places_;
  double disk_ = 0.0;
  double error_ = 0.0;
  int64_t num_observed_ = 0;
};

}  // namespace thermocline

#endif  // THERMOCLINE_CACHE_COST_MODEL_H_
