// LoadReport: the figures of a load test.
#ifndef THERMOCLINE_CLIENTS_CPP_LOAD_REPORT_H_
#define THERMOCLINE_CLIENTS_CPP_LOAD_REPORT_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace thermocline {

// What one request measured. Times in seconds.
struct RequestSample {
  std::string error;       // empty: success
  bool cancelled = false;  // on purpose, by the generator
  double first_token = 0.0;
  double total = 0.0;
  int64_t prompt_tokens = 0;
  int64_t output_tokens = 0;
  std::vector<double> inter_token;
};

struct Percentiles {
  double p50 = 0.0, p90 = 0.0, p99 = 0.0, max = 0.0;
};

// Nearest rank; zeros for no values.
Percentiles PercentilesOf(std::vector<double> values);

struct LoadReport {
  double seconds = 0.0;
  int64_t requests = 0;
  std::map<std::string, int64_t> errors;  // message -> count
  int64_t prompt_tokens = 0;
  int64_t output_tokens = 0;
  Percentiles first_token, inter_token, total;

  static LoadReport From(const std::vector<RequestSample>& samples, double seconds);
  std::string ToTable() const;
  std::string ToJson() const;
};

}  // namespace thermocline

#endif  // THERMOCLINE_CLIENTS_CPP_LOAD_REPORT_H_
