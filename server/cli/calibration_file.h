// The table that `bench --calibrate` writes and --calibration reads.
#ifndef THERMOCLINE_SERVER_CLI_CALIBRATION_FILE_H_
#define THERMOCLINE_SERVER_CLI_CALIBRATION_FILE_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/backend.h"

namespace thermocline {

// JSON: {"wide_from": {"Q4_K": 13, ...}}. Errors name the file, and the value where there is one.
absl::Status WriteCalibration(const std::string& path, const Calibration& calibration);
absl::StatusOr<Calibration> ReadCalibration(const std::string& path);

}  // namespace thermocline

#endif  // THERMOCLINE_SERVER_CLI_CALIBRATION_FILE_H_
