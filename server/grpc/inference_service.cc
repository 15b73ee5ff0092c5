#include "server/grpc/inference_service.h"

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <deque>
#include <random>

#include "absl/strings/str_cat.h"
#include "engine/sampler.h"
#include "engine/text/template/chat_template.h"
#include "kernels/mutex.h"
#include "server/grpc/convert.h"
#include "server/grpc/template_inputs.h"
#include "thermocline/v1/inference.grpc.pb.h"

namespace thermocline {
namespace {

// Messages a client may leave unread before its request is cancelled.
constexpr size_t kMaxUnreadMessages = 4096;

// What the two kinds of generation do with the text. Reads one output, piece by piece.
class TextReader {
 public:
  void Add(const std::string& text, v1::GenerateResponse* message) {
    message->mutable_text()->append(text);
  }
  void Finish(v1::GenerateResponse*) {}
};

// Nine letters and digits: the only form that Mistral's templates take back.
std::string MakeCallId(uint64_t number) {
  constexpr absl::string_view kDigits =
      "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
  std::string id(9, '0');
  for (char& c : id) {
    c = kDigits[number % kDigits.size()];
    number /= kDigits.size();
  }
  return id;
}

class ChatReader {
 public:
  ChatReader() = default;
  // `seed` makes the ids of calls, for formats that have none of their own.
  ChatReader(std::unique_ptr<OutputParser> parser, uint64_t seed)
      : parser_(std::move(parser)), seed_(seed) {}

  void Add(const std::string& text, v1::ChatResponse* message) {
    Put(parser_->Append(text), message);
  }
  void Finish(v1::ChatResponse* message) { Put(parser_->Finish(), message); }

 private:
  void Put(const ChatDelta& delta, v1::ChatResponse* message) {
    message->mutable_content()->append(delta.content);
    message->mutable_reasoning_content()->append(delta.reasoning);
    for (const ToolCall& call : delta.tool_calls) {
      ToToolCall(call, num_calls_, MakeCallId(seed_ + static_cast<uint64_t>(num_calls_)),
                 message->add_tool_calls());
      ++num_calls_;
    }
  }

  std::unique_ptr<OutputParser> parser_;
  uint64_t seed_ = 0;
  int num_calls_ = 0;
};

template <class Message>
struct ReaderOf;
template <>
struct ReaderOf<v1::GenerateResponse> {
  using Type = TextReader;
};
template <>
struct ReaderOf<v1::ChatResponse> {
  using Type = ChatReader;
};
template <class Message>
using Reader = typename ReaderOf<Message>::Type;

bool HasOutput(const v1::GenerateResponse& message) { return !message.text().empty(); }
bool HasOutput(const v1::ChatResponse& message) {
  return !message.content().empty() || !message.reasoning_content().empty() ||
         message.tool_calls_size() > 0;
}

void SetRole(v1::GenerateResponse*) {}
void SetRole(v1::ChatResponse* message) { message->set_role("assistant"); }

template <class Message>
void AddDelta(const Delta& delta, bool with_logprobs, Reader<Message>* reader, Message* message) {
  reader->Add(delta.text, message);
  for (const OutputToken& token : delta.tokens)
    ToTokenInfo(token, with_logprobs, message->add_tokens());
}

template <class Message>
void SetResult(const Result& result, Message* message) {
  message->set_finish_reason(result.reason == FinishReason::kLength ? v1::FINISH_REASON_LENGTH
                                                                    : v1::FINISH_REASON_STOP);
  message->set_stop_matched(result.stop_matched);
  message->mutable_usage()->set_prompt_tokens(result.prompt_tokens);
  message->mutable_usage()->set_completion_tokens(result.completion_tokens);
}

// Where a call and its engine request meet. Either side may end first: the client's cancellation
// comes on a gRPC thread, output on the engine thread.
struct CallLink {
  Mutex mutex;
  Engine* engine = nullptr;
  RequestId request ABSL_GUARDED_BY(mutex) = 0;   // 0 until submitted
  bool cancelled ABSL_GUARDED_BY(mutex) = false;  // before it was submitted

