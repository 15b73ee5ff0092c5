// What the control groups of both versions leave, from files as the kernel writes them.
#include "kernels/host_memory_info.h"

#include <gtest/gtest.h>

#include <limits>

#include "tests/support/fake_root.h"

namespace thermocline {
namespace {

constexpr int64_t kGiB = int64_t{1} << 30;

class AvailableMemory : public testing::Test {
 protected:
  AvailableMemory() {
    root_.Write("/proc/meminfo",
                "MemTotal:  16777216 kB\nMemFree:  1024 kB\n"
                "MemAvailable:    8388608 kB\nBuffers:  7 kB\n");  // 8 GiB
  }
  int64_t Bytes() const { return AvailableMemoryBytes(root_.path()); }
  // A group of version 2.
  void WriteGroup(const std::string& folder, const std::string& max, int64_t current,
                  const std::string& stat = "") {
    root_.Write("/sys/fs/cgroup" + folder + "/memory.max", max + "\n");
    root_.Write("/sys/fs/cgroup" + folder + "/memory.current", std::to_string(current) + "\n");
    root_.Write("/sys/fs/cgroup" + folder + "/memory.stat", stat);
  }
  FakeRoot root_;
};

TEST_F(AvailableMemory, IsTheMachinesWithoutAGroupOrALimit) {
  EXPECT_EQ(Bytes(), 8 * kGiB);
  root_.Write("/proc/self/cgroup", "0::/a\n");
  EXPECT_EQ(Bytes(), 8 * kGiB);
  WriteGroup("/a", "max", 3 * kGiB);
  EXPECT_EQ(Bytes(), 8 * kGiB);
}

TEST_F(AvailableMemory, IsFourGibibytesWhenNothingCanBeRead) {
  EXPECT_EQ(AvailableMemoryBytes("/nowhere"), 4 * kGiB);
}

TEST_F(AvailableMemory, IsWhatTheGroupLeaves) {
  root_.Write("/proc/self/cgroup", "0::/a\n");
  WriteGroup("/a", std::to_string(5 * kGiB), 2 * kGiB);
  EXPECT_EQ(Bytes(), 3 * kGiB);
  WriteGroup("/a", std::to_string(50 * kGiB), 2 * kGiB);  // more than the machine has
  EXPECT_EQ(Bytes(), 8 * kGiB);
  WriteGroup("/a", std::to_string(kGiB), 2 * kGiB);  // lowered below what is used
  EXPECT_EQ(Bytes(), 0);
}

TEST_F(AvailableMemory, PageCacheThatCanBeGivenBackIsFree) {
  root_.Write("/proc/self/cgroup", "0::/a\n");
  WriteGroup("/a", std::to_string(5 * kGiB), 4 * kGiB,
             "anon 1073741824\nfile 3221225472\ninactive_anon 99\nactive_file 1000\n"
             "inactive_file 2000\nslab_reclaimable 300\nslab_unreclaimable 77\nshmem 55\n");
  EXPECT_EQ(Bytes(), kGiB + 3300);
}

TEST_F(AvailableMemory, IsTheLeastUpToTheRoot) {
  root_.Write("/proc/self/cgroup", "0::/pod/box\n");
  WriteGroup("/pod/box", "max", kGiB);
  WriteGroup("/pod", std::to_string(6 * kGiB), 4 * kGiB);
  EXPECT_EQ(Bytes(), 2 * kGiB);
  WriteGroup("/pod/box", std::to_string(2 * kGiB), kGiB);
  EXPECT_EQ(Bytes(), kGiB);
  // In a container the path is one of the host and the limit lies at the mount itself.
  root_.Write("/proc/self/cgroup", "0::/docker/0123\n");
  WriteGroup("", std::to_string(7 * kGiB), 2 * kGiB);
  EXPECT_EQ(Bytes(), 5 * kGiB);
  root_.Write("/proc/self/cgroup", "0::/\n");
  EXPECT_EQ(Bytes(), 5 * kGiB);
}

TEST_F(AvailableMemory, HeedsTheLimitBeyondWhichAGroupStandsStill) {
  root_.Write("/proc/self/cgroup", "0::/a\n");
  WriteGroup("/a", "max", 2 * kGiB);
  root_.Write("/sys/fs/cgroup/a/memory.high", std::to_string(4 * kGiB) + "\n");
  EXPECT_EQ(Bytes(), 2 * kGiB);
  WriteGroup("/a", std::to_string(3 * kGiB), 2 * kGiB);
  EXPECT_EQ(Bytes(), kGiB);
}

TEST_F(AvailableMemory, ReadsVersionOne) {
  root_.Write("/proc/self/cgroup", "9:name=systemd:/\n4:cpu,memory:/x\n1:cpu:/y\n0::/\n");
  const std::string folder = "/sys/fs/cgroup/memory/x";
  root_.Write(folder + "/memory.limit_in_bytes", "9223372036854771712\n");  // none
  root_.Write(folder + "/memory.usage_in_bytes", std::to_string(3 * kGiB));
  EXPECT_EQ(Bytes(), 8 * kGiB);
  root_.Write(folder + "/memory.limit_in_bytes", std::to_string(4 * kGiB));
  root_.Write(folder + "/memory.stat",
              "active_file 1\ninactive_file 2\ntotal_active_file 500\ntotal_inactive_file 70\n");
  EXPECT_EQ(Bytes(), kGiB + 570);
  // A group above it.
  root_.Write("/sys/fs/cgroup/memory/memory.limit_in_bytes", std::to_string(4 * kGiB));
  root_.Write("/sys/fs/cgroup/memory/memory.usage_in_bytes", std::to_string(4 * kGiB - 10));
  EXPECT_EQ(Bytes(), 10);
}

TEST_F(AvailableMemory, LinesThatMeanNothingSayNothing) {
  root_.Write("/proc/self/cgroup", "nonsense\n0::/a\n");
  WriteGroup("/a", "many", kGiB);
  EXPECT_EQ(Bytes(), 8 * kGiB);
  root_.Write("/sys/fs/cgroup/a/memory.max", std::to_string(2 * kGiB));
  EXPECT_EQ(Bytes(), kGiB);
  root_.Write("/sys/fs/cgroup/a/memory.current", "");
  EXPECT_EQ(Bytes(), 8 * kGiB);
}

class Limits : public AvailableMemory {
 protected:
  static constexpr int64_t kNone = std::numeric_limits<int64_t>::max();
  Limits() {
    root_.Write("/proc/self/cgroup", "0::/a\n");
    root_.Write("/proc/self/status",
                "Name:\tx\nVmRSS:\t 2097152 kB\nRssAnon:\t 1040384 kB\nRssFile:\t 5 kB\n"
                "RssShmem:\t 8192 kB\n");  // 1 GiB in all
  }
  void Expect(int64_t hard, int64_t soft) const {
    const MemoryLimits limits = GroupMemoryLimits(root_.path());
    EXPECT_EQ(limits.hard, hard);
    EXPECT_EQ(limits.soft, soft);
  }
};

TEST_F(Limits, OwnMemoryIsWhatCannotBeGivenBack) {
  EXPECT_EQ(OwnMemoryBytes(root_.path()), kGiB);
  EXPECT_EQ(OwnMemoryBytes("/nowhere"), 0);
  EXPECT_GT(OwnMemoryBytes(), 1 << 16);
}

TEST_F(Limits, AreNoneWithoutGroups) {
  Expect(kNone, kNone);
  WriteGroup("/a", "max", 3 * kGiB);
  Expect(kNone, kNone);
}

TEST_F(Limits, AreThoseOfTheGroupLessWhatOthersHold) {
  WriteGroup("/a", std::to_string(5 * kGiB), kGiB);  // ours alone
  Expect(5 * kGiB, kNone);
  WriteGroup("/a", std::to_string(5 * kGiB), 3 * kGiB);  // others hold 2 GiB
  Expect(3 * kGiB, kNone);
  root_.Write("/sys/fs/cgroup/a/memory.high", std::to_string(4 * kGiB) + "\n");
  Expect(3 * kGiB, 2 * kGiB);
  WriteGroup("/a", std::to_string(5 * kGiB), 3 * kGiB, "active_file 536870912\n");
  Expect(3 * kGiB + kGiB / 2, 2 * kGiB + kGiB / 2);
  // A group above it.
  WriteGroup("", std::to_string(4 * kGiB), 3 * kGiB);
  Expect(2 * kGiB, 2 * kGiB + kGiB / 2);
}

TEST_F(Limits, OfVersionOneHaveASoftLimit) {
  root_.Write("/proc/self/cgroup", "4:memory:/x\n");
  const std::string folder = "/sys/fs/cgroup/memory/x";
  root_.Write(folder + "/memory.limit_in_bytes", "9223372036854771712\n");
  root_.Write(folder + "/memory.soft_limit_in_bytes", "9223372036854771712\n");
  root_.Write(folder + "/memory.usage_in_bytes", std::to_string(kGiB));
  Expect(kNone, kNone);
  root_.Write(folder + "/memory.soft_limit_in_bytes", std::to_string(2 * kGiB));
  Expect(kNone, 2 * kGiB);
  root_.Write(folder + "/memory.limit_in_bytes", std::to_string(3 * kGiB));
  Expect(3 * kGiB, 2 * kGiB);
  // The soft limit is no wall: what is left is counted to the hard one.
  EXPECT_EQ(Bytes(), 2 * kGiB);
}

TEST_F(Limits, SwapIsWhatTheSystemHasUnlessAGroupForbidsIt) {
  EXPECT_EQ(SwapBytes(root_.path()), 0);
  root_.Write("/proc/meminfo",
              "MemAvailable: 8388608 kB\nSwapTotal:  1048576 kB\nSwapFree: 3 kB\n");
  EXPECT_EQ(SwapBytes(root_.path()), kGiB);
  root_.Write("/sys/fs/cgroup/a/memory.swap.max", "max\n");
  EXPECT_EQ(SwapBytes(root_.path()), kGiB);
  root_.Write("/sys/fs/cgroup/a/memory.swap.max", "0\n");
  EXPECT_EQ(SwapBytes(root_.path()), 0);
  root_.Write("/proc/self/cgroup", "4:memory:/x\n");
  root_.Write("/sys/fs/cgroup/memory/x/memory.swappiness", "60\n");
  EXPECT_EQ(SwapBytes(root_.path()), kGiB);
  root_.Write("/sys/fs/cgroup/memory/x/memory.swappiness", "0\n");
  EXPECT_EQ(SwapBytes(root_.path()), 0);
}

TEST_F(Limits, AreReadAllAtOnce) {
  WriteGroup("/a", std::to_string(5 * kGiB), 2 * kGiB);
  const MemoryReading reading = ReadMemory(root_.path());
  EXPECT_EQ(reading.held, kGiB);
  EXPECT_EQ(reading.available, 3 * kGiB);
  EXPECT_EQ(reading.limits.hard, 4 * kGiB);
  EXPECT_EQ(reading.limits.soft, kNone);
}

}  // namespace
}  // namespace thermocline
