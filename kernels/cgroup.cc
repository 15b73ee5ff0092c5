#include "kernels/cgroup.h"

#include <algorithm>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace thermocline {

std::string FirstLine(const std::string& path) {
  std::string line;
  std::ifstream file(path);
  std::getline(file, line);
  return line;
}

std::vector<std::string> ControlGroups(const std::string& root, absl::string_view controller) {
  std::vector<std::string> folders;
  std::ifstream file(absl::StrCat(root, "/proc/self/cgroup"));
  // Lines are ID:CONTROLLERS:PATH; version 2 has no controllers.
  for (std::string line; std::getline(file, line);) {
    const std::vector<std::string> parts = absl::StrSplit(line, absl::MaxSplits(':', 2));
    if (parts.size() != 3) continue;
    std::string mount = absl::StrCat(root, "/sys/fs/cgroup");
    if (!parts[1].empty()) {
      const std::vector<std::string> controllers = absl::StrSplit(parts[1], ',');
      if (std::find(controllers.begin(), controllers.end(), controller) == controllers.end()) {
        continue;
      }
      absl::StrAppend(&mount, "/", controller);
    }
    // The group and those above it.
    for (std::string path = parts[2]; !path.empty() && path != "/";
         path.resize(path.rfind('/') == std::string::npos ? 0 : path.rfind('/'))) {
      folders.push_back(mount + path);
    }
    folders.push_back(mount);
  }
  return folders;
}

}  // namespace thermocline