  void Cancel() {
    const MutexLock lock(&mutex);
    cancelled = true;
    if (request != 0) engine->Cancel(request);
  }
  void Submitted(RequestId id) {
    const MutexLock lock(&mutex);
    request = id;
    if (cancelled) engine->Cancel(id);
  }
};

// Times a request's tokens for the metrics.
class TokenTimer {
 public:
  TokenTimer(Metrics* metrics, Engine* engine)
      : metrics_(metrics), engine_(engine), last_(engine->Now()) {}
  void OnToken() {
    const double now = engine_->Now();
    if (first_) {
      metrics_->OnFirstToken(now - last_);
    } else {
      metrics_->OnInterToken(now - last_);
    }
    first_ = false;
    last_ = now;
  }

 private:
  Metrics* metrics_;
  Engine* engine_;
  double last_;
  bool first_ = true;
};

// A server-streaming call. gRPC owns the reactor until OnDone; the engine owns the sink; what both
// need is in Shared, which lives as long as either (hence the shared_ptr).
template <class Message>
class StreamCall : public grpc::ServerWriteReactor<Message> {
 public:
  struct Shared {
    CallLink link;
    Mutex mutex;
    StreamCall* reactor ABSL_GUARDED_BY(mutex) = nullptr;  // null once gRPC is done with the call
    std::deque<Message> unread ABSL_GUARDED_BY(mutex);
    bool writing ABSL_GUARDED_BY(mutex) = false;
    bool ended ABSL_GUARDED_BY(mutex) = false;
    grpc::Status status ABSL_GUARDED_BY(mutex);
  };

  class Sink : public ResponseSink {
   public:
    Sink(std::shared_ptr<Shared> shared, Message first, Reader<Message> reader, bool with_logprobs,
         Metrics* metrics, Engine* engine)
        : shared_(std::move(shared)),
          next_(std::move(first)),
          reader_(std::move(reader)),
          with_logprobs_(with_logprobs),
          metrics_(metrics),
          timer_(metrics, engine) {}

    bool OnDelta(Delta delta) override {
      for (size_t i = 0; i < delta.tokens.size(); ++i) timer_.OnToken();
      AddDelta(delta, with_logprobs_, &reader_, &next_);
      const MutexLock lock(&shared_->mutex);
      if (shared_->unread.size() >= kMaxUnreadMessages) return false;
      shared_->unread.push_back(std::exchange(next_, Message()));
      Pump(shared_.get());
      return true;
    }

    void OnDone(const Result& result) override {
      metrics_->OnDone(result);
      reader_.Finish(&next_);
      if (result.status.ok()) SetResult(result, &next_);
      const MutexLock lock(&shared_->mutex);
      // What was held back comes out, however the output ended.
      if (result.status.ok() || HasOutput(next_)) shared_->unread.push_back(std::move(next_));
      shared_->ended = true;
      shared_->status = ToGrpc(result.status);
      Pump(shared_.get());
    }

   private:
    std::shared_ptr<Shared> shared_;
    Message next_;
    Reader<Message> reader_;
    bool with_logprobs_;
    Metrics* metrics_;
    TokenTimer timer_;
  };

  explicit StreamCall(std::atomic<int>* open_calls)
      : shared_(std::make_shared<Shared>()), open_calls_(open_calls) {
    {
      const MutexLock lock(&shared_->mutex);
      shared_->reactor = this;
    }
    ++*open_calls_;
  }

  const std::shared_ptr<Shared>& shared() const { return shared_; }

  void OnWriteDone(bool ok) override {
    const MutexLock lock(&shared_->mutex);
    shared_->writing = false;
    if (!shared_->unread.empty()) shared_->unread.pop_front();
    if (!ok) shared_->unread.clear();  // the client is gone; OnCancel follows
    Pump(shared_.get());
  }
  void OnCancel() override { shared_->link.Cancel(); }
  void OnDone() override {
    {
      const MutexLock lock(&shared_->mutex);
      shared_->reactor = nullptr;
    }
    shared_->link.Cancel();  // no-op when the request has ended
    --*open_calls_;
    delete this;
  }

