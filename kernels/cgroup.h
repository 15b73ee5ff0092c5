// The control groups that this process is in.
#ifndef THERMOCLINE_KERNELS_CGROUP_H_
#define THERMOCLINE_KERNELS_CGROUP_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace thermocline {

// Folders whose files may hold limits of `controller` ("cpu", "memory"), from this process's own
// group up to the root, of both versions of control groups; some may not exist. Inside a container
// the path may be one of the host, and only the root of the mount is there. `root` precedes /proc
// and /sys (tests).
std::vector<std::string> ControlGroups(const std::string& root, absl::string_view controller);

// First line of a file; "" when there is none.
std::string FirstLine(const std::string& path);

}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_CGROUP_H_
