#include "kernels/cpu/topology.h"

#include <gtest/gtest.h>
#include <sched.h>

#include <filesystem>
#include <fstream>
#include <thread>

namespace thermocline {
namespace {

class CpuQuotaTest : public testing::Test {
 protected:
  CpuQuotaTest()
      : root_(testing::TempDir() + "/quota_" +
              testing::UnitTest::GetInstance()->current_test_info()->name()) {
    std::filesystem::remove_all(root_);
  }
  void Write(const std::string& path, const std::string& text) {
    const std::filesystem::path file = root_ + path;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }
  std::string root_;
};

TEST_F(CpuQuotaTest, IsNoneWithoutAGroupOrALimit) {
  EXPECT_EQ(CpuQuota(root_), 0.0);
  Write("/proc/self/cgroup", "0::/a\n");
  EXPECT_EQ(CpuQuota(root_), 0.0);
  Write("/sys/fs/cgroup/a/cpu.max", "max 100000\n");
  EXPECT_EQ(CpuQuota(root_), 0.0);
}

TEST_F(CpuQuotaTest, IsTheSmallestUpToTheRoot) {
  Write("/proc/self/cgroup", "0::/a/b/c\n");
  Write("/sys/fs/cgroup/a/b/c/cpu.max", "max 100000\n");
  Write("/sys/fs/cgroup/a/b/cpu.max", "250000 100000\n");
  Write("/sys/fs/cgroup/a/cpu.max", "400000 100000\n");
  EXPECT_DOUBLE_EQ(CpuQuota(root_), 2.5);
  // In a container the path may be one of the host.
  Write("/proc/self/cgroup", "0::/docker/0123\n");
  Write("/sys/fs/cgroup/cpu.max", "150000 100000\n");
  EXPECT_DOUBLE_EQ(CpuQuota(root_), 1.5);
}

TEST_F(CpuQuotaTest, ReadsVersionOne) {
  Write("/proc/self/cgroup", "3:cpuset:/x\n4:cpu,cpuacct:/x\n");
  Write("/sys/fs/cgroup/cpu/x/cpu.cfs_quota_us", "-1\n");
  Write("/sys/fs/cgroup/cpu/x/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(CpuQuota(root_), 0.0);
  Write("/sys/fs/cgroup/cpu/x/cpu.cfs_quota_us", "300000\n");
  EXPECT_DOUBLE_EQ(CpuQuota(root_), 3.0);
}

TEST(Topology, CountsCoresAndPinsToThem) {
  const int cores = NumUsableCores();
  ASSERT_GE(cores, 1);
  EXPECT_LE(cores, static_cast<int>(std::thread::hardware_concurrency()));
  EXPECT_FALSE(MayPin(cores + 1));
  for (int core = 0; core <= cores; ++core) {  // the last one does not exist
    std::thread([core, cores] {
      cpu_set_t before, after;
      ASSERT_EQ(sched_getaffinity(0, sizeof(before), &before), 0);
      PinToCore(core);
      ASSERT_EQ(sched_getaffinity(0, sizeof(after), &after), 0);
      EXPECT_GE(CPU_COUNT(&after), 1);
      if (core == 0 && cores > 1) {
        EXPECT_LT(CPU_COUNT(&after), CPU_COUNT(&before));
      }
    }).join();
  }
}

}  // namespace
}  // namespace thermocline
