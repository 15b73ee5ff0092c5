#include "engine/models/config_reader.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace thermocline {
namespace {

// A JSON scalar or list of whole numbers as a metadata value; false for anything else.
bool FromJson(const nlohmann::json& json, MetadataValue* value) {
  if (json.is_boolean()) {
    *value = json.get<bool>();
  } else if (json.is_number_integer()) {
    *value = json.get<int64_t>();
  } else if (json.is_number()) {
    *value = json.get<double>();
  } else if (json.is_string()) {
    *value = json.get<std::string>();
  } else if (json.is_array()) {
    std::vector<int64_t> numbers;
    for (const nlohmann::json& item : json) {
      if (!item.is_number_integer()) return false;
      numbers.push_back(item.get<int64_t>());
    }
    *value = std::move(numbers);
  } else {
    return false;
  }
  return true;
}

}  // namespace

ConfigReader::ConfigReader(const Checkpoint& checkpoint) : checkpoint_(checkpoint) {
  if (is_gguf()) {
    const auto it = checkpoint.metadata().find("general.architecture");
    if (it != checkpoint.metadata().end()) {
      if (const std::string* name = std::get_if<std::string>(&it->second)) architecture_ = *name;
    }
  } else {
    architecture_ = StringOr({"model_type", ""}, "");
  }
}

bool ConfigReader::Get(ConfigKey key, MetadataValue* value) const {
  if (is_gguf()) {
    if (key.gguf.empty()) return false;
    const auto it = checkpoint_.metadata().find(absl::StrCat(architecture_, ".", key.gguf));
    if (it == checkpoint_.metadata().end()) return false;
    *value = it->second;
    return true;
  }
  if (key.hf.empty()) return false;
  const nlohmann::json* json = &checkpoint_.config();
  for (absl::string_view part : absl::StrSplit(key.hf, '.')) {
    if (!json->is_object()) return false;
    const auto it = json->find(std::string(part));
    if (it == json->end()) return false;
    json = &*it;
  }
  return FromJson(*json, value);
}

bool ConfigReader::Has(ConfigKey key) const {
  MetadataValue value;
  return Get(key, &value);
}

std::string ConfigReader::NameOf(ConfigKey key) const {
  return is_gguf() ? absl::StrCat(architecture_, ".", key.gguf) : std::string(key.hf);
}

void ConfigReader::Fail(absl::string_view message) {
  if (status_.ok()) status_ = absl::InvalidArgumentError(message);
}

int64_t ConfigReader::Int(ConfigKey key, int64_t min, int64_t max) {
  if (!Has(key)) {
    Fail(absl::StrCat("the model's configuration lacks ", NameOf(key)));
    return min;
  }
  return IntOr(key, min, max, min);
}

int64_t ConfigReader::IntOr(ConfigKey key, int64_t min, int64_t max, int64_t fallback) {
  MetadataValue value;
  if (!Get(key, &value)) return fallback;
  int64_t number = 0;
  if (const int64_t* i = std::get_if<int64_t>(&value)) {
    number = *i;
  } else if (const uint64_t* u = std::get_if<uint64_t>(&value)) {
    number = *u > INT64_MAX ? INT64_MAX : static_cast<int64_t>(*u);
  } else {
    Fail(absl::StrCat(NameOf(key), " is not a whole number"));
    return min;
  }
  if (number < min || number > max) {
    Fail(absl::StrCat(NameOf(key), " = ", number, ", but ", min, " to ", max, " are allowed"));
    return min;
  }
  return number;
}

double ConfigReader::Float(ConfigKey key) {
  if (!Has(key)) Fail(absl::StrCat("the model's configuration lacks ", NameOf(key)));
  return FloatOr(key, 1.0);
}

double ConfigReader::FloatOr(ConfigKey key, double fallback) {
  MetadataValue value;
  if (!Get(key, &value)) return fallback;
  double number = 0.0;
  if (const double* d = std::get_if<double>(&value)) {
    number = *d;
  } else if (const int64_t* i = std::get_if<int64_t>(&value)) {
    number = static_cast<double>(*i);
  } else {
    Fail(absl::StrCat(NameOf(key), " is not a number"));
    return 1.0;
  }
  const bool allowed_zero = number == 0.0 && fallback == 0.0;
  if (!std::isfinite(number) || (number <= 0.0 && !allowed_zero) || number > 1e12) {
    Fail(absl::StrCat(NameOf(key), " = ", number, ", but a positive number is expected"));
    return 1.0;
  }
  return number;
}

bool ConfigReader::BoolOr(ConfigKey key, bool fallback) {
  MetadataValue value;
  if (!Get(key, &value)) return fallback;
  if (const bool* flag = std::get_if<bool>(&value)) return *flag;
  Fail(absl::StrCat(NameOf(key), " is not true or false"));
  return fallback;
}

std::string ConfigReader::StringOr(ConfigKey key, absl::string_view fallback) {
  MetadataValue value;
  if (!Get(key, &value)) return std::string(fallback);
  if (const std::string* text = std::get_if<std::string>(&value)) return *text;
  Fail(absl::StrCat(NameOf(key), " is not a string"));
  return std::string(fallback);
}

std::vector<int64_t> ConfigReader::IntsOr(ConfigKey key, std::vector<int64_t> fallback) {
  MetadataValue value;
  if (!Get(key, &value)) return fallback;
  if (const auto* numbers = std::get_if<std::vector<int64_t>>(&value)) return *numbers;
  Fail(absl::StrCat(NameOf(key), " is not a list of whole numbers"));
  return fallback;
}

}  // namespace thermocline