 private:
  // Starts the next write or finishes the call.
  static void Pump(Shared* shared) ABSL_EXCLUSIVE_LOCKS_REQUIRED(shared->mutex) {
    if (shared->reactor == nullptr || shared->writing) return;
    if (!shared->unread.empty()) {
      shared->writing = true;
      shared->reactor->StartWrite(&shared->unread.front());
    } else if (shared->ended) {
      shared->writing = true;  // nothing may be started after Finish
      shared->reactor->Finish(shared->status);
    }
  }

  std::shared_ptr<Shared> shared_;
  std::atomic<int>* open_calls_;
};

// A unary call that collects the whole output.
template <class Message>
class UnaryCall : public grpc::ServerUnaryReactor {
 public:
  struct Shared {
    CallLink link;
    Mutex mutex;
    UnaryCall* reactor ABSL_GUARDED_BY(mutex) = nullptr;
  };

  class Sink : public ResponseSink {
   public:
    Sink(std::shared_ptr<Shared> shared, Message first, Reader<Message> reader, bool with_logprobs,
         Metrics* metrics, Engine* engine, Message* response)
        : shared_(std::move(shared)),
          collected_(std::move(first)),
          reader_(std::move(reader)),
          with_logprobs_(with_logprobs),
          metrics_(metrics),
          timer_(metrics, engine),
          response_(response) {}

    bool OnDelta(Delta delta) override {
      for (size_t i = 0; i < delta.tokens.size(); ++i) timer_.OnToken();
      AddDelta(delta, with_logprobs_, &reader_, &collected_);
      return true;
    }
    void OnDone(const Result& result) override {
      metrics_->OnDone(result);
      const MutexLock lock(&shared_->mutex);
      if (shared_->reactor == nullptr) return;
      if (result.status.ok()) {
        reader_.Finish(&collected_);
        SetResult(result, &collected_);
        response_->Swap(&collected_);
      }
      shared_->reactor->Finish(ToGrpc(result.status));
    }

   private:
    std::shared_ptr<Shared> shared_;
    Message collected_;
    Reader<Message> reader_;
    bool with_logprobs_;
    Metrics* metrics_;
    TokenTimer timer_;
    Message* response_;  // gRPC's, valid while the reactor is there
  };

  explicit UnaryCall(std::atomic<int>* open_calls)
      : shared_(std::make_shared<Shared>()), open_calls_(open_calls) {
    {
      const MutexLock lock(&shared_->mutex);
      shared_->reactor = this;
    }
    ++*open_calls_;
  }
  const std::shared_ptr<Shared>& shared() const { return shared_; }

  void OnCancel() override { shared_->link.Cancel(); }
  void OnDone() override {
    {
      const MutexLock lock(&shared_->mutex);
      shared_->reactor = nullptr;
    }
    --*open_calls_;
    delete this;
  }

 private:
  std::shared_ptr<Shared> shared_;
  std::atomic<int>* open_calls_;
};

// Score: keeps the log-probability of each given token.
class ScoreSink : public ResponseSink {
 public:
  using Shared = UnaryCall<v1::ScoreResponse>::Shared;
  ScoreSink(std::shared_ptr<Shared> shared, std::vector<int32_t> tokens, Metrics* metrics,
            v1::ScoreResponse* response)
      : shared_(std::move(shared)),
        tokens_(std::move(tokens)),
        logprobs_(tokens_.size() - 1),
        metrics_(metrics),
        response_(response) {}

