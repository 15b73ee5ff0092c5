// Measures prefill and decode of one model in this process and prints JSON. Not a test: nothing is
// asserted.
//
//   speed_bench MODEL [PROMPT_TOKENS [NEW_TOKENS [STREAMS]]]
//
// Prompts are random token ids, different for every stream; new tokens are drawn at temperature
// 100, so that a random model does not fall into a loop that keeps hitting the same experts.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <numeric>
#include <random>
#include <thread>

#include "engine/engine.h"

namespace thermocline {
namespace {

double Seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Bytes a second that two threads read from a buffer larger than any cache, in GB/s.
double ReadBandwidth() {
  constexpr size_t kWords = (size_t{4} << 30) / 8;  // 4 GiB
  std::vector<uint64_t> buffer(kWords, 1);
  double best = 0.0;
  for (int round = 0; round < 3; ++round) {
    uint64_t sums[2] = {};
    const double start = Seconds();
    std::vector<std::thread> threads;
    for (size_t t = 0; t < 2; ++t) {
      threads.emplace_back([&, t] {
        uint64_t a[8] = {};
        for (size_t i = t * kWords / 2; i < (t + 1) * kWords / 2; i += 8) {
          for (size_t j = 0; j < 8; ++j) a[j] += buffer[i + j];
        }
        sums[t] = std::accumulate(a, a + 8, uint64_t{0});
      });
    }
    for (std::thread& thread : threads) thread.join();
    if (sums[0] + sums[1] != kWords) std::abort();
    best = std::max(best, static_cast<double>(kWords) * 8 / (Seconds() - start) / 1e9);
  }
  return best;
}

// Remembers when each token came.
class TimingSink : public ResponseSink {
 public:
  TimingSink(std::vector<double>* first, double* last) : first_(first), last_(last) {}
  bool OnDelta(Delta delta) override {
    if (delta.tokens.empty()) return true;
    *last_ = Seconds();
    if (!seen_) first_->push_back(*last_);
    seen_ = true;
    return true;
  }
  void OnDone(const Result& result) override {
    if (!result.status.ok()) std::fprintf(stderr, "%s\n", result.status.ToString().c_str());
  }

 private:
  std::vector<double>* first_;
  double* last_;
  bool seen_ = false;
};

int Main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: %s MODEL [PROMPT_TOKENS [NEW_TOKENS [STREAMS]]]\n", argv[0]);
    return 2;
  }
  const int prompt_tokens = argc > 2 ? std::atoi(argv[2]) : 512;
  const int new_tokens = argc > 3 ? std::atoi(argv[3]) : 64;
  const int streams = argc > 4 ? std::atoi(argv[4]) : 1;
  EngineOptions options;
  options.model_path = argv[1];
  const double load_start = Seconds();
  absl::StatusOr<std::unique_ptr<Engine>> engine = Engine::Create(std::move(options));
  if (!engine.ok()) {
    std::fprintf(stderr, "%s\n", engine.status().ToString().c_str());
    return 1;
  }
  const double load_seconds = Seconds() - load_start;
  std::mt19937 random(1);
  std::vector<double> first;
  double last = 0.0;
  const double start = Seconds();
  for (int s = 0; s < streams; ++s) {
    GenerateRequest request;
    for (int i = 0; i < prompt_tokens; ++i) {
      request.prompt.push_back(
          static_cast<int32_t>(random() % static_cast<uint64_t>((*engine)->dims().vocab_size)));
    }
    request.max_tokens = new_tokens;
    request.ignore_eos = true;
    request.sampling.temperature = 100.0f;
    request.sampling.seed = static_cast<uint64_t>(s);
    if (!(*engine)->Submit(std::move(request), std::make_unique<TimingSink>(&first, &last)).ok())
      return 1;
  }
  while ((*engine)->Step()) {
  }
  // All streams decode together once the last prompt is done.
  const double prefill = first.back() - start, decode = last - first.back();
  const nlohmann::ordered_json out = {
      {"model", argv[1]},
      {"backend", (*engine)->DescribeBackend()},
      {"streams", streams},
      {"prompt_tokens", prompt_tokens},
      {"new_tokens", new_tokens},
      {"load_seconds", load_seconds},
      {"prefill_tokens_per_second", streams * prompt_tokens / prefill},
      {"decode_tokens_per_second", streams * (new_tokens - 1) / decode},
      {"read_bandwidth_gb_per_second", ReadBandwidth()}};
  std::puts(out.dump(2).c_str());
  return 0;
}

}  // namespace
}  // namespace thermocline

int main(int argc, char** argv) { return thermocline::Main(argc, argv); }
