// The server process: listeners, the engine thread, signals.
#ifndef THERMOCLINE_SERVER_SERVE_H_
#define THERMOCLINE_SERVER_SERVE_H_

#include <string>

#include "absl/status/status.h"
#include "engine/engine.h"

namespace thermocline {

struct ServeOptions {
  EngineOptions engine;
  std::string listen = "127.0.0.1:50051";          // Inference and health
  std::string control_listen = "127.0.0.1:50052";  // Control; empty: none
  std::string metrics_listen = "127.0.0.1:9464";   // Prometheus; empty: none
  double drain_seconds = 60.0;                     // what runs may take this long after SIGTERM
  int64_t max_message_bytes = int64_t{64} << 20;
};

// Listens at once (health says NOT_SERVING, calls answer UNAVAILABLE), loads the model, serves
// until SIGTERM or SIGINT or a Drain call, lets running requests finish and returns. A second
// signal aborts them. Call from the main thread before other threads exist.
absl::Status Serve(ServeOptions options);

}  // namespace thermocline

#endif  // THERMOCLINE_SERVER_SERVE_H_
