#include "kernels/cpu/topology.h"

#include <gtest/gtest.h>
#include <sched.h>

#include <thread>

#include "tests/support/fake_root.h"

namespace thermocline {
namespace {

TEST(CpuQuota, IsNoneWithoutAGroupOrALimit) {
  const FakeRoot root;
  EXPECT_EQ(CpuQuota(root.path()), 0.0);
  root.Write("/proc/self/cgroup", "0::/a\n");
  EXPECT_EQ(CpuQuota(root.path()), 0.0);
  root.Write("/sys/fs/cgroup/a/cpu.max", "max 100000\n");
  EXPECT_EQ(CpuQuota(root.path()), 0.0);
}

TEST(CpuQuota, IsTheSmallestUpToTheRoot) {
  const FakeRoot root;
  root.Write("/proc/self/cgroup", "0::/a/b/c\n");
  root.Write("/sys/fs/cgroup/a/b/c/cpu.max", "max 100000\n");
  root.Write("/sys/fs/cgroup/a/b/cpu.max", "250000 100000\n");
  root.Write("/sys/fs/cgroup/a/cpu.max", "400000 100000\n");
  EXPECT_DOUBLE_EQ(CpuQuota(root.path()), 2.5);
  // In a container the path may be one of the host.
  root.Write("/proc/self/cgroup", "0::/docker/0123\n");
  root.Write("/sys/fs/cgroup/cpu.max", "150000 100000\n");
  EXPECT_DOUBLE_EQ(CpuQuota(root.path()), 1.5);
}

TEST(CpuQuota, ReadsVersionOne) {
  const FakeRoot root;
  root.Write("/proc/self/cgroup", "3:cpuset:/x\n4:cpu,cpuacct:/x\n");
  root.Write("/sys/fs/cgroup/cpu/x/cpu.cfs_quota_us", "-1\n");
  root.Write("/sys/fs/cgroup/cpu/x/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(CpuQuota(root.path()), 0.0);
  root.Write("/sys/fs/cgroup/cpu/x/cpu.cfs_quota_us", "300000\n");
  EXPECT_DOUBLE_EQ(CpuQuota(root.path()), 3.0);
}

TEST(Topology, CountsCoresAndPinsToThem) {
  const int cores = NumUsableCores();
  ASSERT_GE(cores, 1);
  EXPECT_LE(cores, static_cast<int>(std::thread::hardware_concurrency()));
  EXPECT_FALSE(MayPin(cores + 1));
  cpu_set_t before, taken;
  ASSERT_EQ(sched_getaffinity(0, sizeof(before), &before), 0);
  CPU_ZERO(&taken);
  const auto pinned_to = [](int core) {
    cpu_set_t after;
    CPU_ZERO(&after);
    std::thread([core, &after] {
      PinToCore(core);
      EXPECT_EQ(sched_getaffinity(0, sizeof(after), &after), 0);
    }).join();
    return after;
  };
  for (int core = 0; core < cores; ++core) {
    const cpu_set_t after = pinned_to(core);
    cpu_set_t shared;
    CPU_AND(&shared, &after, &before);
    EXPECT_TRUE(CPU_EQUAL(&shared, &after)) << core;
    EXPECT_GE(CPU_COUNT(&after), 1) << core;
    CPU_AND(&shared, &after, &taken);
    EXPECT_EQ(CPU_COUNT(&shared), 0) << core;
    CPU_OR(&taken, &taken, &after);
  }
  const cpu_set_t beyond = pinned_to(CPU_SETSIZE);
  EXPECT_TRUE(CPU_EQUAL(&beyond, &before));
}

}  // namespace
}  // namespace thermocline
