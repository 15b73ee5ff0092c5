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
  EXPECT_EQ(PercentilesOf({}).max, 0.0);
  EXPECT_EQ(PercentilesOf({3.0}).p50, 3.0);
}

TEST(LoadReport, CountsErrorsApartAndLeavesThemOutOfTheTimes) {
  std::vector<RequestSample> samples(3);
  samples[0].first_token = 0.5;
  samples[0].total = 1.0;
  samples[0].prompt_tokens = 7;
  samples[0].output_tokens = 3;
  samples[0].inter_token = {0.1, 0.2};
  samples[1].error = "no";
  samples[2].cancelled = true;
  samples[2].total = 0.1;
  const LoadReport report = LoadReport::From(samples, 2.0);
  EXPECT_EQ(report.requests, 3);
  EXPECT_EQ(report.errors.at("no"), 1);
  EXPECT_EQ(report.first_token.p50, 0.5);
  EXPECT_EQ(report.total.max, 1.0);
  const auto json = nlohmann::json::parse(report.ToJson());
  EXPECT_EQ(json["output_tokens_per_second"], 1.5);
  EXPECT_NE(report.ToTable().find("1 errors"), std::string::npos);
}

}  // namespace
}  // namespace thermocline
