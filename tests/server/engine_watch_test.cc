#include "server/engine_watch.h"

#include <gtest/gtest.h>

namespace thermocline {
namespace {

using Lines = std::vector<std::string>;

class EngineWatchTest : public testing::Test {
 protected:
  EngineWatchTest() {
    load_.experts.resize(2);
    load_.expert_bytes_allowed = 1400000000;
  }
  Lines Look(double now) {
    Lines lines;
    for (const EngineWatch::Line& line : watch_.Look(load_, now)) {
      lines.push_back((line.warning ? "! " : "") + line.text);
    }
    return lines;
  }
  EngineSnapshot load_;
  EngineWatch watch_{/*all_experts=*/false};
};

TEST_F(EngineWatchTest, SaysNothingOfAnIdleEngine) {
  EXPECT_EQ(Look(10.0), Lines());
  EXPECT_EQ(Look(100.0), Lines());
}

TEST_F(EngineWatchTest, SumsUpAMinute) {
  load_.num_steps = 5;
  load_.experts[0].hits = 1000;
  EXPECT_EQ(Look(10.0), Lines());
  load_.num_steps = 17;
  load_.prompt_tokens = 200;
  load_.generated_tokens = 30;
  load_.experts[0].hits += 60;
  load_.experts[1].hits = 15;
  load_.experts[0].misses = 20;
  load_.experts[1].misses = 5;
  load_.experts[1].evictions = 19;
  load_.experts[0].bytes_read = 60000000;
  load_.experts[1].bytes_read = 20000000;
  load_.expert_bytes_read = 100000000;
  EXPECT_EQ(Look(69.9), Lines());
  EXPECT_EQ(Look(70.0),
            Lines{"in 60 s: 12 steps, 200 prompt tokens, 30 generated ones; experts: 75.0 % of 100 "
                  "were in memory, 19 evicted, 100.0 MB read (80.0 % of it for use), 1400.0 MB of "
                  "memory"});
  EXPECT_EQ(Look(130.0), Lines());  // an idle minute
  ++load_.num_steps;
  EXPECT_EQ(Look(190.0), Lines{"in 60 s: 1 steps, 0 prompt tokens, 0 generated ones"});
}

TEST_F(EngineWatchTest, ReportsWhatHappensOnce) {
  load_.filling = true;
  EXPECT_EQ(Look(10.0), Lines());
  load_.expert_failure = absl::DataLossError("expert 3 of layer 1 cannot be read");
  EXPECT_EQ(Look(11.0), Lines{"! expert 3 of layer 1 cannot be read"});
  load_.filling = false;
  EXPECT_EQ(Look(12.5), Lines{"the experts are in memory, 2.5 s after the start"});
  load_.filling = true;  // a miss that is still on its way
  EXPECT_EQ(Look(13.0), Lines());
  load_.filling = false;
  EXPECT_EQ(Look(13.5), Lines());
  load_.expert_bytes_allowed = 700000000;
  EXPECT_EQ(Look(14.0), Lines{"memory limits have changed: experts may take 700.0 MB instead of "
                              "1400.0 MB"});
  EXPECT_EQ(Look(15.0), Lines());
}

}  // namespace
}  // namespace thermocline
