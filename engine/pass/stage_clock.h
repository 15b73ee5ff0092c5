// StageClock: where the time of the engine's steps goes.
#ifndef THERMOCLINE_ENGINE_PASS_STAGE_CLOCK_H_
#define THERMOCLINE_ENGINE_PASS_STAGE_CLOCK_H_

#include <array>
#include <cstdint>
#include <functional>

namespace thermocline {

// The parts of a step, in the order in which they come.
enum class Stage : uint8_t {
  kEmbed,      // the batch's arrays, the embeddings
  kAttention,  // norms, projections, attention or what a layer has in its place
  kRouter,
  kExperts,
  kCombine,  // weighted sums, shared experts, dense feed-forward layers
  kHead,     // the final norm and the logits
  kSample,   // choosing tokens and delivering them
};
inline constexpr int kNumStages = static_cast<int>(Stage::kSample) + 1;
inline constexpr const char* kStageNames[kNumStages] = {"embed",   "attention", "router", "experts",
                                                        "combine", "head",      "sample"};

using StageSeconds = std::array<double, kNumStages>;

// On a device whose operations only queue up, a stage shows the time it took to enqueue them, and
// the one that waits shows the rest. Engine thread only.
class StageClock {
 public:
  explicit StageClock(std::function<double()> now) : now_(std::move(now)) {}
  // A step begins.
  void Start() { last_ = now_(); }
  // What ran since Start or the last Done was `stage`.
  void Done(Stage stage) {
    const double now = now_();
    seconds_[static_cast<size_t>(stage)] += now - last_;
    last_ = now;
  }
  const StageSeconds& seconds() const { return seconds_; }

 private:
  std::function<double()> now_;
  double last_ = 0.0;
  StageSeconds seconds_ = {};
};

}  // namespace thermocline

#endif  // THERMOCLINE_ENGINE_PASS_STAGE_CLOCK_H_
