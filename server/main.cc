// The thermocline program: parses the command line and runs one subcommand.
#include <CLI/CLI.hpp>
#include <cstdlib>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/cli/commands.h"
#include "server/cli/config_file.h"
#include "server/cli/engine_flags.h"
#include "server/version.h"

namespace {

// The value of --config among the arguments, else THERMOCLINE_CONFIG, else "". It must be known
// before the others are parsed.
std::string ConfigPath(int argc, char** argv) {
  for (int i = 2; i < argc; ++i) {
    if (absl::StartsWith(argv[i], "--config=")) return argv[i] + sizeof("--config=") - 1;
    if (std::string(argv[i]) == "--config" && i + 1 < argc) return argv[i + 1];
  }
  const char* path = std::getenv("THERMOCLINE_CONFIG");
  return path != nullptr ? path : "";
}

}  // namespace

int main(int argc, char** argv) {
  int exit_code = 0;
  CLI::App app("Thermocline: an inference server for mixture-of-experts language models");
  app.set_version_flag("--version", thermocline::kVersion);
  app.require_subcommand(1);
  thermocline::AddServeCommand(&app, &exit_code);
  thermocline::AddChatCommand(&app, &exit_code);
  thermocline::AddGenerateCommand(&app, &exit_code);
  thermocline::AddScoreCommand(&app, &exit_code);
  thermocline::AddPerplexityCommand(&app, &exit_code);
  thermocline::AddBenchCommand(&app, &exit_code);
  thermocline::AddInspectCommand(&app, &exit_code);
  thermocline::AddTokenizeCommand(&app, &exit_code);
  thermocline::AddRenderCommand(&app, &exit_code);
  thermocline::AddConvertCommand(&app, &exit_code);
  thermocline::AddQuantizeCommand(&app, &exit_code);
  thermocline::AddHealthcheckCommand(&app, &exit_code);
  std::string config_path;
  for (CLI::App* command : app.get_subcommands({})) {
    thermocline::AddEnvironmentTwins(command);
    command->add_option("--config", config_path,
                        "YAML file of flags; environment and command line win over it");
    const std::string path = ConfigPath(argc, argv);
    if (argc < 2 || command->get_name() != argv[1] || path.empty()) continue;
    const absl::Status applied = thermocline::ApplyConfigFile(path, *command);
    if (!applied.ok()) return thermocline::ReportError(applied);
  }
  const auto is_named = [&](const CLI::App* command) { return command->get_name() == argv[1]; };
  if (argc > 1 && argv[1][0] != '-' && app.get_subcommands(is_named).empty()) {
    return thermocline::ReportError(absl::InvalidArgumentError(
        absl::StrCat("\"", argv[1], "\" is no command; thermocline --help lists them")));
  }
  try {  // CLI11 reports by exceptions
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error);
  }
  return exit_code;
}
