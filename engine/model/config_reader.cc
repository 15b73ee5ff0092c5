#include "engine/model/config_reader.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace thermocline {
namespace {

// A JSON scalar, or a list of one kind, as a metadata value; false for anything else.
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
    const auto all = [&](bool (nlohmann::json::*is)() const noexcept) {
      for (const nlohmann::json& item : json) {
        if (!(item.*is)()) return false;
      }
      return true;
    };
    if (all(&nlohmann::json::is_number_integer)) {
      *value = json.get<std::vector<int64_t>>();
    } else if (all(&nlohmann::json::is_number)) {
      *value = json.get<std::vector<double>>();
    } else if (all(&nlohmann::json::is_string)) {
      *value = json.get<std::vector<std::string>>();
    } else {
      return false;
    }
  } else {
    return false;
  }
  return true;
}

// The member that a path of names leads to; null when there is none.
const nlohmann::json* Descend(const nlohmann::json& root, absl::string_view path) {
  const nlohmann::json* json = &root;
  for (absl::string_view part : absl::StrSplit(path, '.')) {
    if (!json->is_object()) return nullptr;
    const auto it = json->find(std::string(part));
    if (it == json->end()) return nullptr;
    json = &*it;
  }
  return json;
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
  for (absl::string_view path : absl::StrSplit(key.hf, '|', absl::SkipEmpty())) {
    const nlohmann::json* json = Descend(checkpoint_.config(), path);
    if (json != nullptr && FromJson(*json, value)) return true;
  }
  return false;
}

bool ConfigReader::Has(ConfigKey key) const {
  MetadataValue value;
  if (Get(key, &value)) return true;
  // A dictionary has no value of its own but is there.
  const nlohmann::json* json = is_gguf() ? nullptr : Descend(checkpoint_.config(), key.hf);
  return json != nullptr && json->is_object() && !json->empty();
}

void ConfigReader::Record(absl::string_view gguf_key, MetadataValue value) {
  if (!is_gguf()) recorded_[std::string(gguf_key)] = std::move(value);
}

void ConfigReader::RecordTensor(absl::string_view gguf_name, std::vector<double> values) {
  if (!is_gguf()) recorded_tensors_[std::string(gguf_name)] = std::move(values);
}

template <class T>
T ConfigReader::Noted(ConfigKey key, T value) {
  if (!key.gguf.empty()) Record(key.gguf, value);
  return value;
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
  } else if (const auto* list = std::get_if<std::vector<int64_t>>(&value);
             list != nullptr && !list->empty()) {
    number = *std::max_element(list->begin(), list->end());
  } else {
    Fail(absl::StrCat(NameOf(key), " is not a whole number"));
    return min;
  }
  if (number < min || number > max) {
    Fail(absl::StrCat(NameOf(key), " = ", number, ", but ", min, " to ", max, " are allowed"));
    return min;
  }
  return Noted(key, number);
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
  return Noted(key, number);
}

bool ConfigReader::BoolOr(ConfigKey key, bool fallback) {
  MetadataValue value;
  if (!Get(key, &value)) return fallback;
  if (const bool* flag = std::get_if<bool>(&value)) return Noted(key, *flag);
  Fail(absl::StrCat(NameOf(key), " is not true or false"));
  return fallback;
}

std::string ConfigReader::StringOr(ConfigKey key, absl::string_view fallback) {
  MetadataValue value;
  if (!Get(key, &value)) return std::string(fallback);
  if (const std::string* text = std::get_if<std::string>(&value)) return Noted(key, *text);
  Fail(absl::StrCat(NameOf(key), " is not a string"));
  return std::string(fallback);
}

std::vector<int64_t> ConfigReader::IntsOr(ConfigKey key, std::vector<int64_t> fallback) {
  MetadataValue value;
  if (!Get(key, &value)) return fallback;
  if (const auto* numbers = std::get_if<std::vector<int64_t>>(&value)) return Noted(key, *numbers);
  Fail(absl::StrCat(NameOf(key), " is not a list of whole numbers"));
  return fallback;
}

std::vector<std::string> ConfigReader::StringsOr(ConfigKey key, std::vector<std::string> fallback) {
  MetadataValue value;
  if (!Get(key, &value)) return fallback;
  if (const auto* texts = std::get_if<std::vector<std::string>>(&value)) return *texts;
  Fail(absl::StrCat(NameOf(key), " is not a list of strings"));
  return fallback;
}

std::vector<double> ConfigReader::TensorOr(ConfigKey key, int64_t size) {
  std::vector<double> values;
  if (is_gguf()) {
    const TensorInfo* tensor = checkpoint_.Find(std::string(key.gguf));
    if (tensor == nullptr) return {};
    if (tensor->dtype != DType::kF32 || tensor->num_elems() != size) {
      Fail(absl::StrCat("tensor \"", key.gguf, "\" should hold ", size, " F32"));
      return std::vector<double>(static_cast<size_t>(size), 1.0);
    }
    std::vector<float> stored(static_cast<size_t>(size));
    const absl::Status read = checkpoint_.Read(*tensor, 0, tensor->bytes, stored.data());
    if (!read.ok()) Fail(read.message());
    values.assign(stored.begin(), stored.end());
  } else {
    MetadataValue value;
    if (!Get(key, &value)) return {};
    if (const auto* whole = std::get_if<std::vector<int64_t>>(&value)) {
      values.assign(whole->begin(), whole->end());
    } else if (const auto* numbers = std::get_if<std::vector<double>>(&value)) {
      values = *numbers;
    }
    if (static_cast<int64_t>(values.size()) != size) {
      Fail(absl::StrCat(NameOf(key), " should be a list of ", size, " numbers"));
      return std::vector<double>(static_cast<size_t>(size), 1.0);
    }
    RecordTensor(key.gguf, values);
  }
  for (double& v : values) {
    if (std::isfinite(v) && v > 0.0) continue;
    Fail(absl::StrCat(is_gguf() ? key.gguf : key.hf, " holds ", v,
                      ", but positive numbers are expected"));
    v = 1.0;
  }
  return values;
}

}  // namespace thermocline
