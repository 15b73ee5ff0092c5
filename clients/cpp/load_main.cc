// thermocline-load: aims load at a Thermocline server, by a fixed number of streams or by random
// arrivals, and reports latencies.
#include <grpcpp/grpcpp.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <random>
#include <thread>

#include "absl/synchronization/mutex.h"
#include "clients/cpp/load_report.h"
#include "thermocline/v1/inference.grpc.pb.h"

namespace {

namespace v1 = thermocline::v1;
using Clock = std::chrono::steady_clock;

struct Flags {
  std::string address = "localhost:50051";
  int streams = 16;
  double rate = 0.0;
  double seconds = 30.0;
  int64_t max_requests = 0;
  int64_t max_tokens = 64;
  int prompt_words = 40;
  double cancel_share = 0.0;
  uint64_t seed = 1;
  bool json = false;
};

double Since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// A different prompt for every request: words drawn by a seeded generator.
std::string MakePrompt(int num_words, uint64_t seed) {
  constexpr const char* kWords[] = {"the",   "river", "stone", "under", "light", "carries",
                                    "cold",  "water", "slow",  "north", "story", "about",
                                    "deep",  "layer", "where", "warm",  "meets", "and",
                                    "every", "ship",  "that",  "sails", "finds", "quiet"};
  std::mt19937_64 random(seed);
  std::string prompt = "Story " + std::to_string(seed % 100000) + ":";
  for (int i = 0; i < num_words; ++i)
    prompt += std::string(" ") + kWords[random() % std::size(kWords)];
  return prompt;
}

// Sends one request and measures it. With a cancel share, some requests are dropped after a random
// number of tokens.
thermocline::RequestSample SendOne(v1::Inference::Stub* stub, const Flags& flags, uint64_t seed) {
  thermocline::RequestSample sample;
  std::mt19937_64 random(seed ^ 0x5DEECE66Dull);
  const bool cancel = std::uniform_real_distribution<double>(0.0, 1.0)(random) < flags.cancel_share;
  const int64_t cancel_after =
      static_cast<int64_t>(random() % static_cast<uint64_t>(flags.max_tokens + 1));
  v1::GenerateRequest request;
  request.set_text(MakePrompt(flags.prompt_words, seed));
  request.mutable_params()->set_max_tokens(flags.max_tokens);
  request.mutable_params()->set_ignore_eos(true);
  request.mutable_params()->mutable_sampling()->set_temperature(0.0f);
  grpc::ClientContext context;
  const Clock::time_point start = Clock::now();
  const auto reader = stub->Generate(&context, request);
  if (cancel && cancel_after == 0) context.TryCancel();
  double last = 0.0;
  bool cancelled = cancel && cancel_after == 0;
  for (v1::GenerateResponse response; reader->Read(&response);) {
    const double now = Since(start);
    for (int i = 0; i < response.tokens_size(); ++i) {
      if (sample.output_tokens++ == 0) {
        sample.first_token = now;
      } else {
        sample.inter_token.push_back(now - last);
      }
      last = now;
    }
    if (response.has_usage()) sample.prompt_tokens = response.usage().prompt_tokens();
    if (cancel && sample.output_tokens >= cancel_after && !cancelled) {
      context.TryCancel();
      cancelled = true;
    }
  }
  const grpc::Status status = reader->Finish();
  sample.total = Since(start);
  sample.cancelled = cancelled;
  const bool expected = cancelled && status.error_code() == grpc::StatusCode::CANCELLED;
  if (!status.ok() && !expected) {
    sample.error =
        status.error_message() + " (gRPC status " + std::to_string(status.error_code()) + ")";
  }
  return sample;
}

class LoadRun {
 public:
  explicit LoadRun(const Flags& flags)
      : flags_(flags),
        stub_(v1::Inference::NewStub(
            grpc::CreateChannel(flags.address, grpc::InsecureChannelCredentials()))) {}

