#include "server/cli/config_file.h"

#include <yaml-cpp/yaml.h>

#include <CLI/CLI.hpp>
#include <cstdlib>

#include "absl/strings/str_cat.h"

namespace thermocline {

absl::Status ApplyConfigFile(const std::string& path, const CLI::App& command) {
  try {  // yaml-cpp reports by exceptions
    const YAML::Node root = YAML::LoadFile(path);
    if (!root.IsMap())
      return absl::InvalidArgumentError(absl::StrCat("\"", path, "\" is not a YAML map"));
    for (const auto& entry : root) {
      const std::string key = entry.first.as<std::string>();
      const CLI::Option* option = command.get_option_no_throw(absl::StrCat("--", key));
      if (option == nullptr) option = command.get_option_no_throw(key);  // positional: "model"
      if (option == nullptr || option->get_envname().empty() || !entry.second.IsScalar()) {
        return absl::InvalidArgumentError(
            absl::StrCat("\"", path, "\": \"", key, "\" is not an option of ", command.get_name()));
      }
      setenv(option->get_envname().c_str(), entry.second.as<std::string>().c_str(),
             /*overwrite=*/0);
    }
  } catch (const YAML::Exception& e) {
    return absl::InvalidArgumentError(absl::StrCat("\"", path, "\": ", e.what()));
  }
  return absl::OkStatus();
}

}  // namespace thermocline