  bool OnDelta(Delta) override { return true; }
  void OnPromptLogits(int64_t position, absl::Span<const float> logits) override {
    const size_t next = static_cast<size_t>(position) + 1;
    if (next < tokens_.size()) logprobs_[next - 1] = LogprobOf(logits, tokens_[next]);
  }
  void OnDone(const Result& result) override {
    metrics_->OnDone(result);
    const MutexLock lock(&shared_->mutex);
    if (shared_->reactor == nullptr) return;
    if (result.status.ok()) {
      response_->mutable_tokens()->Assign(tokens_.begin(), tokens_.end());
      response_->mutable_logprobs()->Assign(logprobs_.begin(), logprobs_.end());
    }
    shared_->reactor->Finish(ToGrpc(result.status));
  }

 private:
  std::shared_ptr<Shared> shared_;
  std::vector<int32_t> tokens_;
  std::vector<float> logprobs_;
  Metrics* metrics_;
  v1::ScoreResponse* response_;
};

}  // namespace

class InferenceService::Impl : public v1::Inference::CallbackService {
 public:
  explicit Impl(Metrics* metrics) : metrics_(metrics), seeds_(std::random_device{}()) {}

  int num_open_calls() const { return open_calls_.load(); }

  absl::Status SetEngine(Engine* engine) {
    absl::Status status;
    if (engine->tokenizer() != nullptr && !engine->tokenizer()->chat_template().empty()) {
      absl::StatusOr<std::unique_ptr<ChatTemplate>> chat =
          ChatTemplate::Create(engine->tokenizer()->chat_template());
      if (chat.ok()) {
        chat_template_ = *std::move(chat);
        const Tokenizer* tokenizer = engine->tokenizer();
        output_format_ =
            DetectOutputFormat(tokenizer->chat_template(), [tokenizer](absl::string_view marker) {
              const auto ids = tokenizer->Encode(marker, /*parse_special=*/true);
              return ids.ok() && ids->size() == 1 && tokenizer->IsSpecial(ids->front());
            });
        call_style_ = FindCallStyle(*chat_template_, SpecialTokenTexts(tokenizer));
      } else {
        status = chat.status();
      }
    }
    engine_.store(engine, std::memory_order_release);  // publishes both
    return status;
  }

  grpc::ServerWriteReactor<v1::GenerateResponse>* Generate(
      grpc::CallbackServerContext* context, const v1::GenerateRequest* request) override {
    return Stream<v1::GenerateResponse>(context, *request);
  }
  grpc::ServerWriteReactor<v1::ChatResponse>* Chat(grpc::CallbackServerContext* context,
                                                   const v1::ChatRequest* request) override {
    return Stream<v1::ChatResponse>(context, *request);
  }
  grpc::ServerUnaryReactor* GenerateUnary(grpc::CallbackServerContext* context,
                                          const v1::GenerateRequest* request,
                                          v1::GenerateResponse* response) override {
    return Unary(context, *request, response);
  }
  grpc::ServerUnaryReactor* ChatUnary(grpc::CallbackServerContext* context,
                                      const v1::ChatRequest* request,
                                      v1::ChatResponse* response) override {
    return Unary(context, *request, response);
  }

  grpc::ServerUnaryReactor* Score(grpc::CallbackServerContext* context,
                                  const v1::ScoreRequest* request,
                                  v1::ScoreResponse* response) override {
    auto* call = new UnaryCall<v1::ScoreResponse>(&open_calls_);
    absl::StatusOr<RequestContext> with = Context();
    absl::StatusOr<GenerateRequest> parsed = with.ok()
                                                 ? ToScoreRequest(*request, *with)
                                                 : absl::StatusOr<GenerateRequest>(with.status());
    if (!parsed.ok() || parsed->prompt.empty()) {
      const absl::Status status =
          parsed.ok() ? absl::InvalidArgumentError("the prompt is empty") : parsed.status();
      Refuse(context, status, call);
      return call;
    }
    auto sink = std::make_unique<ScoreSink>(call->shared(), parsed->prompt, metrics_, response);
    Submit(context, *std::move(parsed), std::move(sink), call);
    return call;
  }

  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* context,
                                     const v1::TokenizeRequest* request,
                                     v1::TokenizeResponse* response) override {
    return Answer(context, [&](const RequestContext& with) -> absl::Status {
      const Tokenizer* tokenizer = with.engine->tokenizer();
      if (tokenizer == nullptr) return absl::FailedPreconditionError("the model has no tokenizer");
      const bool parse_special = !request->has_parse_special() || request->parse_special();
      absl::StatusOr<std::vector<int32_t>> ids =
          request->add_special() ? PromptTokens(request->text(), tokenizer, parse_special)
                                 : tokenizer->Encode(request->text(), parse_special);
      if (!ids.ok()) return ids.status();
      response->mutable_ids()->Assign(ids->begin(), ids->end());
      return absl::OkStatus();
    });
  }

