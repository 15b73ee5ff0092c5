#include "kernels/cpu/worker_pool.h"

#include <gtest/gtest.h>

#include <numeric>

namespace thermocline {
namespace {

TEST(WorkerPool, RunsEveryTaskOnceForAnyNumberOfThreadsAndTasks) {
  for (int threads : {1, 2, 3, 8}) {
    WorkerPool pool(threads);
    EXPECT_EQ(pool.num_threads(), threads);
    for (int64_t tasks : {0, 1, 2, 7, 1000}) {
      std::vector<int> runs(static_cast<size_t>(tasks), 0);
      pool.Run(tasks, [&](int64_t task, int worker) {
        ASSERT_LT(worker, threads);
        ++runs[static_cast<size_t>(task)];
      });
      for (int count : runs) EXPECT_EQ(count, 1);
    }
  }
}

TEST(WorkerPool, MakesResultsVisibleAcrossManyRegions) {
  WorkerPool pool(4);
  std::vector<int64_t> values(64, 0);
  for (int region = 0; region < 2000; ++region) {
    pool.Run(64, [&](int64_t task, int) { values[static_cast<size_t>(task)] += task; });
  }
  EXPECT_EQ(std::accumulate(values.begin(), values.end(), int64_t{0}), int64_t{2000} * 63 * 64 / 2);
}

TEST(WorkerPool, WakesParkedWorkers) {
  WorkerPool pool(2);
  for (int i = 0; i < 3; ++i) {
    std::this_thread::sleep_for(
        std::chrono::milliseconds(5));  // longer than the spin: the workers park
    int64_t sums[2] = {};
    pool.Run(100, [&](int64_t, int worker) { ++sums[worker]; });
    EXPECT_EQ(sums[0] + sums[1], 100);
  }
}

}  // namespace
}  // namespace thermocline
