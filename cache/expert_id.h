// The names of experts and of the places that hold them.
#ifndef THERMOCLINE_CACHE_EXPERT_ID_H_
#define THERMOCLINE_CACHE_EXPERT_ID_H_

#include <cstdint>

namespace thermocline {

struct ExpertId {
  int32_t layer = 0;
  int32_t expert = 0;
  bool operator==(const ExpertId&) const = default;
};

// A slot of one tier. Slots of a size class are numbered one after the other.
using SlotId = int32_t;
inline constexpr SlotId kNoSlot = -1;

}  // namespace thermocline

#endif  // THERMOCLINE_CACHE_EXPERT_ID_H_
