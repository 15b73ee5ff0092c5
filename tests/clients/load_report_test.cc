#include "clients/cpp/load_report.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace thermocline {
namespace {

TEST(Percentiles, AreNearestRank) {
  std::vector<double> values;
  for (int i = 1; i <= 100; ++i) values.push_back(i);
  const Percentiles p = PercentilesOf(values);
  EXPECT_EQ(p.p50, 50.0);
  EXPECT_EQ(p.p90, 90.0);
  EXPECT_EQ(p.p99, 99.0);
  EXPECT_EQ(p.max, 100.0);
  // Of 7 values: the ranks ceil(3.5), ceil(6.3) and ceil(6.93), in any order.
  const Percentiles seven = PercentilesOf({70.0, 10.0, 60.0, 20.0, 50.0, 30.0, 40.0});
  EXPECT_EQ(seven.p50, 40.0);
  EXPECT_EQ(seven.p90, 70.0);
  EXPECT_EQ(seven.p99, 70.0);
  EXPECT_EQ(seven.max, 70.0);
  const Percentiles two = PercentilesOf({2.0, 1.0});
  EXPECT_EQ(two.p50, 1.0);
  EXPECT_EQ(two.p90, 2.0);
  EXPECT_EQ(PercentilesOf({}).max, 0.0);
  EXPECT_EQ(PercentilesOf({3.0}).p50, 3.0);
}

// One that succeeds with three tokens, two that fail, one that is dropped after two tokens and one
// dropped before its first.
std::vector<RequestSample> Samples() {
  std::vector<RequestSample> samples(5);
  samples[0].first_token = 0.5;
  samples[0].total = 1.0;
  samples[0].prompt_tokens = 7;
  samples[0].output_tokens = 3;
  samples[0].inter_token = {0.1, 0.2};
  samples[1].error = "no";
  samples[1].total = 9.0;
  samples[1].first_token = 9.0;
  samples[1].output_tokens = 1000;
  samples[1].prompt_tokens = 1000;
  samples[2].error = "no";
  samples[3].cancelled = true;
  samples[3].first_token = 0.25;
  samples[3].total = 4.0;
  samples[3].prompt_tokens = 2;
  samples[3].output_tokens = 2;
  samples[3].inter_token = {0.4};
  samples[4].cancelled = true;
  samples[4].total = 0.1;
  return samples;
}

TEST(LoadReport, CountsErrorsApartAndLeavesThemOutOfTheTimes) {
  const LoadReport report = LoadReport::From(Samples(), 2.0);
  EXPECT_EQ(report.seconds, 2.0);
  EXPECT_EQ(report.requests, 5);
  EXPECT_EQ(report.errors, (std::map<std::string, int64_t>{{"no", 2}}));
  EXPECT_EQ(report.prompt_tokens, 9);
  EXPECT_EQ(report.output_tokens, 5);
  // Those that were dropped have a first token if they came so far, but no end.
  EXPECT_EQ(report.first_token.p50, 0.25);
  EXPECT_EQ(report.first_token.max, 0.5);
  EXPECT_EQ(report.total.p50, 1.0);
  EXPECT_EQ(report.total.max, 1.0);
  EXPECT_EQ(report.inter_token.p50, 0.2);
  EXPECT_EQ(report.inter_token.max, 0.4);
}

TEST(LoadReport, TheTableIsInMillisecondsAndOutputTokensASecond) {
  EXPECT_EQ(LoadReport::From(Samples(), 2.0).ToTable(),
            "5 requests in 2.0 s, 2 errors; 9 prompt and 5 output tokens, 2.5 output tokens/s\n"
            "milliseconds                 p50       p90       p99       max\n"
            "time to first token        250.0     500.0     500.0     500.0\n"
            "between tokens             200.0     400.0     400.0     400.0\n"
            "whole request             1000.0    1000.0    1000.0    1000.0\n"
            "2 x no\n");
}

TEST(LoadReport, JsonIsInSeconds) {
  const auto percentiles = [](double p50, double p90, double p99, double max) {
    return nlohmann::json{{"p50", p50}, {"p90", p90}, {"p99", p99}, {"max", max}};
  };
  const nlohmann::json expected = {
      {"seconds", 2.0},
      {"requests", 5},
      {"errors", {{"no", 2}}},
      {"prompt_tokens", 9},
      {"output_tokens", 5},
      {"output_tokens_per_second", 2.5},
      {"time_to_first_token_seconds", percentiles(0.25, 0.5, 0.5, 0.5)},
      {"inter_token_seconds", percentiles(0.2, 0.4, 0.4, 0.4)},
      {"request_seconds", percentiles(1.0, 1.0, 1.0, 1.0)}};
  EXPECT_EQ(nlohmann::json::parse(LoadReport::From(Samples(), 2.0).ToJson()), expected);
}

}  // namespace
}  // namespace thermocline