  thermocline::LoadReport Run() {
    start_ = Clock::now();
    if (flags_.rate > 0.0) {
      Poisson();
    } else {
      ClosedLoop();
    }
    absl::MutexLock lock(&mutex_);
    return thermocline::LoadReport::From(samples_, Since(start_));
  }

 private:
  bool MayStart(int64_t number) const {
    return Since(start_) < flags_.seconds &&
           (flags_.max_requests == 0 || number < flags_.max_requests);
  }
  void Send(int64_t number) {
    thermocline::RequestSample sample =
        SendOne(stub_.get(), flags_, flags_.seed * 1000003 + static_cast<uint64_t>(number));
    absl::MutexLock lock(&mutex_);
    samples_.push_back(std::move(sample));
  }

  // Every stream sends its next request when the last one is done.
  void ClosedLoop() {
    std::atomic<int64_t> next{0};
    std::vector<std::thread> streams;
    for (int s = 0; s < flags_.streams; ++s) {
      streams.emplace_back([&] {
        for (int64_t number = next++; MayStart(number); number = next++) Send(number);
      });
    }
    for (std::thread& stream : streams) stream.join();
  }

  // Requests arrive at random times, whether or not earlier ones are done.
  void Poisson() {
    std::mt19937_64 random(flags_.seed);
    std::exponential_distribution<double> gap(flags_.rate);
    double arrival = gap(random);
    for (int64_t number = 0;
         arrival < flags_.seconds && (flags_.max_requests == 0 || number < flags_.max_requests);
         ++number) {
      std::this_thread::sleep_until(start_ + std::chrono::duration_cast<Clock::duration>(
                                                 std::chrono::duration<double>(arrival)));
      {
        absl::MutexLock lock(&mutex_);
        ++in_flight_;
      }
      // Detached: finished threads must not pile up over a long run. Run waits for all of them.
      std::thread([this, number] {
        Send(number);
        absl::MutexLock lock(&mutex_);
        --in_flight_;
      }).detach();
      arrival += gap(random);
    }
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(
        +[](int64_t* in_flight) { return *in_flight == 0; }, &in_flight_));
  }

  const Flags& flags_;
  std::unique_ptr<v1::Inference::Stub> stub_;
  Clock::time_point start_;
  absl::Mutex mutex_;
  std::vector<thermocline::RequestSample> samples_ ABSL_GUARDED_BY(mutex_);
  int64_t in_flight_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace

int main(int argc, char** argv) {
  Flags flags;
  CLI::App app("Load test of a Thermocline server. Exit status 1 when a request failed.");
  app.add_option("--address", flags.address, "host:port of the server")->capture_default_str();
  app.add_option("--streams", flags.streams, "requests in flight (closed loop)")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  app.add_option("--rate", flags.rate, "arrivals a second (Poisson) instead of a closed loop")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--seconds", flags.seconds, "start no request after this")
      ->check(CLI::Range(0.1, 86400.0))
      ->capture_default_str();
  app.add_option("--requests", flags.max_requests, "at most so many; 0: any number")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--max-tokens", flags.max_tokens, "tokens of each answer")
      ->check(CLI::Range(1, 100000))
      ->capture_default_str();
  app.add_option("--prompt-words", flags.prompt_words, "length of the prompts")
      ->check(CLI::Range(1, 10000))
      ->capture_default_str();
  app.add_option("--cancel-share", flags.cancel_share,
                 "share of requests dropped at a random moment")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  app.add_option("--seed", flags.seed, "of prompts and arrivals")->capture_default_str();
  app.add_flag("--json", flags.json, "print JSON instead of a table");
  CLI11_PARSE(app, argc, argv);
  LoadRun run(flags);
  const thermocline::LoadReport report = run.Run();
  std::fputs((flags.json ? report.ToJson() + "\n" : report.ToTable()).c_str(), stdout);
  return report.errors.empty() ? 0 : 1;
}
