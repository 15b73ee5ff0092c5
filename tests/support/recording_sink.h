// RecordingSink: a response sink that keeps what it is given.
#ifndef THERMOCLINE_TESTS_SUPPORT_RECORDING_SINK_H_
#define THERMOCLINE_TESTS_SUPPORT_RECORDING_SINK_H_

#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine/request.h"

namespace thermocline {

// What became of one request.
struct Recording {
  std::vector<int32_t> tokens;
  std::vector<OutputToken> infos;
  std::vector<std::string> texts;  // of each delta
  std::vector<std::pair<int64_t, std::vector<float>>> prompt_logits;
  std::optional<Result> result;
  std::function<bool()> on_delta;  // what OnDelta answers; unset: true
  std::function<void()> on_done;

  std::string text() const {
    std::string all;
    for (const std::string& part : texts) all += part;
    return all;
  }
  bool done() const { return result.has_value(); }
  FinishReason reason() const { return result->reason; }
};

class RecordingSink : public ResponseSink {
 public:
  // `recording` outlives the sink.
  explicit RecordingSink(Recording* recording) : recording_(recording) {}

  bool OnDelta(Delta delta) override {
    for (OutputToken& token : delta.tokens) {
      recording_->tokens.push_back(token.token);
      recording_->infos.push_back(std::move(token));
    }
    recording_->texts.push_back(std::move(delta.text));
    return !recording_->on_delta || recording_->on_delta();
  }
  void OnPromptLogits(int64_t position, absl::Span<const float> logits) override {
    recording_->prompt_logits.emplace_back(position,
                                           std::vector<float>(logits.begin(), logits.end()));
  }
  void OnDone(const Result& result) override {
    recording_->result = result;
    if (recording_->on_done) recording_->on_done();
  }

 private:
  Recording* recording_;
};

}  // namespace thermocline

#endif  // THERMOCLINE_TESTS_SUPPORT_RECORDING_SINK_H_
