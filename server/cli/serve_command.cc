// thermocline serve
#include <CLI/CLI.hpp>

#include "server/cli/commands.h"
#include "server/cli/engine_flags.h"
#include "server/log.h"
#include "server/serve.h"

namespace thermocline {

void AddServeCommand(CLI::App* app, int* exit_code) {
  struct Flags {
    EngineFlags engine;
    ServeOptions serve;
    std::string log_level = "info";
  };
  auto flags = std::make_shared<Flags>();  // CLI11 keeps the callback and the addresses
  CLI::App* command = app->add_subcommand("serve", "Serve a model over gRPC");
  AddEngineFlags(command, &flags->engine);
  command->add_option("--listen", flags->serve.listen, "address of the Inference service")
      ->capture_default_str();
  command
      ->add_option("--control-listen", flags->serve.control_listen,
                   "address of the Control service; empty: none")
      ->capture_default_str();
  command
      ->add_option("--metrics-listen", flags->serve.metrics_listen,
                   "address of /metrics; empty: none")
      ->capture_default_str();
  command
      ->add_option("--drain-seconds", flags->serve.drain_seconds,
                   "how long running requests may finish after SIGTERM")
      ->capture_default_str();
  command->add_option("--log-level", flags->log_level, "debug, info, warn, error or off")
      ->capture_default_str();
  command->callback([flags, exit_code] {
    if (!SetLogLevel(flags->log_level)) {
      *exit_code = ReportError(
          absl::InvalidArgumentError("log-level is none of debug, info, warn, error, off"));
      return;
    }
    absl::StatusOr<EngineOptions> engine = ToEngineOptions(flags->engine);
    if (!engine.ok()) {
      *exit_code = ReportError(engine.status());
      return;
    }
    flags->serve.engine = *std::move(engine);
    flags->serve.engine.fill_behind = true;
    const absl::Status served = Serve(std::move(flags->serve));
    if (!served.ok()) *exit_code = ReportError(served);
  });
}

}  // namespace thermocline
