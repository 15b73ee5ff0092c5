// Placement: where experts are to be, as somebody says who knows better than the cache.
#ifndef THERMOCLINE_CACHE_PLACEMENT_H_
#define THERMOCLINE_CACHE_PLACEMENT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "cache/expert_id.h"

namespace thermocline {

enum class Wanted : uint8_t {
  kAnywhere,  // the cache decides
  kDevice,    // on the device, all the time
  kHost,      // in host memory, all the time
  kDisk,      // read when a step needs it, and left behind it
};

class Placement {
 public:
  // Everything anywhere.
  Placement(int num_layers, int num_experts);

  // Of lines LAYERS EXPERTS PLACE: numbers, ranges and lists of them ("0-3,7") or "*" for all;
  // "device", "host" or "disk". Later lines win; what no line names is placed by the cache; "#"
  // begins a remark. INVALID_ARGUMENT names the line and what is allowed.
  static absl::StatusOr<Placement> Parse(const std::string& text, int num_layers, int num_experts);

  int num_layers() const { return num_layers_; }
  int num_experts() const { return num_experts_; }
  Wanted Of(ExpertId id) const { return wanted_[Index(id)]; }
  void Set(ExpertId id, Wanted wanted) { wanted_[Index(id)] = wanted; }
  // The layer's experts of which this is wanted.
  std::vector<int32_t> Experts(int layer, Wanted wanted) const;

 private:
  size_t Index(ExpertId id) const {
    return static_cast<size_t>(id.layer) * static_cast<size_t>(num_experts_) +
           static_cast<size_t>(id.expert);
  }

  int num_layers_, num_experts_;
  std::vector<Wanted> wanted_;
};

}  // namespace thermocline

#endif  // THERMOCLINE_CACHE_PLACEMENT_H_
