// FakeRoot: a folder that stands for / in tests of what is read from /proc and /sys.
#ifndef THERMOCLINE_TESTS_SUPPORT_FAKE_ROOT_H_
#define THERMOCLINE_TESTS_SUPPORT_FAKE_ROOT_H_

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "absl/strings/str_cat.h"

namespace thermocline {

class FakeRoot {
 public:
  FakeRoot()
      : path_(absl::StrCat(testing::TempDir(), "/root_", getpid(), "_",
                           testing::UnitTest::GetInstance()->current_test_info()->name())) {}
  ~FakeRoot() { std::filesystem::remove_all(path_); }
  FakeRoot(const FakeRoot&) = delete;
  FakeRoot& operator=(const FakeRoot&) = delete;

  const std::string& path() const { return path_; }
  void Write(const std::string& path, const std::string& text) const {
    const std::filesystem::path file = path_ + path;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }

 private:
  std::string path_;
};

}  // namespace thermocline

#endif  // THERMOCLINE_TESTS_SUPPORT_FAKE_ROOT_H_
