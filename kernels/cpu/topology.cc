#include "kernels/cpu/topology.h"

#include <hwloc.h>

#include <algorithm>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "kernels/cgroup.h"

namespace thermocline {
namespace {

// Loaded once and never freed.
struct Machine {
  hwloc_topology_t topology = nullptr;
  std::vector<hwloc_bitmap_t> cores;  // the hardware threads of each that this process may use
  int num_nodes = 1;

  Machine() {
    if (hwloc_topology_init(&topology) != 0 || hwloc_topology_load(topology) != 0) {
      topology = nullptr;
      return;
    }
    hwloc_bitmap_t allowed = hwloc_bitmap_dup(hwloc_topology_get_allowed_cpuset(topology));
    hwloc_bitmap_t bound = hwloc_bitmap_alloc();
    if (hwloc_get_cpubind(topology, bound, HWLOC_CPUBIND_PROCESS) == 0) {
      hwloc_bitmap_and(allowed, allowed, bound);
    }
    for (hwloc_obj_t core = nullptr;
         (core = hwloc_get_next_obj_by_type(topology, HWLOC_OBJ_CORE, core)) != nullptr;) {
      hwloc_bitmap_t threads = hwloc_bitmap_alloc();
      hwloc_bitmap_and(threads, core->cpuset, allowed);
      if (hwloc_bitmap_iszero(threads)) {
        hwloc_bitmap_free(threads);
      } else {
        cores.push_back(threads);
      }
    }
    num_nodes = hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_NUMANODE);
    hwloc_bitmap_free(allowed);
    hwloc_bitmap_free(bound);
  }
};

const Machine& ThisMachine() {
  static const Machine* const machine = new Machine;
  return *machine;
}

// The quota that one control group sets itself; 0: none.
double QuotaOf(const std::string& folder) {
  const std::vector<std::string> v2 =
      absl::StrSplit(FirstLine(absl::StrCat(folder, "/cpu.max")), ' ');
  double quota = 0.0, period = 0.0;
  if (v2.size() == 2) {
    if (!absl::SimpleAtod(v2[0], &quota) || !absl::SimpleAtod(v2[1], &period)) return 0.0;
  } else if (!absl::SimpleAtod(FirstLine(absl::StrCat(folder, "/cpu.cfs_quota_us")), &quota) ||
             !absl::SimpleAtod(FirstLine(absl::StrCat(folder, "/cpu.cfs_period_us")), &period)) {
    return 0.0;
  }
  return quota > 0.0 && period > 0.0 ? quota / period : 0.0;
}

}  // namespace

double CpuQuota(const std::string& root) {
  double smallest = 0.0;
  for (const std::string& folder : ControlGroups(root, "cpu")) {
    const double quota = QuotaOf(folder);
    if (quota > 0.0 && (smallest == 0.0 || quota < smallest)) smallest = quota;
  }
  return smallest;
}

int NumUsableCores() {
  const int cores = std::max(1, static_cast<int>(ThisMachine().cores.size()));
  const double quota = CpuQuota();
  return quota > 0.0 ? std::clamp(static_cast<int>(quota), 1, cores) : cores;
}

bool MayPin(int num_threads) {
  return CpuQuota() == 0.0 && num_threads == static_cast<int>(ThisMachine().cores.size());
}

void PinToCore(int index) {
  const Machine& machine = ThisMachine();
  if (index >= static_cast<int>(machine.cores.size())) return;
  hwloc_set_cpubind(machine.topology, machine.cores[static_cast<size_t>(index)],
                    HWLOC_CPUBIND_THREAD);
}

void InterleaveOverNodes(void* data, int64_t bytes) {
  const Machine& machine = ThisMachine();
  if (machine.num_nodes < 2) return;
  hwloc_set_area_membind(machine.topology, data, static_cast<size_t>(bytes),
                         hwloc_topology_get_allowed_nodeset(machine.topology),
                         HWLOC_MEMBIND_INTERLEAVE, HWLOC_MEMBIND_BYNODESET);
}

}  // namespace thermocline
