#include "server/engine_watch.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace thermocline {
namespace {

constexpr double kMinute = 60.0;

double Percent(int64_t part, int64_t whole) {
  return 100.0 * static_cast<double>(part) / static_cast<double>(std::max<int64_t>(1, whole));
}

}  // namespace

EngineWatch::Totals EngineWatch::Sum(const EngineSnapshot& snapshot) {
  Totals t;
  t.steps = snapshot.num_steps;
  t.prompt_tokens = snapshot.prompt_tokens;
  t.generated_tokens = snapshot.generated_tokens;
  t.read_bytes = snapshot.expert_bytes_read;
  for (const ExpertStats& layer : snapshot.experts) {
    t.hits += layer.hits;
    t.misses += layer.misses;
    t.evictions += layer.evictions;
    t.useful_bytes += layer.bytes_read;
  }
  return t;
}

std::string EngineWatch::Minute(const Totals& now, double seconds, int64_t allowed) const {
  const Totals& b = before_;
  std::string line = absl::StrFormat(
      "in %.0f s: %d steps, %d prompt tokens, %d generated ones", seconds, now.steps - b.steps,
      now.prompt_tokens - b.prompt_tokens, now.generated_tokens - b.generated_tokens);
  const int64_t hits = now.hits - b.hits, misses = now.misses - b.misses,
                read = now.read_bytes - b.read_bytes;
  if (hits + misses > 0 && (!all_experts_ || misses > 0)) {
    absl::StrAppendFormat(&line, "; experts: %.1f %% of %d were in memory, %d evicted",
                          Percent(hits, hits + misses), hits + misses, now.evictions - b.evictions);
    absl::StrAppendFormat(&line, ", %s read (%.1f %% of it for use), %s of memory", Megabytes(read),
                          std::min(100.0, Percent(now.useful_bytes - b.useful_bytes, read)),
                          Megabytes(allowed));
  }
  return line;
}

std::vector<EngineWatch::Line> EngineWatch::Look(const EngineSnapshot& snapshot, double now) {
  std::vector<Line> lines;
  if (!started_) {
    started_ = true;
    began_ = minute_began_ = now;
    allowed_ = snapshot.expert_bytes_allowed;
    filled_ = !snapshot.filling;
    before_ = Sum(snapshot);
  }
  if (!snapshot.filling && !std::exchange(filled_, true)) {
    lines.push_back({false, absl::StrFormat("the experts are in memory, %.1f s after the start",
                                            now - began_)});
  }
  if (!snapshot.expert_failure.ok() && !std::exchange(failed_, true)) {
    lines.push_back({true, std::string(snapshot.expert_failure.message())});
  }
  if (snapshot.expert_bytes_allowed != allowed_) {
    lines.push_back({false, absl::StrCat("memory limits have changed: experts may take ",
                                         Megabytes(snapshot.expert_bytes_allowed), " instead of ",
                                         Megabytes(allowed_))});
    allowed_ = snapshot.expert_bytes_allowed;
  }
  if (now - minute_began_ >= kMinute) {
    const Totals totals = Sum(snapshot);
    if (totals.steps > before_.steps) {
      lines.push_back({false, Minute(totals, now - minute_began_, allowed_)});
    }
    before_ = totals;
    minute_began_ = now;
  }
  return lines;
}

}  // namespace thermocline
