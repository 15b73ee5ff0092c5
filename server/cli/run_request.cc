#include "server/cli/run_request.h"

namespace thermocline {
namespace {

class Collector : public ResponseSink {
 public:
  Collector(Completion* completion, const RunCallbacks* callbacks)
      : completion_(completion), callbacks_(callbacks) {}

  bool OnDelta(Delta delta) override {
    for (const OutputToken& token : delta.tokens) completion_->tokens.push_back(token.token);
    completion_->text += delta.text;
    if (callbacks_->on_text && !delta.text.empty()) callbacks_->on_text(delta.text);
    return true;
  }
  void OnPromptLogits(int64_t position, absl::Span<const float> logits) override {
    if (callbacks_->on_prompt_logits) callbacks_->on_prompt_logits(position, logits);
  }
  void OnDone(const Result& result) override { completion_->result = result; }

 private:
  Completion* completion_;
  const RunCallbacks* callbacks_;
};

}  // namespace

absl::StatusOr<Completion> RunRequest(Engine* engine, GenerateRequest request,
                                      const RunCallbacks& callbacks) {
  Completion completion;
  absl::StatusOr<RequestId> id =
      engine->Submit(std::move(request), std::make_unique<Collector>(&completion, &callbacks));
  if (!id.ok()) return id.status();
  while (engine->Step()) {
  }
  if (!completion.result.status.ok()) return completion.result.status;
  return completion;
}

}  // namespace thermocline
