#include "engine/host_memory_info.h"

#include <cstdio>

namespace thermocline {

int64_t AvailableMemoryBytes() {
  int64_t kib = int64_t{4} << 20;
  if (std::FILE* file = std::fopen("/proc/meminfo", "r")) {
    char line[128];
    while (std::fgets(line, sizeof(line), file) != nullptr) {
      long long value = 0;
      if (std::sscanf(line, "MemAvailable: %lld kB", &value) == 1) kib = value;
    }
    std::fclose(file);
  }
  return kib * 1024;
}

}  // namespace thermocline
