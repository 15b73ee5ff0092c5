#include "kernels/worker_pool.h"

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
      pool.ParallelFor(tasks, [&](int64_t task, int worker) {
        ASSERT_LT(worker, threads);
        ++runs[static_cast<size_t>(task)];
      });
      for (int count : runs) EXPECT_EQ(count, 1);
    }
  }
}

TEST(WorkerPool, RefusesImpossibleThreadCounts) {
  EXPECT_FALSE(WorkerPool::Create(-1, false).ok());
  EXPECT_FALSE(WorkerPool::Create(100000, false).ok());
  EXPECT_GE((*WorkerPool::Create(0, true))->num_threads(), 1);
  EXPECT_EQ((*WorkerPool::Create(3, false))->num_threads(), 3);
}

TEST(WorkerPool, RowsOfAnySizeAreEachVisitedOnce) {
  WorkerPool pool(3);
  for (int64_t elems : {1, 100, 1 << 20}) {
    std::vector<int> visits(1000, 0);
    pool.ForRows(1000, elems, [&](int64_t row) { ++visits[static_cast<size_t>(row)]; });
    EXPECT_EQ(visits, std::vector<int>(1000, 1));
  }
}

// Work that appears while it is done: every task below 100 puts two more.
TEST(WorkerPool, WorkersLoopTogetherUntilTheCallerReturns) {
  for (int threads : {1, 2, 4}) {
    WorkerPool pool(threads);
    std::atomic<int> todo{1}, done{0};
    std::atomic<int> inside{0};
    pool.Together([&](int worker) {
      ASSERT_LT(worker, threads);
      inside.fetch_add(1);
      while (done.load() < 100) {
        int left = todo.load();
        if (left == 0 || !todo.compare_exchange_strong(left, left - 1)) continue;
        todo.fetch_add(2);
        done.fetch_add(1);
      }
      inside.fetch_sub(1);
    });
    EXPECT_EQ(inside.load(), 0);  // nobody is left behind
    EXPECT_GE(done.load(), 100);
  }
}

TEST(WorkerPool, MakesResultsVisibleAcrossManyRegions) {
  WorkerPool pool(4);
  std::vector<int64_t> values(64, 0);
  for (int region = 0; region < 2000; ++region) {
    pool.ParallelFor(64, [&](int64_t task, int) { values[static_cast<size_t>(task)] += task; });
  }
  EXPECT_EQ(std::accumulate(values.begin(), values.end(), int64_t{0}), int64_t{2000} * 63 * 64 / 2);
}

TEST(WorkerPool, WakesParkedWorkers) {
  WorkerPool pool(2);
  for (int i = 0; i < 3; ++i) {
    std::this_thread::sleep_for(
        std::chrono::milliseconds(5));  // longer than the spin: the workers park
    int64_t sums[2] = {};
    pool.ParallelFor(100, [&](int64_t, int worker) { ++sums[worker]; });
    EXPECT_EQ(sums[0] + sums[1], 100);
  }
}

}  // namespace
}  // namespace thermocline
