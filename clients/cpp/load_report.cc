#include "clients/cpp/load_report.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

namespace thermocline {
namespace {

nlohmann::ordered_json Json(const Percentiles& p) {
  return {{"p50", p.p50}, {"p90", p.p90}, {"p99", p.p99}, {"max", p.max}};
}

std::string Row(const char* name, const Percentiles& p) {
  char line[160];
  std::snprintf(line, sizeof(line), "%-22s %9.1f %9.1f %9.1f %9.1f\n", name, p.p50 * 1e3,
                p.p90 * 1e3, p.p99 * 1e3, p.max * 1e3);
  return line;
}

}  // namespace

Percentiles PercentilesOf(std::vector<double> values) {
  if (values.empty()) return {};
  std::sort(values.begin(), values.end());
  const auto rank = [&](double share) {
    const double position = std::ceil(share * static_cast<double>(values.size()));
    return values[static_cast<size_t>(std::max(1.0, position)) - 1];
  };
  return {rank(0.50), rank(0.90), rank(0.99), values.back()};
}

LoadReport LoadReport::From(const std::vector<RequestSample>& samples, double seconds) {
  LoadReport report;
  report.seconds = seconds;
  report.requests = static_cast<int64_t>(samples.size());
  std::vector<double> first, inter, total;
  for (const RequestSample& sample : samples) {
    if (!sample.error.empty()) {
      ++report.errors[sample.error];
      continue;
    }
    report.prompt_tokens += sample.prompt_tokens;
    report.output_tokens += sample.output_tokens;
    if (sample.output_tokens > 0) first.push_back(sample.first_token);
    if (!sample.cancelled) total.push_back(sample.total);
    inter.insert(inter.end(), sample.inter_token.begin(), sample.inter_token.end());
  }
  report.first_token = PercentilesOf(std::move(first));
  report.inter_token = PercentilesOf(std::move(inter));
  report.total = PercentilesOf(std::move(total));
  return report;
}

std::string LoadReport::ToTable() const {
  int64_t num_errors = 0;
  for (const auto& [message, count] : errors) num_errors += count;
  char head[256];
  std::snprintf(head, sizeof(head),
                "%lld requests in %.1f s, %lld errors; %lld prompt and %lld output tokens, %.1f "
                "output tokens/s\n",
                static_cast<long long>(requests), seconds, static_cast<long long>(num_errors),
                static_cast<long long>(prompt_tokens), static_cast<long long>(output_tokens),
                static_cast<double>(output_tokens) / seconds);
  std::string table = head;
  table += "milliseconds                 p50       p90       p99       max\n";
  table += Row("time to first token", first_token) + Row("between tokens", inter_token) +
           Row("whole request", total);
  for (const auto& [message, count] : errors)
    table += std::to_string(count) + " x " + message + "\n";
  return table;
}

std::string LoadReport::ToJson() const {
  const nlohmann::ordered_json json = {
      {"seconds", seconds},
      {"requests", requests},
      {"errors", errors},
      {"prompt_tokens", prompt_tokens},
      {"output_tokens", output_tokens},
      {"output_tokens_per_second", static_cast<double>(output_tokens) / seconds},
      {"time_to_first_token_seconds", Json(first_token)},
      {"inter_token_seconds", Json(inter_token)},
      {"request_seconds", Json(total)}};
  return json.dump(2);
}

}  // namespace thermocline
