// EngineWatch: what an operator wants to read of a serving engine now and then.
#ifndef THERMOCLINE_SERVER_ENGINE_WATCH_H_
#define THERMOCLINE_SERVER_ENGINE_WATCH_H_

#include <string>
#include <vector>

#include "engine/engine.h"

namespace thermocline {

class EngineWatch {
 public:
  // `all_experts`: there are as many slots as experts.
  explicit EngineWatch(bool all_experts) : all_experts_(all_experts) {}

  struct Line {
    bool warning = false;
    std::string text;
  };
  // Lines to log now. `now` in seconds, monotonic: once a minute what was done in it, unless that
  // is nothing; at once that the experts are in, that memory limits have changed what they may
  // take, and the first expert that could not be read.
  std::vector<Line> Look(const EngineSnapshot& snapshot, double now);

 private:
  struct Totals {
    int64_t steps = 0, prompt_tokens = 0, generated_tokens = 0;
    int64_t hits = 0, misses = 0, evictions = 0, useful_bytes = 0, read_bytes = 0;
  };
  static Totals Sum(const EngineSnapshot& snapshot);
  std::string Minute(const Totals& now, double seconds, int64_t allowed) const;

  const bool all_experts_;
  bool started_ = false, filled_ = false, failed_ = false;
  int64_t allowed_ = 0;
  double began_ = 0.0, minute_began_ = 0.0;
  Totals before_;
};

}  // namespace thermocline

#endif  // THERMOCLINE_SERVER_ENGINE_WATCH_H_
