#include "server/log.h"

#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

namespace thermocline {
namespace {

spdlog::logger& Logger() {
  // spdlog hands out shared loggers.
  static const std::shared_ptr<spdlog::logger> logger = spdlog::stderr_color_mt("thermocline");
  return *logger;
}

}  // namespace

bool SetLogLevel(absl::string_view level) {
  for (const auto& [name, value] :
       {std::pair{"debug", spdlog::level::debug}, std::pair{"info", spdlog::level::info},
        std::pair{"warn", spdlog::level::warn}, std::pair{"error", spdlog::level::err},
        std::pair{"off", spdlog::level::off}}) {
    if (level != name) continue;
    Logger().set_level(value);
    return true;
  }
  return false;
}

void LogInfo(absl::string_view message) { Logger().info("{}", std::string(message)); }
void LogWarning(absl::string_view message) { Logger().warn("{}", std::string(message)); }
void LogError(absl::string_view message) { Logger().error("{}", std::string(message)); }

}  // namespace thermocline
