// Which cores and memory nodes this process may use.
#ifndef THERMOCLINE_KERNELS_CPU_TOPOLOGY_H_
#define THERMOCLINE_KERNELS_CPU_TOPOLOGY_H_

#include <cstdint>
#include <string>

namespace thermocline {

// Worker threads that this process should run, at least 1: one for each physical core that it may
// use (hardware threads of a core share its arithmetic units and gain nothing here), but no more
// whole ones than its CPU quota: a thread beyond it is stopped for the rest of every period, in the
// middle of its task.
int NumUsableCores();

// True when `num_threads` threads have the machine's cores to themselves, one each: then they are
// pinned, core by core.
bool MayPin(int num_threads);

// Keeps the calling thread on core `index` of the usable ones. Only advice: a refusal costs speed.
void PinToCore(int index);

// Spreads the pages of memory that nobody has touched over the nodes, where there is more than one:
// one copy that all cores read at the same speed. Only advice.
void InterleaveOverNodes(void* data, int64_t bytes);

// CPUs' worth of time that the control groups of this process allow (v2 cpu.max, v1
// cpu.cfs_quota_us, the smallest up to the root), 0 if they set no limit. `root` precedes /proc and
// /sys.
double CpuQuota(const std::string& root = "");

}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_CPU_TOPOLOGY_H_
