// Logging to standard error. Prompts and outputs never go here.
#ifndef THERMOCLINE_SERVER_LOG_H_
#define THERMOCLINE_SERVER_LOG_H_

#include "absl/strings/string_view.h"

namespace thermocline {

// "debug", "info", "warn", "error" or "off"; false for another word.
bool SetLogLevel(absl::string_view level);
void LogInfo(absl::string_view message);
void LogWarning(absl::string_view message);
void LogError(absl::string_view message);

}  // namespace thermocline

#endif  // THERMOCLINE_SERVER_LOG_H_
