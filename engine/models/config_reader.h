// ConfigReader: one set of questions to ask a model's configuration, whether it is config.json or
// GGUF metadata.
#ifndef THERMOCLINE_ENGINE_MODELS_CONFIG_READER_H_
#define THERMOCLINE_ENGINE_MODELS_CONFIG_READER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "engine/formats/checkpoint.h"

namespace thermocline {

// Where a value is found: the key of config.json ("a.b" descends) and the GGUF key without the
// architecture's prefix. An empty one means that the format does not say, and the default holds.
struct ConfigKey {
  absl::string_view hf;
  absl::string_view gguf;
};

// Reads values one by one and keeps the first error, so that a model's reader is a plain list.
class ConfigReader {
 public:
  explicit ConfigReader(const Checkpoint& checkpoint);

  bool is_gguf() const { return checkpoint_.kind() == Checkpoint::Kind::kGguf; }
  const Checkpoint& checkpoint() const { return checkpoint_; }
  // model_type of config.json or general.architecture of GGUF.
  const std::string& architecture() const { return architecture_; }

  bool Has(ConfigKey key) const;
  // A required whole number in [min, max].
  int64_t Int(ConfigKey key, int64_t min, int64_t max);
  // The default when the key is absent or null.
  int64_t IntOr(ConfigKey key, int64_t min, int64_t max, int64_t fallback);
  // Finite and > 0 unless zero is the default.
  double FloatOr(ConfigKey key, double fallback);
  double Float(ConfigKey key);
  bool BoolOr(ConfigKey key, bool fallback);
  std::string StringOr(ConfigKey key, absl::string_view fallback);
  std::vector<int64_t> IntsOr(ConfigKey key, std::vector<int64_t> fallback);

  // The first error so far.
  const absl::Status& status() const { return status_; }
  void Fail(absl::string_view message);

 private:
  // The value as GGUF metadata would hold it; false when absent.
  bool Get(ConfigKey key, MetadataValue* value) const;
  std::string NameOf(ConfigKey key) const;

  const Checkpoint& checkpoint_;
  std::string architecture_;
  absl::Status status_;
};

}  // namespace thermocline

#endif  // THERMOCLINE_ENGINE_MODELS_CONFIG_READER_H_