  grpc::ServerUnaryReactor* Detokenize(grpc::CallbackServerContext* context,
                                       const v1::DetokenizeRequest* request,
                                       v1::DetokenizeResponse* response) override {
    return Answer(context, [&](const RequestContext& with) -> absl::Status {
      const Tokenizer* tokenizer = with.engine->tokenizer();
      if (tokenizer == nullptr) return absl::FailedPreconditionError("the model has no tokenizer");
      for (int32_t id : request->ids()) {
        if (id < 0 || id >= tokenizer->vocab_size()) {
          return absl::InvalidArgumentError(absl::StrCat("token ", id, ", but the vocabulary has ",
                                                         tokenizer->vocab_size(), " tokens"));
        }
      }
      response->set_text(
          tokenizer->Decode({request->ids().data(), static_cast<size_t>(request->ids_size())},
                            !request->has_with_special() || request->with_special()));
      return absl::OkStatus();
    });
  }

  grpc::ServerUnaryReactor* ApplyChatTemplate(grpc::CallbackServerContext* context,
                                              const v1::ApplyChatTemplateRequest* request,
                                              v1::ApplyChatTemplateResponse* response) override {
    return Answer(context, [&](const RequestContext& with) -> absl::Status {
      absl::StatusOr<std::string> text = RenderChat(*request, with);
      if (!text.ok()) return text.status();
      absl::StatusOr<std::vector<int32_t>> ids = with.engine->tokenizer()->Encode(*text, true);
      if (!ids.ok()) return ids.status();
      response->set_text(*text);
      response->mutable_ids()->Assign(ids->begin(), ids->end());
      return absl::OkStatus();
    });
  }

 private:
  absl::StatusOr<RequestContext> Context() {
    const Engine* engine = engine_.load(std::memory_order_acquire);
    if (engine == nullptr) return absl::UnavailableError("the model is still loading");
    const MutexLock lock(&seeds_mutex_);
    return RequestContext{engine, chat_template_.get(), &output_format_, call_style_, seeds_()};
  }

  template <class Call>
  void Refuse(grpc::CallbackServerContext* context, const absl::Status& status, Call* call) {
    const bool full = status.code() == absl::StatusCode::kResourceExhausted;
    const bool unavailable = status.code() == absl::StatusCode::kUnavailable;
    metrics_->OnReject(full ? "queue_full" : unavailable ? "unavailable" : "invalid");
    // The standard hint for when to try again.
    if (full || unavailable) context->AddTrailingMetadata("grpc-retry-pushback-ms", "1000");
    call->Finish(ToGrpc(status));
  }

  template <class Call>
  void Submit(grpc::CallbackServerContext* context, GenerateRequest request,
              std::unique_ptr<ResponseSink> sink, Call* call) {
    Engine* engine = engine_.load(std::memory_order_acquire);
    request.deadline = ToEngineDeadline(context->deadline(), engine->Now());
    const auto shared = call->shared();  // the call may be gone as soon as the engine has it
    shared->link.engine = engine;
    absl::StatusOr<RequestId> id = engine->Submit(std::move(request), std::move(sink));
    if (!id.ok()) {
      Refuse(context, id.status(), call);
      return;
    }
    shared->link.Submitted(*id);
  }

  // A generation that may be submitted, the message that its first delta is added to, and what
  // reads its text.
  template <class Message>
  struct ParsedCall {
    GenerateRequest request;
    Message first;
    Reader<Message> reader;
  };

