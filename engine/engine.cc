#include "engine/engine.h"

#include <algorithm>
#include <chrono>

#include "absl/strings/str_cat.h"

namespace thermocline {
namespace {

constexpr double kLookAtLimitsEvery = 0.25;  // seconds
constexpr std::chrono::seconds kLookAtLimitsWhenIdle(1);

double SteadySeconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Engine>> Engine::Create(EngineOptions options) {
  std::unique_ptr<Engine> engine(new Engine(std::move(options)));
  absl::StatusOr<std::unique_ptr<LoadedModel>> loaded = LoadModel(&engine->options_);
  if (!loaded.ok()) return loaded.status();
  engine->loaded_ = *std::move(loaded);
  engine->scheduler_ =
      std::make_unique<Scheduler>(engine->options_.scheduler, engine->loaded_->kv_pool.get());
  engine->requests_ = std::make_unique<RequestTable>(engine->tokenizer());
  engine->FollowMemoryLimits(engine->Now());
  engine->Publish();
  return engine;
}

Engine::Engine(EngineOptions options) : options_(std::move(options)) {
  if (!options_.now) options_.now = &SteadySeconds;
  if (!options_.read_memory) options_.read_memory = [] { return ReadMemory(); };
  clock_ = std::make_unique<StageClock>(options_.now);
}

std::vector<std::string> Engine::DescribeKernels() const {
  std::vector<DType> experts;
  for (const ExpertLayout& layout : expert_files().layouts()) {
    for (const DType dtype : {layout.gate.dtype, layout.up.dtype, layout.down.dtype}) {
      const auto known = std::find(experts.begin(), experts.end(), dtype);
      if (known == experts.end()) experts.push_back(dtype);
    }
  }
  return Describe(loaded_->dense_backend->kernels, weights().matrix_formats(), experts, kv_dtype());
}

Engine::~Engine() { AbortAll(absl::UnavailableError("the server is stopping")); }

absl::StatusOr<RequestId> Engine::Submit(GenerateRequest request,
                                         std::unique_ptr<ResponseSink> sink) {
  if (absl::Status s = ValidateRequest(request, dims().vocab_size, loaded_->max_context); !s.ok())
    return s;
  const int64_t room = loaded_->max_context - static_cast<int64_t>(request.prompt.size());
  const double now = Now();
  const MutexLock lock(&mutex_);
  if (draining_) return absl::UnavailableError("the server is draining and takes no new requests");
  const int waiting = snapshot_.num_waiting + static_cast<int>(inbox_.size());
  if (waiting >= options_.max_waiting) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the queue holds ", waiting, " requests, its limit; try again later"));
  }
  inbox_.emplace_back(next_id_++, std::move(request), std::move(sink), room, now);
  wake_.NotifyOne();
  loaded_->experts->Raise();
  return next_id_ - 1;
}

void Engine::Cancel(RequestId id) {
  const MutexLock lock(&mutex_);
  cancels_.push_back(id);
  wake_.NotifyOne();
  loaded_->experts->Raise();
}

void Engine::Drain() {
  const MutexLock lock(&mutex_);
  draining_ = true;
  snapshot_.draining = true;
}

void Engine::Stop() {
  const MutexLock lock(&mutex_);
  stop_ = true;
  wake_.NotifyOne();
  loaded_->experts->Raise();
}

EngineSnapshot Engine::Snapshot() const {
  const MutexLock lock(&mutex_);
  EngineSnapshot snapshot = snapshot_;
  snapshot.num_waiting += static_cast<int>(inbox_.size());
  return snapshot;
}

void Engine::Run() {
  while (AwaitWork()) Step();
}

bool Engine::AwaitWork() {
  const auto called = [this] {
    const MutexLock lock(&mutex_);
    return IsCalled();
  };
  while (requests_->empty() && !called()) {
    const double now = Now();
    FollowMemoryLimits(now);
    if (loaded_->experts->busy()) {
      loaded_->experts->Fill(nullptr, [&] { return called() || Now() >= next_look_at_limits_; });
      Publish();
      continue;
    }
    const MutexLock lock(&mutex_);
    if (IsCalled()) break;
    wake_.WaitFor(&mutex_, kLookAtLimitsWhenIdle);
  }
  const MutexLock lock(&mutex_);
  return !stop_;
}

void Engine::FollowMemoryLimits(double now) {
  if (now < next_look_at_limits_) return;
  next_look_at_limits_ = now + kLookAtLimitsEvery;
  const MemoryNeeds& needs = loaded_->needs;
  const MemoryPlan& plan = loaded_->plan;
  if (needs.classes.empty() || needs.layer_slots.has_value()) return;
  const MemoryLimits limits = options_.read_memory().limits;
  int64_t limit = std::min({limits.hard, limits.soft, needs.limit});
  // Less than a hundredth of it comes and goes, with what the kernel counts; the reserve is there
  // for that.
  if (limit >= needs.limit - needs.limit / 100) limit = needs.limit;
  // What the experts' part of the budget would be with this limit, all other parts as they are.
  const int64_t bytes = limit == needs.limit ? plan.expert_bytes
                                             : plan.expert_bytes + plan.spare -
                                                   (needs.limit - MemoryReserve(needs.limit)) +
                                                   (limit - MemoryReserve(limit));
  if (loaded_->experts->Resize(std::min(bytes, plan.expert_bytes))) Publish();
}

bool Engine::Step() {
  DrainInbox();
  const double start = Now();
  FollowMemoryLimits(start);
  loaded_->experts->Tend();
  ExpireDeadlines(start);
  const Batch batch = scheduler_->Schedule();
  if (batch.empty()) {
    Publish();
    return false;
  }
  for (const SequenceId id : batch.seq_ids) {
    ServedRequest* request = requests_->Find(id);
    if (request->scheduled < 0.0) request->scheduled = start;
  }
  std::vector<float> logits;
  clock_->Start();
  const absl::StatusOr<std::vector<absl::Status>> faults = RunBatch(batch, &logits);
  const double now = Now();
  for (size_t s = 0; s < batch.seq_ids.size(); ++s) {
    const absl::Status& fault = faults.ok() ? (*faults)[s] : faults.status();
    if (!fault.ok()) Finish(batch.seq_ids[s], {FinishReason::kError, fault});
  }
  if (faults.ok()) {
    scheduler_->Commit(batch);
    steps_.prompt_tokens += std::count(batch.roles.begin(), batch.roles.end(), TokenRole::kPrompt);
    DeliverRows(batch, logits, now);
  }
  clock_->Done(Stage::kSample);
  ++steps_.num_steps;
  steps_.step_seconds += Now() - start;
  steps_.stage_seconds = clock_->seconds();
  Publish();
  return true;
}

void Engine::DrainInbox() {
  std::vector<ServedRequest> arrived;
  std::vector<RequestId> cancels;
  {
    const MutexLock lock(&mutex_);
    arrived.swap(inbox_);
    cancels.swap(cancels_);
    snapshot_.num_waiting += static_cast<int>(arrived.size());
  }
  for (ServedRequest& request : arrived) Admit(std::move(request));
  for (RequestId id : cancels) {
    Finish(id, {FinishReason::kCancelled, absl::CancelledError("the request was cancelled")});
  }
}

void Engine::Admit(ServedRequest request) {
  Sequence sequence;
  sequence.id = request.id;
  sequence.tokens = request.request.prompt;
  sequence.num_prompt = sequence.num_tokens();
  sequence.all_prompt_logits = request.request.prompt_logits;
  requests_->Add(std::move(request));
  scheduler_->Add(std::move(sequence));
}

void Engine::ExpireDeadlines(double now) {
  for (const RequestId id : requests_->Expired(now)) {
    Finish(id, {FinishReason::kDeadline,
                absl::DeadlineExceededError("the request's deadline has passed")});
  }
}

absl::StatusOr<std::vector<absl::Status>> Engine::RunBatch(const Batch& batch,
                                                           std::vector<float>* logits) {
  LoadedModel& m = *loaded_;
  m.scratch->Release({});
  ForwardPass pass({.backend = m.dense_backend,
                    .kv_cache = m.kv_cache.get(),
                    .experts = &m.experts->runner(),
                    .scratch = m.scratch.get(),
                    .observer = &options_.hidden_observer,
                    .clock = clock_.get()},
                   batch);
  absl::StatusOr<TensorView> result = m.model->Forward(&pass);
  if (!result.ok()) return result.status();
  logits->resize(static_cast<size_t>(result->num_elems()));
  m.dense_backend->device->Copy(Queue::kCompute, result->data, logits->data(), result->bytes());
  return pass.TakeFaults(*result);
}

void Engine::DeliverRows(const Batch& batch, absl::Span<const float> logits, double now) {
  const size_t vocab = static_cast<size_t>(dims().vocab_size), num_rows = batch.logits_rows.size();
  const auto logits_of = [&](size_t row) { return logits.subspan(row * vocab, vocab); };
  const auto token_of = [&](size_t row) { return static_cast<size_t>(batch.logits_rows[row]); };
  const auto id_of = [&](size_t row) {
    return batch.seq_ids[static_cast<size_t>(batch.seq_idx[token_of(row)])];
  };
  // Of a sequence's last token, the one that follows, chosen by all threads.
  std::vector<std::optional<OutputToken>> chosen(num_rows);
  loaded_->pool->ParallelFor(static_cast<int64_t>(num_rows), [&](int64_t i, int) {
    const size_t row = static_cast<size_t>(i);
    const ServedRequest* request = requests_->Find(id_of(row));
    if (request == nullptr || request->max_output == 0) return;
    const std::vector<int32_t>& tokens = scheduler_->Find(request->id)->tokens;
    const bool last = batch.positions[token_of(row)] + 1 == static_cast<int64_t>(tokens.size());
    if (last) chosen[row] = requests_->Choose(*request, logits_of(row), tokens);
  });
  for (size_t row = 0; row < num_rows; ++row) {
    const RequestId id = id_of(row);
    const int64_t position = batch.positions[token_of(row)];
    ServedRequest* request = requests_->Find(id);
    if (request == nullptr) continue;  // it has ended
    if (options_.logits_observer) options_.logits_observer(id, position, logits_of(row));
    if (request->request.prompt_logits && position < request->num_prompt()) {
      request->sink->OnPromptLogits(position, logits_of(row));
    }
    if (position + 1 < scheduler_->Find(id)->num_tokens()) continue;
    if (!chosen[row].has_value()) {
      Finish(id, {FinishReason::kLength, absl::OkStatus()});
      continue;
    }
    const int32_t token = chosen[row]->token;
    ++steps_.generated_tokens;
    const std::optional<RequestTable::End> end =
        requests_->Deliver(request, *std::move(chosen[row]), now);
    end.has_value() ? Finish(id, *end) : scheduler_->Append(id, token);
  }
}

void Engine::Finish(RequestId id, const RequestTable::End& end) {
  if (requests_->Find(id) == nullptr) return;
  scheduler_->Finish(id);  // the KV blocks are free from here on
  requests_->Finish(id, end, Now());
}

void Engine::AbortAll(const absl::Status& status) {
  if (requests_ == nullptr) return;  // it was never loaded
  DrainInbox();
  while (!requests_->empty()) Finish(requests_->first(), {FinishReason::kCancelled, status});
  Publish();
}

void Engine::Publish() {
  EngineSnapshot snapshot = TakeSnapshot(steps_, *scheduler_, *loaded_);
  const MutexLock lock(&mutex_);
  snapshot.draining = draining_;
  snapshot_ = std::move(snapshot);
}

}  // namespace thermocline
