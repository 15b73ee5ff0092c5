#include "server/cli/calibration_file.h"

#include <fstream>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "engine/formats/checkpoint.h"
#include "kernels/quant/registry.h"

namespace thermocline {
namespace {

constexpr int64_t kMaxFileBytes = 1 << 20;
constexpr int kMaxWideFrom = 1 << 20;

}  // namespace

absl::Status WriteCalibration(const std::string& path, const Calibration& calibration) {
  nlohmann::ordered_json wide_from;
  for (const WeightFormat& format : AllFormats()) {
    const int tokens = calibration.wide_from[static_cast<size_t>(format.dtype)];
    if (tokens > 0) wide_from[std::string(format.name)] = tokens;
  }
  std::ofstream file(path);
  file << nlohmann::ordered_json({{"wide_from", wide_from}}).dump(2) << "\n";
  file.close();
  if (file.fail()) return absl::UnavailableError(absl::StrCat("cannot write ", path));
  return absl::OkStatus();
}

absl::StatusOr<Calibration> ReadCalibration(const std::string& path) {
  absl::StatusOr<std::string> text = ReadWholeFile(path, kMaxFileBytes);
  if (!text.ok()) return text.status();
  const nlohmann::json json = nlohmann::json::parse(*text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object() || !json.contains("wide_from") || !json["wide_from"].is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": no JSON object with an object \"wide_from\""));
  }
  Calibration calibration;
  for (const auto& [name, value] : json["wide_from"].items()) {
    const WeightFormat* known = nullptr;
    for (const WeightFormat& format : AllFormats()) {
      if (format.name == name) known = &format;
    }
    if (known == nullptr) {
      return absl::InvalidArgumentError(absl::StrCat(path, ": \"", name, "\" is no weight format"));
    }
    if (!value.is_number_integer() || value < 1 || value > kMaxWideFrom) {
      return absl::InvalidArgumentError(absl::StrCat(path, ": ", name, " = ", value.dump(),
                                                     ", but 1 to ", kMaxWideFrom, " is allowed"));
    }
    calibration.wide_from[static_cast<size_t>(known->dtype)] = value.get<int>();
  }
  return calibration;
}

}  // namespace thermocline
