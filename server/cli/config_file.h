// The --config file: YAML keys that stand for flags.
#ifndef THERMOCLINE_SERVER_CLI_CONFIG_FILE_H_
#define THERMOCLINE_SERVER_CLI_CONFIG_FILE_H_

#include <string>

#include "absl/status/status.h"

namespace CLI {
class App;
}

namespace thermocline {

// Reads a YAML map of flag names without dashes in front ("kv-tokens: 4096") and puts each value
// into the environment variable of its flag unless that is set already, so that command line >
// environment > file. INVALID_ARGUMENT for a key that is no flag of the command.
absl::Status ApplyConfigFile(const std::string& path, const CLI::App& command);

}  // namespace thermocline

#endif  // THERMOCLINE_SERVER_CLI_CONFIG_FILE_H_
