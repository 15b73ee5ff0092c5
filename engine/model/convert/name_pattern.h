// NamePattern: a regular expression that a whole tensor name must match.
#ifndef THERMOCLINE_ENGINE_MODEL_CONVERT_NAME_PATTERN_H_
#define THERMOCLINE_ENGINE_MODEL_CONVERT_NAME_PATTERN_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace thermocline {

class NamePattern {
 public:
  // PCRE2. INVALID_ARGUMENT says where a pattern does not compile.
  static absl::StatusOr<NamePattern> Create(const std::string& pattern);
  bool Matches(const std::string& name) const;

 private:
  struct Code;
  std::shared_ptr<const Code> code_;  // shared by copies of the pattern
};

}  // namespace thermocline

#endif  // THERMOCLINE_ENGINE_MODEL_CONVERT_NAME_PATTERN_H_
