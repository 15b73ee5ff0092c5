// ConfigReader: one set of questions to ask a model's configuration, whether it is config.json or
// GGUF metadata.
#ifndef THERMOCLINE_ENGINE_MODEL_CONFIG_READER_H_
#define THERMOCLINE_ENGINE_MODEL_CONFIG_READER_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "engine/formats/checkpoint.h"

namespace thermocline {

// Where a value is found: the key of config.json ("a.b" descends, "a|b" takes the first that is
// there) and the GGUF key without the architecture's prefix. An empty one means that the format
// does not say, and the default holds.
struct ConfigKey {
  absl::string_view hf;
  absl::string_view gguf;
};

// Reads values one by one and keeps the first error, so that a model's reader is a plain list. What
// it finds in config.json it also notes under the GGUF key, so that reading a model's configuration
// is enough to convert it.
class ConfigReader {
 public:
  explicit ConfigReader(const Checkpoint& checkpoint);

  bool is_gguf() const { return checkpoint_.kind() == Checkpoint::Kind::kGguf; }
  const Checkpoint& checkpoint() const { return checkpoint_; }
  // model_type of config.json or general.architecture of GGUF.
  const std::string& architecture() const { return architecture_; }

  bool Has(ConfigKey key) const;
  // A required whole number in [min, max]. A list counts as its largest.
  int64_t Int(ConfigKey key, int64_t min, int64_t max);
  // The default when the key is absent or null.
  int64_t IntOr(ConfigKey key, int64_t min, int64_t max, int64_t fallback);
  // Finite and > 0 unless zero is the default.
  double FloatOr(ConfigKey key, double fallback);
  double Float(ConfigKey key);
  bool BoolOr(ConfigKey key, bool fallback);
  std::string StringOr(ConfigKey key, absl::string_view fallback);
  std::vector<int64_t> IntsOr(ConfigKey key, std::vector<int64_t> fallback);
  std::vector<std::string> StringsOr(ConfigKey key, std::vector<std::string> fallback);
  // `size` numbers: a list in config.json, an F32 tensor (by its full name) in GGUF; empty when
  // absent.
  std::vector<double> TensorOr(ConfigKey key, int64_t size);

  // The first error so far.
  const absl::Status& status() const { return status_; }
  void Fail(absl::string_view message);

  // Notes for conversion to GGUF; without effect when the source is GGUF. Keys without the
  // architecture's prefix.
  void Record(absl::string_view gguf_key, MetadataValue value);
  void RecordTensor(absl::string_view gguf_name, std::vector<double> values);
  const std::map<std::string, MetadataValue>& recorded() const { return recorded_; }
  const std::map<std::string, std::vector<double>>& recorded_tensors() const {
    return recorded_tensors_;
  }

 private:
  // The value as GGUF metadata would hold it; false when absent.
  bool Get(ConfigKey key, MetadataValue* value) const;
  std::string NameOf(ConfigKey key) const;
  // Notes what was read under the GGUF key.
  template <class T>
  T Noted(ConfigKey key, T value);

  const Checkpoint& checkpoint_;
  std::string architecture_;
  absl::Status status_;
  std::map<std::string, MetadataValue> recorded_;
  std::map<std::string, std::vector<double>> recorded_tensors_;
};

}  // namespace thermocline

#endif  // THERMOCLINE_ENGINE_MODEL_CONFIG_READER_H_
