#include "engine/benchmark.h"

#include <algorithm>
#include <memory>
#include <numeric>
#include <random>

#include "absl/strings/str_cat.h"

namespace thermocline {
namespace {

class CountingSink : public ResponseSink {
 public:
  CountingSink(int64_t* tokens, absl::Status* status) : tokens_(tokens), status_(status) {}
  bool OnDelta(Delta delta) override {
    *tokens_ += static_cast<int64_t>(delta.tokens.size());
    return true;
  }
  void OnDone(const Result& result) override {
    if (!result.status.ok()) *status_ = result.status;
  }

 private:
  int64_t* tokens_;
  absl::Status* status_;
};

// One measured stretch of steps.
struct Stretch {
  double seconds = 0.0;
  int64_t steps = 0;
  int64_t tokens = 0;
  EngineSnapshot before, after;
};

class Bench {
 public:
  Bench(Engine* engine, const BenchmarkOptions& options)
      : engine_(engine), options_(options), random_(options.seed) {}

  absl::StatusOr<BenchmarkRow> Prefill(int tokens) {
    BenchmarkRow row;
    row.kind = "prefill";
    row.streams = 1;
    row.tokens = tokens;
    return Measure(
        row, [&] { return RunPrefill(tokens); }, tokens / 2.0);
  }
  absl::StatusOr<BenchmarkRow> Decode(int streams) {
    BenchmarkRow row;
    row.kind = "decode";
    row.streams = streams;
    row.tokens = options_.new_tokens;
    return Measure(
        row, [&] { return RunDecode(streams); },
        options_.prompt_tokens + options_.new_tokens / 2.0);
  }

 private:
  std::vector<int32_t> RandomTokens(int count) {
    std::vector<int32_t> tokens(static_cast<size_t>(count));
    const uint64_t vocab = static_cast<uint64_t>(engine_->dims().vocab_size);
    for (int32_t& token : tokens) token = static_cast<int32_t>(random_() % vocab);
    return tokens;
  }

  absl::Status Submit(int prompt_tokens, int new_tokens) {
    GenerateRequest request;
    request.prompt = RandomTokens(prompt_tokens);
    request.forced = RandomTokens(new_tokens);
    request.max_tokens = new_tokens;
    request.ignore_eos = true;
    return engine_->Submit(std::move(request), std::make_unique<CountingSink>(&tokens_, &status_))
        .status();
  }

  void Step(Stretch* stretch) {
    engine_->Step();
    ++stretch->steps;
  }

  absl::StatusOr<Stretch> RunPrefill(int tokens) {
    if (absl::Status s = Submit(tokens, 1); !s.ok()) return s;
    Stretch stretch;
    stretch.before = engine_->Snapshot();
    tokens_ = 0;
    const double start = engine_->Now();
    while (tokens_ == 0 && status_.ok()) Step(&stretch);
    stretch.seconds = engine_->Now() - start;
    stretch.tokens = tokens;
    stretch.after = engine_->Snapshot();
    return Finished(stretch);
  }

  absl::StatusOr<Stretch> RunDecode(int streams) {
    for (int s = 0; s < streams; ++s) {
      absl::Status submitted = Submit(options_.prompt_tokens, options_.new_tokens + 1);
      if (!submitted.ok()) return submitted;
    }
    // All prompts first; the stretch begins when every stream has its first token.
    tokens_ = 0;
    const int64_t prompts =
        engine_->Snapshot().prompt_tokens + int64_t{streams} * options_.prompt_tokens;
    while (engine_->Snapshot().prompt_tokens < prompts && status_.ok()) engine_->Step();
    Stretch stretch;
    stretch.before = engine_->Snapshot();
    const int64_t first = tokens_;
    const double start = engine_->Now();
    // Streams that began earlier end earlier: only steps in which all run count.
    const int64_t steps = options_.new_tokens - first / streams;
    while (stretch.steps < steps && status_.ok()) Step(&stretch);
    stretch.seconds = engine_->Now() - start;
    stretch.tokens = tokens_ - first;
    stretch.after = engine_->Snapshot();
    return Finished(stretch);
  }

  absl::StatusOr<Stretch> Finished(Stretch stretch) {
    while (engine_->Step()) {
    }
    if (!status_.ok()) return status_;
    return stretch;
  }

