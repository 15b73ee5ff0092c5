// EngineTest: an engine over the alphabet model, stepped by hand, with a clock that stands still
// until told otherwise.
#ifndef THERMOCLINE_TESTS_ENGINE_ENGINE_FIXTURE_H_
#define THERMOCLINE_TESTS_ENGINE_ENGINE_FIXTURE_H_

#include <gtest/gtest.h>

#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/engine.h"
#include "tests/support/alphabet.h"
#include "tests/support/golden.h"
#include "tests/support/recording_sink.h"

namespace thermocline {

class EngineTest : public testing::Test {
 protected:
  void SetUp() override { Start({}); }

  void Start(EngineOptions options) {
    engine_.reset();
    options.model_path = alphabet::Path();
    options.now = [this] { return now_; };
    options.num_threads = 1;
    if (options.kv_tokens == 0) options.kv_tokens = 1024;
    engine_ = MakeEngine(std::move(options));
    ASSERT_NE(engine_, nullptr);
  }

  // Greedy, so that the output is the alphabet.
  static GenerateRequest Request(const std::string& prompt, std::optional<int64_t> max_tokens) {
    GenerateRequest request;
    request.prompt = alphabet::Tokens(prompt);
    request.sampling.temperature = 0.0f;
    request.max_tokens = max_tokens;
    return request;
  }
  // Lives as long as the engine, however the test ends.
  Recording& NewRecording() { return recordings_.emplace_back(); }
  RequestId Submit(GenerateRequest request, Recording* recording) {
    const auto id = engine_->Submit(std::move(request), std::make_unique<RecordingSink>(recording));
    EXPECT_TRUE(id.ok()) << id.status();
    return id.ok() ? *id : 0;
  }
  absl::Status StatusOfSubmit(GenerateRequest request) {
    return engine_->Submit(std::move(request), std::make_unique<RecordingSink>(&unused_)).status();
  }
  void RunToTheEnd() {
    while (engine_->Step()) {
    }
  }
  // The request alone, to its end, which must leave nothing behind.
  Recording Run(GenerateRequest request) {
    Recording& recording = NewRecording();
    Submit(std::move(request), &recording);
    RunToTheEnd();
    EXPECT_TRUE(recording.done());
    ExpectNothingIsLeft();
    return recording;
  }
  void ExpectNothingIsLeft() {
    const EngineSnapshot snapshot = engine_->Snapshot();
    EXPECT_EQ(snapshot.num_running, 0);
    EXPECT_EQ(snapshot.num_waiting, 0);
    EXPECT_EQ(snapshot.kv_blocks_used, 0);
  }

  double now_ = 100.0;
  std::deque<Recording> recordings_;
  Recording unused_;  // of requests that are refused
  std::unique_ptr<Engine> engine_;
};

}  // namespace thermocline

#endif  // THERMOCLINE_TESTS_ENGINE_ENGINE_FIXTURE_H_
