#include "engine/engine.h"

#include <algorithm>
#include <chrono>

#include "absl/strings/str_cat.h"
#include "engine/sampler.h"

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
  engine->FollowMemoryLimits(engine->Now());
  engine->PublishLoad();
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
  Active active;
  active.text = TextStream(request.stop);
  active.submitted = Now();
  active.request = std::move(request);
  active.sink = std::move(sink);
  const int64_t room = loaded_->max_context - static_cast<int64_t>(active.request.prompt.size());
  active.max_output = std::min(active.request.max_tokens.value_or(room), room);
  const MutexLock lock(&mutex_);
  if (draining_) return absl::UnavailableError("the server is draining and takes no new requests");
  const int waiting = load_.num_waiting + static_cast<int>(inbox_.size());
  if (waiting >= options_.max_waiting) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the queue holds ", waiting, " requests, its limit; try again later"));
  }
  active.id = next_id_++;
  inbox_.push_back(std::move(active));
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
  load_.draining = true;
}

void Engine::Stop() {
  const MutexLock lock(&mutex_);
  stop_ = true;
  wake_.NotifyOne();
  loaded_->experts->Raise();
}

EngineLoad Engine::Load() const {
  const MutexLock lock(&mutex_);
  EngineLoad load = load_;
  load.num_waiting += static_cast<int>(inbox_.size());
  return load;
}

void Engine::Run() {
  while (AwaitWork()) Step();
}

