// TemporaryFile: a path of a test's own, removed at the end.
#ifndef THERMOCLINE_TESTS_SUPPORT_TEMPORARY_FILE_H_
#define THERMOCLINE_TESTS_SUPPORT_TEMPORARY_FILE_H_

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <string>

#include "absl/strings/str_cat.h"

namespace thermocline {

class TemporaryFile {
 public:
  explicit TemporaryFile(const std::string& name)
      : path_(absl::StrCat(testing::TempDir(), "/", getpid(), "-", name)) {
    Remove();
  }
  ~TemporaryFile() { Remove(); }
  const std::string& path() const { return path_; }

 private:
  void Remove() {
    std::error_code error;
    std::filesystem::remove_all(path_, error);
    std::filesystem::remove(path_ + ".partial", error);
  }
  std::string path_;
};

}  // namespace thermocline

#endif  // THERMOCLINE_TESTS_SUPPORT_TEMPORARY_FILE_H_
