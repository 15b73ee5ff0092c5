// How requests come and go: the queue, deadlines, cancellation, draining, errors.
#include <future>
#include <thread>

#include "tests/engine/engine_fixture.h"
#include "tests/support/failing_backend.h"

namespace thermocline {
namespace {

using alphabet::Tokens;

class EngineLifecycleTest : public EngineTest {
 protected:
  // One sequence at a time: a second request waits.
  void StartSingle(int max_waiting = 256) {
    EngineOptions options;
    options.scheduler.max_num_seqs = 1;
    options.max_waiting = max_waiting;
    Start(std::move(options));
  }
};

TEST_F(EngineLifecycleTest, ThereIsNothingToDoWithoutRequests) {
  EXPECT_FALSE(engine_->Step());
  EXPECT_EQ(engine_->Snapshot().num_steps, 0);
}

TEST_F(EngineLifecycleTest, ADeadlineThatPassesInTheQueueEndsTheRequestThere) {
  StartSingle();
  Recording &running = NewRecording(), &waiting = NewRecording();
  Submit(Request("0", 100), &running);
  engine_->Step();
  GenerateRequest request = Request("a", 5);
  request.deadline = 110.0;
  Submit(request, &waiting);
  now_ = 109.99;
  engine_->Step();
  EXPECT_FALSE(waiting.done());
  EXPECT_EQ(engine_->Snapshot().num_waiting, 1);
  now_ = 110.0;
  engine_->Step();
  ASSERT_TRUE(waiting.done());
  EXPECT_EQ(waiting.reason(), FinishReason::kDeadline);
  EXPECT_EQ(waiting.result->status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(waiting.result->prompt_tokens, 1);
  EXPECT_EQ(waiting.result->completion_tokens, 0);
  EXPECT_LT(waiting.result->queue_seconds, 0.0);  // none was scheduled
  EXPECT_EQ(waiting.result->first_token_seconds, 0.0);
  EXPECT_EQ(waiting.result->total_seconds, 10.0);
  EXPECT_EQ(engine_->Snapshot().num_waiting, 0);
  RunToTheEnd();
  EXPECT_EQ(running.tokens.size(), 100u);  // the neighbour is not touched
  ExpectNothingIsLeft();
}

TEST_F(EngineLifecycleTest, ADeadlineThatPassesWhileRunningKeepsTheTextSoFar) {
  GenerateRequest request = Request("a", 20);
  request.deadline = 105.0;
  request.stop = {"dX"};
  Recording& r = NewRecording();
  Submit(request, &r);
  for (int i = 0; i < 3; ++i) engine_->Step();
  now_ = 105.0;
  engine_->Step();
  ASSERT_TRUE(r.done());
  EXPECT_EQ(r.reason(), FinishReason::kDeadline);
  EXPECT_EQ(r.result->status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(r.tokens, Tokens("bcd"));
  EXPECT_EQ(r.text(), "bcd");  // the d that was held back too
  EXPECT_EQ(r.result->completion_tokens, 3);
  ExpectNothingIsLeft();
}

TEST_F(EngineLifecycleTest, CancellationEndsRunningAndWaitingRequests) {
  StartSingle();
  Recording &running = NewRecording(), &waiting = NewRecording(), &next = NewRecording();
  const RequestId first = Submit(Request("a", 20), &running);
  engine_->Step();
  engine_->Step();
  const RequestId second = Submit(Request("a", 20), &waiting);
  Submit(Request("w", 1), &next);
  engine_->Cancel(first);
  engine_->Cancel(second);
  engine_->Cancel(second);  // twice, and somebody unknown: ignored
  engine_->Cancel(12345);
  EXPECT_FALSE(running.done());
  engine_->Step();
  ASSERT_TRUE(running.done());
  ASSERT_TRUE(waiting.done());
  for (const Recording* r : {&running, &waiting}) {
    EXPECT_EQ(r->reason(), FinishReason::kCancelled);
    EXPECT_EQ(r->result->status.code(), absl::StatusCode::kCancelled);
  }
  EXPECT_EQ(running.tokens, Tokens("bc"));
  EXPECT_TRUE(waiting.tokens.empty());
  EXPECT_EQ(next.tokens, Tokens("x"));  // in the same step
  engine_->Cancel(first);
  EXPECT_FALSE(engine_->Step());
  ExpectNothingIsLeft();
}

TEST_F(EngineLifecycleTest, ASinkThatRefusesCancelsItsRequest) {
  Recording &refusing = NewRecording(), &other = NewRecording();
  int deltas = 0;
  refusing.on_delta = [&] { return ++deltas < 3; };
  Submit(Request("a", 20), &refusing);
  Submit(Request("a", 5), &other);
  RunToTheEnd();
  EXPECT_EQ(refusing.reason(), FinishReason::kCancelled);
  EXPECT_EQ(refusing.result->status.code(), absl::StatusCode::kCancelled);
  EXPECT_NE(refusing.result->status.message().find("does not read"), std::string::npos);
  EXPECT_EQ(refusing.result->completion_tokens, 3);
  EXPECT_EQ(other.tokens, Tokens("bcdef"));
  ExpectNothingIsLeft();
}

TEST_F(EngineLifecycleTest, AbortingEndsWhatRunsWaitsAndHasJustCome) {
  StartSingle();
  Recording &running = NewRecording(), &waiting = NewRecording(), &arriving = NewRecording();
  Submit(Request("0", 100), &running);
  Submit(Request("0", 100), &waiting);
  engine_->Step();
  Submit(Request("0", 100), &arriving);
  engine_->AbortAll(absl::UnavailableError("going away"));
  for (const Recording* r : {&running, &waiting, &arriving}) {
    ASSERT_TRUE(r->done());
    EXPECT_EQ(r->reason(), FinishReason::kCancelled);
    EXPECT_EQ(r->result->status, absl::UnavailableError("going away"));
  }
  ExpectNothingIsLeft();
}

TEST_F(EngineLifecycleTest, DestructionAbortsWhatIsLeft) {
  Recording& r = NewRecording();
  Submit(Request("0", 100), &r);
  engine_.reset();
  ASSERT_TRUE(r.done());
  EXPECT_EQ(r.result->status.code(), absl::StatusCode::kUnavailable);
}

TEST_F(EngineLifecycleTest, TheQueueCountsWhatTheEngineHasNotSeenYet) {
  StartSingle(/*max_waiting=*/2);
  Recording &one = NewRecording(), &two = NewRecording(), &three = NewRecording(),
            &four = NewRecording();
  Submit(Request("0", 3), &one);
  Submit(Request("0", 3), &two);
  EXPECT_EQ(engine_->Snapshot().num_waiting, 2);
  const absl::Status full = StatusOfSubmit(Request("0", 3));
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(full.message().find("holds 2 requests"), std::string::npos) << full;
  engine_->Step();  // one runs, two waits
  EXPECT_EQ(engine_->Snapshot().num_running, 1);
  EXPECT_EQ(engine_->Snapshot().num_waiting, 1);
  Submit(Request("0", 3), &three);
  EXPECT_EQ(engine_->Snapshot().num_waiting, 2);
  EXPECT_EQ(StatusOfSubmit(Request("0", 3)).code(), absl::StatusCode::kResourceExhausted);
  RunToTheEnd();
  Submit(Request("0", 3), &four);
  RunToTheEnd();
  for (const Recording* r : {&one, &two, &three, &four}) EXPECT_EQ(r->tokens, Tokens("123"));
  EXPECT_FALSE(unused_.done());  // a refused request's sink hears nothing
  ExpectNothingIsLeft();
}

TEST_F(EngineLifecycleTest, IdsAreDifferent) {
  Recording &one = NewRecording(), &two = NewRecording();
  const RequestId first = Submit(Request("0", 1), &one), second = Submit(Request("5", 2), &two);
  EXPECT_NE(first, second);
  engine_->Cancel(second);
  RunToTheEnd();
  EXPECT_EQ(one.reason(), FinishReason::kLength);
  EXPECT_EQ(two.reason(), FinishReason::kCancelled);
}

TEST_F(EngineLifecycleTest, DrainingRefusesTheNewAndFinishesTheOld) {
  Recording& r = NewRecording();
  Submit(Request("0", 3), &r);
  EXPECT_FALSE(engine_->Snapshot().draining);
  engine_->Drain();
  EXPECT_TRUE(engine_->Snapshot().draining);
  EXPECT_EQ(StatusOfSubmit(Request("0", 3)).code(), absl::StatusCode::kUnavailable);
  RunToTheEnd();
  EXPECT_EQ(r.tokens, Tokens("123"));
  EXPECT_EQ(r.reason(), FinishReason::kLength);
  EXPECT_TRUE(engine_->Snapshot().draining);
}

TEST_F(EngineLifecycleTest, InvalidRequestsAreRefused) {
  GenerateRequest request = Request("0", 3);
  request.sampling.top_p = 2.0f;
  EXPECT_EQ(StatusOfSubmit(request).code(), absl::StatusCode::kInvalidArgument);
  request = Request("0", 3);
  request.prompt = {alphabet::kVocabSize};
  EXPECT_EQ(StatusOfSubmit(request).code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(EngineLifecycleTest, AStepThatFailsEndsItsRequestsWithTheError) {
  bool fail = false;
  EngineOptions options;
  options.dense_backend = MakeFailingBackend(&fail);
  Start(std::move(options));
  Recording &one = NewRecording(), &two = NewRecording(), &later = NewRecording();
  Submit(Request("a", 20), &one);
  engine_->Step();
  Submit(Request("a", 20), &two);
  fail = true;
  EXPECT_TRUE(engine_->Step());
  for (const Recording* r : {&one, &two}) {
    ASSERT_TRUE(r->done());
    EXPECT_EQ(r->reason(), FinishReason::kError);
    EXPECT_EQ(r->result->status, absl::InternalError("the device is lost"));
  }
  EXPECT_EQ(one.tokens, Tokens("b"));
  ExpectNothingIsLeft();
  fail = false;
  Submit(Request("a", 2), &later);
  RunToTheEnd();
  EXPECT_EQ(later.tokens, Tokens("bc"));
  ExpectNothingIsLeft();
}

// Run sleeps while there is nothing to do; submissions, cancellations and Stop wake it. A lost
// wake-up is a test that hangs.
TEST_F(EngineLifecycleTest, RunServesWhatComesUntilItIsStopped) {
  std::thread thread([this] { engine_->Run(); });
  for (int round = 0; round < 3; ++round) {
    std::promise<void> ended;
    Recording& r = NewRecording();
    r.on_done = [&] { ended.set_value(); };
    Submit(Request("0", 4), &r);
    ended.get_future().wait();
    EXPECT_EQ(r.tokens, Tokens("1234"));
    engine_->Cancel(999);  // of nobody
  }
  engine_->Stop();
  thread.join();
}

}  // namespace
}  // namespace thermocline
