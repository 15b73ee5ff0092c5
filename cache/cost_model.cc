#include "cache/cost_model.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdlib>

namespace thermocline {
namespace {

constexpr double kNew = 1.0 / 16;  // weight of a new measurement

void Blend(double value, double* average) {
  *average = *average == 0.0 ? value : *average + kNew * (value - *average);
}

}  // namespace

CostModel::CostModel(const Rates& rates) : first_(rates), disk_(rates.disk) {}

int CostModel::RangeOf(const PlaceWork& work) {
  const uint64_t tokens =
      static_cast<uint64_t>(std::max<int64_t>(1, work.pairs / std::max<int64_t>(1, work.experts)));
  return std::min(kNumRanges - 1, static_cast<int>(std::bit_width(tokens - 1)));
}

// A range that was not measured is as fast as the nearest one that was; without any, an expert's
// tokens are taken to cost a quarter of its first one each.
double CostModel::RateAt(Place place, int range) const {
  const auto& rates = places_[static_cast<size_t>(place)].bytes_per_second;
  for (int distance = 0; distance < kNumRanges; ++distance) {
    for (const int r : {range - distance, range + distance}) {
      if (r >= 0 && r < kNumRanges && rates[static_cast<size_t>(r)] > 0.0) {
        return rates[static_cast<size_t>(r)];
      }
    }
  }
  return first_.compute / (1.0 + 0.25 * ((1 << range) - 1));
}

double CostModel::ComputeSeconds(Place place, const PlaceWork& work) const {
  if (work.experts == 0) return 0.0;
  return static_cast<double>(work.expert_bytes) / RateAt(place, RangeOf(work));
}

double CostModel::FetchSeconds(int64_t bytes, int64_t queued) const {
  return bytes == 0 ? 0.0 : static_cast<double>(bytes + queued) / disk_;
}

double CostModel::LayerSeconds(const LayerWork& work) const {
  double seconds = FetchSeconds(work.missing_bytes, 0);
  for (size_t p = 0; p < kNumPlaces; ++p) {
    seconds = std::max(seconds, ComputeSeconds(static_cast<Place>(p), work.places[p]));
  }
  return seconds;
}

void CostModel::Observe(const LayerWork& work, double seconds) {
  if (seconds <= 0.0) return;
  const double predicted = LayerSeconds(work), fetch = FetchSeconds(work.missing_bytes, 0);
  const double error = std::abs(predicted - seconds) / seconds;
  error_ = num_observed_ == 0 ? error : error_ + kNew * (error - error_);
  ++num_observed_;
  // The place that took longest, or the disk, is what the time was spent on.
  size_t longest = 0;
  double compute = 0.0;
  for (size_t p = 0; p < kNumPlaces; ++p) {
    const double at = ComputeSeconds(static_cast<Place>(p), work.places[p]);
    if (at > compute) {
      compute = at;
      longest = p;
    }
  }
  if (work.missing_bytes > 0 && (fetch >= compute || seconds > compute)) {
    Blend(static_cast<double>(work.missing_bytes) / seconds, &disk_);
  } else if (compute > 0.0 && work.missing_bytes == 0) {
    const int range = RangeOf(work.places[longest]);
    Blend(static_cast<double>(work.places[longest].expert_bytes) / seconds,
          &places_[longest].bytes_per_second[static_cast<size_t>(range)]);
  }
}

}  // namespace thermocline
