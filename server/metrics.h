// Metrics: one Prometheus registry and the HTTP endpoint that shows it.
#ifndef THERMOCLINE_SERVER_METRICS_H_
#define THERMOCLINE_SERVER_METRICS_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "engine/engine.h"

namespace thermocline {

// Any thread. Metric names are part of the public contract; tests/server/metrics_test.cc holds
// them.
class Metrics {
 public:
  Metrics();
  ~Metrics();

  // Serves /metrics on "host:port". UNAVAILABLE when the port is taken.
  absl::Status Listen(const std::string& address);
  // Where the gauges and counters of the engine come from; null until the model is loaded.
  void SetSource(std::function<EngineSnapshot()> source);

  void OnFirstToken(double seconds);
  void OnInterToken(double seconds);
  // A request that was accepted has ended.
  void OnDone(const Result& result);
  // A request that was refused: "queue_full", "invalid", "unavailable".
  void OnReject(absl::string_view reason);

  // The exposition text, as a scrape would see it.
  std::string Text() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace thermocline

#endif  // THERMOCLINE_SERVER_METRICS_H_
