// Parameterised tests are named by words, and so are their parameters where a test fails.
#ifndef THERMOCLINE_TESTS_SUPPORT_TEST_NAME_H_
#define THERMOCLINE_TESTS_SUPPORT_TEST_NAME_H_

#include <gtest/gtest.h>

#include <ostream>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/string_view.h"
#include "kernels/quant/registry.h"

namespace thermocline {

// The text with '_' for whatever googletest does not allow in a name.
inline std::string TestName(absl::string_view text) {
  std::string name(text);
  for (char& c : name) {
    if (!absl::ascii_isalnum(static_cast<unsigned char>(c))) c = '_';
  }
  return name;
}

// For INSTANTIATE_TEST_SUITE_P over texts: each names its test.
inline constexpr auto kNamedByItself = [](const auto& info) { return TestName(info.param); };

inline std::string NameOf(DType dtype) { return TestName(GetFormat(dtype).name); }
// googletest finds it by argument-dependent lookup.
inline void PrintTo(DType dtype, std::ostream* out) { *out << NameOf(dtype); }
inline constexpr auto kNamedByFormat = [](const auto& info) { return NameOf(info.param); };

}  // namespace thermocline

#endif  // THERMOCLINE_TESTS_SUPPORT_TEST_NAME_H_