bool Engine::AwaitWork() {
  const auto called = [this] {
    const MutexLock lock(&mutex_);
    return IsCalled();
  };
  while (active_.empty() && !called()) {
    const double now = Now();
    FollowMemoryLimits(now);
    if (loaded_->experts->busy()) {
      loaded_->experts->Fill(nullptr, [&] { return called() || Now() >= next_look_at_limits_; });
      PublishLoad();
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
  if (loaded_->experts->Resize(std::min(bytes, plan.expert_bytes))) PublishLoad();
}

bool Engine::Step() {
  DrainInbox();
  const double start = Now();
  FollowMemoryLimits(start);
  loaded_->experts->Tend();
  ExpireDeadlines(start);
  const Batch batch = scheduler_->Schedule();
  if (batch.empty()) {
    PublishLoad();
    return false;
  }
  for (SequenceId id : batch.seq_ids) {
    Active& active = active_.at(id);
    if (active.scheduled < 0.0) active.scheduled = start;
  }
  std::vector<float> logits;
  clock_->Start();
  const absl::StatusOr<std::vector<absl::Status>> faults = RunBatch(batch, &logits);
  const double now = Now();
  for (size_t s = 0; s < batch.seq_ids.size(); ++s) {
    const absl::Status& fault = faults.ok() ? (*faults)[s] : faults.status();
    if (!fault.ok()) Finish(batch.seq_ids[s], FinishReason::kError, fault);
  }
  if (faults.ok()) {
    scheduler_->Commit(batch);
    prompt_tokens_ += std::count(batch.roles.begin(), batch.roles.end(), TokenRole::kPrompt);
    const size_t vocab = static_cast<size_t>(dims().vocab_size);
    for (size_t i = 0; i < batch.logits_rows.size(); ++i) {
      DeliverRow(batch, i, absl::MakeConstSpan(logits).subspan(i * vocab, vocab), now);
    }
  }
  clock_->Done(Stage::kSample);
  ++num_steps_;
  step_seconds_ += Now() - start;
  PublishLoad();
  return true;
}

void Engine::DrainInbox() {
  std::vector<Active> arrived;
  std::vector<RequestId> cancels;
  {
    const MutexLock lock(&mutex_);
    arrived.swap(inbox_);
    cancels.swap(cancels_);
    load_.num_waiting += static_cast<int>(arrived.size());
  }
  for (Active& active : arrived) Admit(std::move(active));
  for (RequestId id : cancels)
    Finish(id, FinishReason::kCancelled, absl::CancelledError("the request was cancelled"));
}

void Engine::Admit(Active active) {
  Sequence sequence;
  sequence.id = active.id;
  sequence.tokens = active.request.prompt;
  sequence.num_prompt = sequence.num_tokens();
  sequence.all_prompt_logits = active.request.prompt_logits;
  active_.emplace(active.id, std::move(active));
  scheduler_->Add(std::move(sequence));
}

void Engine::ExpireDeadlines(double now) {
  std::vector<RequestId> expired;
  for (const auto& [id, active] : active_) {
    if (now >= active.request.deadline) expired.push_back(id);
  }
  for (RequestId id : expired) {
    Finish(id, FinishReason::kDeadline,
           absl::DeadlineExceededError("the request's deadline has passed"));
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

void Engine::DeliverRow(const Batch& batch, size_t row, absl::Span<const float> logits,
                        double now) {
  const size_t token = static_cast<size_t>(batch.logits_rows[row]);
  const RequestId id = batch.seq_ids[static_cast<size_t>(batch.seq_idx[token])];
  const int64_t position = batch.positions[token];
  const auto it = active_.find(id);
  if (it == active_.end()) return;  // ended by an earlier row
  Active& active = it->second;
  if (options_.logits_observer) options_.logits_observer(id, position, logits);
  const int64_t num_prompt = static_cast<int64_t>(active.request.prompt.size());
  if (active.request.prompt_logits && position < num_prompt)
    active.sink->OnPromptLogits(position, logits);
  if (position + 1 < scheduler_->Find(id)->num_tokens()) return;
  if (active.max_output == 0) {
    Finish(id, FinishReason::kLength, absl::OkStatus());
    return;
  }
  DeliverToken(&active, logits, now);
}

void Engine::DeliverToken(Active* active, absl::Span<const float> logits, double now) {
  const RequestId id = active->id;
  const GenerateRequest& request = active->request;
  const size_t index = static_cast<size_t>(active->num_output);
  const int32_t token = index < request.forced.size()
                            ? request.forced[index]
                            : SampleToken(logits, request.sampling, scheduler_->Find(id)->tokens,
                                          static_cast<int64_t>(request.prompt.size()));
  ++active->num_output;
  ++generated_tokens_;
  if (active->first_token < 0.0) active->first_token = now;
  const auto contains = [token](const std::vector<int32_t>& ids) {
    return std::find(ids.begin(), ids.end(), token) != ids.end();
  };
  const bool ended =
      contains(request.stop_token_ids) ||
      (!request.ignore_eos && tokenizer() != nullptr && contains(tokenizer()->end_tokens()));
  Delta delta;
  delta.tokens.push_back(request.logprobs >= 0 ? WithLogprobs(logits, token, request.logprobs)
                                               : OutputToken{token, 0.0f, {}});
  if (tokenizer() != nullptr && !ended)
    delta.text = active->text.Append(tokenizer()->TokenBytes(token, request.show_special));
  const bool full = active->num_output >= active->max_output;
  if (!active->sink->OnDelta(std::move(delta))) {
    Finish(id, FinishReason::kCancelled,
           absl::CancelledError("the client does not read its output"));
  } else if (ended || active->text.stopped()) {
    Finish(id, FinishReason::kStop, absl::OkStatus());
  } else if (full) {
    Finish(id, FinishReason::kLength, absl::OkStatus());
  } else {
    scheduler_->Append(id, token);
  }
}

void Engine::Finish(RequestId id, FinishReason reason, const absl::Status& status) {
  const auto it = active_.find(id);
  if (it == active_.end()) return;
  Active active = std::move(it->second);
  active_.erase(it);
  scheduler_->Finish(id);  // the KV blocks are free from here on
  const double now = Now();
  if (!active.text.stopped()) {
    std::string rest = active.text.Finish();
    if (!rest.empty()) active.sink->OnDelta({.tokens = {}, .text = std::move(rest)});
  }
  active.sink->OnDone(
      {.reason = reason,
       .status = status,
       .stop_matched = active.text.matched(),
       .prompt_tokens = static_cast<int64_t>(active.request.prompt.size()),
       .completion_tokens = active.num_output,
       .queue_seconds = active.scheduled >= 0.0 ? active.scheduled - active.submitted : -1.0,
       .first_token_seconds =
           active.first_token >= 0.0 ? active.first_token - active.submitted : 0.0,
       .total_seconds = now - active.submitted});
}

void Engine::AbortAll(const absl::Status& status) {
  DrainInbox();
  while (!active_.empty()) Finish(active_.begin()->first, FinishReason::kCancelled, status);
  if (scheduler_ != nullptr) PublishLoad();
}

void Engine::PublishLoad() {
  const MutexLock lock(&mutex_);
  load_.num_running = scheduler_->num_running();
  load_.num_waiting = scheduler_->num_waiting();
  load_.kv_blocks_used = loaded_->kv_pool->num_used();
  load_.kv_blocks_total = loaded_->kv_pool->num_blocks();
  load_.num_steps = num_steps_;
  load_.prompt_tokens = prompt_tokens_;
  load_.generated_tokens = generated_tokens_;
  load_.num_preemptions = scheduler_->num_preemptions();
  load_.step_seconds = step_seconds_;
  load_.stage_seconds = clock_->seconds();
  load_.expert_bytes_computed = loaded_->experts->runner().bytes_computed();
  load_.draining = draining_;
  load_.expert_seconds = loaded_->experts->runner().measured_seconds();
  load_.expert_seconds_predicted = loaded_->experts->runner().predicted_seconds();
  load_.expert_bytes_read = loaded_->experts->fetcher().reader().bytes_read();
  load_.filling = loaded_->experts->busy();
  load_.expert_failure = loaded_->experts->first_failure();
  const ExpertTier& host = loaded_->experts->host();
  load_.expert_bytes_allowed = host.allowed_bytes();
  const size_t num_layers = static_cast<size_t>(host.num_layers());
  load_.experts.resize(num_layers);
  load_.resident.resize(num_layers);
  load_.heat = loaded_->experts->runner().heat();
  for (int l = 0; l < host.num_layers(); ++l) {
    load_.experts[static_cast<size_t>(l)] = loaded_->experts->stats(l);
    std::vector<bool>& resident = load_.resident[static_cast<size_t>(l)];
    resident.assign(static_cast<size_t>(host.num_experts()), false);
    if (!host.residency().has_experts(l)) continue;
    for (int e = 0; e < host.num_experts(); ++e) {
      resident[static_cast<size_t>(e)] = host.IsResident({l, e});
    }
  }
}

}  // namespace thermocline