  static absl::StatusOr<GenerateRequest> Read(const v1::GenerateRequest& message,
                                              const RequestContext& with, TextReader*) {
    return ToGenerateRequest(message, with);
  }
  static absl::StatusOr<GenerateRequest> Read(const v1::ChatRequest& message,
                                              const RequestContext& with, ChatReader* reader) {
    absl::StatusOr<ChatGeneration> chat = ToChatGeneration(message, with);
    if (!chat.ok()) return chat.status();
    *reader = ChatReader(std::move(chat->parser), with.fallback_seed);
    return std::move(chat->request);
  }

  template <class Message, class Request>
  absl::StatusOr<ParsedCall<Message>> Parse(const Request& message) {
    absl::StatusOr<RequestContext> with = Context();
    if (!with.ok()) return with.status();
    Reader<Message> reader;
    absl::StatusOr<GenerateRequest> request = Read(message, *with, &reader);
    if (!request.ok()) return request.status();
    Message first;
    SetRole(&first);
    first.set_request_id(!message.request_id().empty()
                             ? message.request_id()
                             : absl::StrCat("req-", absl::Hex(with->fallback_seed)));
    ToEffectiveParams(*request, with->engine->max_context(), first.mutable_effective_params());
    return ParsedCall<Message>{*std::move(request), std::move(first), std::move(reader)};
  }

  template <class Message, class Request>
  StreamCall<Message>* Stream(grpc::CallbackServerContext* context, const Request& request) {
    auto* call = new StreamCall<Message>(&open_calls_);
    absl::StatusOr<ParsedCall<Message>> parsed = Parse<Message>(request);
    if (!parsed.ok()) {
      Refuse(context, parsed.status(), call);
      return call;
    }
    auto sink = std::make_unique<typename StreamCall<Message>::Sink>(
        call->shared(), std::move(parsed->first), std::move(parsed->reader),
        parsed->request.logprobs >= 0, metrics_, engine_.load());
    Submit(context, std::move(parsed->request), std::move(sink), call);
    return call;
  }

  template <class Message, class Request>
  UnaryCall<Message>* Unary(grpc::CallbackServerContext* context, const Request& request,
                            Message* response) {
    auto* call = new UnaryCall<Message>(&open_calls_);
    absl::StatusOr<ParsedCall<Message>> parsed = Parse<Message>(request);
    if (!parsed.ok()) {
      Refuse(context, parsed.status(), call);
      return call;
    }
    auto sink = std::make_unique<typename UnaryCall<Message>::Sink>(
        call->shared(), std::move(parsed->first), std::move(parsed->reader),
        parsed->request.logprobs >= 0, metrics_, engine_.load(), response);
    Submit(context, std::move(parsed->request), std::move(sink), call);
    return call;
  }

  template <class Fn>
  grpc::ServerUnaryReactor* Answer(grpc::CallbackServerContext* context, Fn answer) {
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    absl::StatusOr<RequestContext> with = Context();
    reactor->Finish(ToGrpc(with.ok() ? answer(*with) : with.status()));
    return reactor;
  }

  Metrics* metrics_;
  std::atomic<int> open_calls_{0};
  std::unique_ptr<ChatTemplate> chat_template_;
  OutputFormat output_format_;
  CallStyle call_style_;
  std::atomic<Engine*> engine_{nullptr};
  Mutex seeds_mutex_;
  std::mt19937_64 seeds_ ABSL_GUARDED_BY(seeds_mutex_);
};

InferenceService::InferenceService(Metrics* metrics) : impl_(std::make_unique<Impl>(metrics)) {}
InferenceService::~InferenceService() = default;
grpc::Service* InferenceService::service() { return impl_.get(); }
int InferenceService::num_open_calls() const { return impl_->num_open_calls(); }
absl::Status InferenceService::SetEngine(Engine* engine) { return impl_->SetEngine(engine); }

}  // namespace thermocline