  // Runs once to warm up, then options.repetitions times with the peaks measured in between.
  absl::StatusOr<BenchmarkRow> Measure(BenchmarkRow row,
                                       const std::function<absl::StatusOr<Stretch>()>& run,
                                       double mean_context) {
    std::vector<Stretch> stretches;
    std::vector<double> read, int8;
    for (int i = 0; i <= options_.repetitions; ++i) {
      if (options_.progress) {
        options_.progress(absl::StrCat(row.kind, ", ", row.streams, " streams, ", row.tokens,
                                       " tokens: ", i, " of ", options_.repetitions));
      }
      absl::StatusOr<Stretch> stretch = run();
      if (!stretch.ok()) return stretch.status();
      if (i > 0) stretches.push_back(*std::move(stretch));
      if (options_.read_gb_per_second) read.push_back(options_.read_gb_per_second());
      if (options_.int8_gop_per_second) int8.push_back(options_.int8_gop_per_second());
    }
    const auto rate = [](const Stretch& s) { return static_cast<double>(s.tokens) / s.seconds; };
    std::sort(stretches.begin(), stretches.end(),
              [&](const Stretch& a, const Stretch& b) { return rate(a) < rate(b); });
    const auto at = [&](double share) -> const Stretch& {
      return stretches[static_cast<size_t>(share * static_cast<double>(stretches.size() - 1) +
                                           0.5)];
    };
    row.tokens_per_second = {rate(at(0.5)), rate(at(0.1)), rate(at(0.9))};
    Describe(at(0.5), mean_context, &row);
    const auto median = [](std::vector<double> values) {
      if (values.empty()) return 0.0;
      std::sort(values.begin(), values.end());
      return values[values.size() / 2];
    };
    row.read_gb_per_second = median(read);
    row.int8_gop_per_second = median(int8);
    return row;
  }

  void Describe(const Stretch& s, double mean_context, BenchmarkRow* row) const {
    const double steps = static_cast<double>(s.steps);
    row->seconds = s.seconds / steps;
    for (size_t i = 0; i < kNumStages; ++i) {
      row->stages[i] = (s.after.stage_seconds[i] - s.before.stage_seconds[i]) / steps;
    }
    const WeightStore::DenseWork work = engine_->weights().dense_work(engine_->dims());
    const double expert_bytes =
        static_cast<double>(s.after.expert_bytes_computed - s.before.expert_bytes_computed) / steps;
    row->bytes = static_cast<double>(work.body_bytes + work.head_bytes) + expert_bytes +
                 row->streams * mean_context * static_cast<double>(options_.kv_token_bytes);
    double expert_ops = 0.0, layer_bytes = 0.0;
    const std::vector<ExpertLayout>& layouts = engine_->expert_files().layouts();
    for (size_t l = 0; l < layouts.size(); ++l) {
      const ExpertLayout& e = layouts[l];
      const double elems = static_cast<double>(e.gate.rows * e.gate.cols + e.up.rows * e.up.cols +
                                               e.down.rows * e.down.cols);
      const auto sum = [l](const EngineSnapshot& snapshot) {
        return static_cast<double>(
            std::accumulate(snapshot.heat[l].begin(), snapshot.heat[l].end(), int64_t{0}));
      };
      expert_ops += 2.0 * elems * (sum(s.after) - sum(s.before)) / steps;
      layer_bytes += static_cast<double>(e.bytes);
    }
    row->experts_per_layer = layer_bytes > 0.0 ? expert_bytes / layer_bytes : 0.0;
    row->file_bytes =
        static_cast<double>(s.after.expert_bytes_read - s.before.expert_bytes_read) / steps;
    const double tokens = static_cast<double>(s.tokens) / steps;
    const double logits = row->kind == "prefill" ? 1.0 / steps : static_cast<double>(row->streams);
    row->ops = expert_ops + 2.0 * tokens * static_cast<double>(work.body_elems) +
               2.0 * logits * static_cast<double>(work.head_elems);
  }

  Engine* engine_;
  const BenchmarkOptions& options_;
  std::mt19937_64 random_;
  int64_t tokens_ = 0;  // delivered since it was last set to zero
  absl::Status status_;
};

}  // namespace

double BenchmarkRow::share_of_bound() const {
  if (read_gb_per_second <= 0.0 || int8_gop_per_second <= 0.0) return 0.0;
  const double least = std::max(bytes / read_gb_per_second, ops / int8_gop_per_second) / 1e9;
  return least / seconds;
}

absl::StatusOr<std::vector<BenchmarkRow>> RunBenchmark(Engine* engine,
                                                       const BenchmarkOptions& options) {
  const auto positive = [](const char* name, int value) {
    if (value >= 1) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat(name, " = ", value, ", but 1 or more is needed"));
  };
  std::vector<std::pair<const char*, int>> checked = {{"prompt tokens", options.prompt_tokens},
                                                      {"new tokens", options.new_tokens},
                                                      {"repetitions", options.repetitions}};
  for (int tokens : options.prefill) checked.push_back({"prefill", tokens});
  for (int streams : options.streams) checked.push_back({"streams", streams});
  for (const auto& [name, value] : checked) {
    if (absl::Status s = positive(name, value); !s.ok()) return s;
  }
  Bench bench(engine, options);
  std::vector<BenchmarkRow> rows;
  for (int tokens : options.prefill) {
    absl::StatusOr<BenchmarkRow> row = bench.Prefill(tokens);
    if (!row.ok()) return row.status();
    rows.push_back(*std::move(row));
  }
  for (int streams : options.streams) {
    absl::StatusOr<BenchmarkRow> row = bench.Decode(streams);
    if (!row.ok()) return row.status();
    rows.push_back(*std::move(row));
  }
  return rows;
}

}  // namespace thermocline
