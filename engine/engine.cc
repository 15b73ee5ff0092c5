#include "engine/engine.h"

#include <algorithm>
#include <chrono>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/sampler.h"
#include "kernels/host_memory_info.h"

namespace thermocline {
namespace {

// KV memory when nobody says: room for many conversations, at most a quarter of what is free.
constexpr int64_t kDefaultKvTokens = 65536;

double SteadySeconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Models whose matrices are all F32 are computed in f32 unless told otherwise.
bool IsF32Model(const Checkpoint& checkpoint) {
  for (const auto& [name, tensor] : checkpoint.tensors()) {
    if (tensor.shape.size() > 1 && tensor.dtype != DType::kF32) return false;
  }
  return true;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Engine>> Engine::Create(EngineOptions options) {
  std::unique_ptr<Engine> engine(new Engine(std::move(options)));
  if (absl::Status s = engine->Initialize(); !s.ok()) return s;
  return engine;
}

Engine::Engine(EngineOptions options) : options_(std::move(options)) {
  if (!options_.now) options_.now = &SteadySeconds;
  if (!options_.available_memory) {
    options_.available_memory = [] { return AvailableMemoryBytes(); };
  }
  clock_ = std::make_unique<StageClock>(options_.now);
}

Engine::~Engine() { AbortAll(absl::UnavailableError("the server is stopping")); }

absl::Status Engine::Initialize() {
  if (options_.block_size < 1 || options_.block_size > 1024) {
    return absl::InvalidArgumentError(
        absl::StrCat("block size = ", options_.block_size, ", but 1 to 1024 is allowed"));
  }
  if (options_.kv_tokens < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("kv_tokens = ", options_.kv_tokens, ", but 0 or more are allowed"));
  }
  for (const auto& [name, value] : std::initializer_list<std::pair<const char*, int64_t>>{
           {"max_batch_tokens", options_.scheduler.max_batch_tokens},
           {"max_num_seqs", options_.scheduler.max_num_seqs},
           {"max_waiting", options_.max_waiting}}) {
    if (value >= 1) continue;
    return absl::InvalidArgumentError(
        absl::StrCat(name, " = ", value, ", but at least 1 is needed"));
  }
  absl::StatusOr<std::unique_ptr<Checkpoint>> checkpoint = Checkpoint::Open(options_.model_path);
  if (!checkpoint.ok()) return checkpoint.status();
  checkpoint_ = *std::move(checkpoint);
  absl::StatusOr<std::unique_ptr<Model>> model =
      MakeModel(*checkpoint_, {.mla_form = options_.mla_form, .max_context = options_.max_context});
  if (!model.ok()) return model.status();
  model_ = *std::move(model);
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = TokenizerOf(*checkpoint_);
  if (tokenizer.ok()) {
    tokenizer_ = *std::move(tokenizer);
  } else {
    tokenizer_error_ = std::string(tokenizer.status().message());  // token ids still work
  }
  if (absl::Status s = CreateBackends(); !s.ok()) return s;
  if (absl::Status s = LoadWeights(); !s.ok()) return s;
  return CreateCaches();
}

absl::Status Engine::CreateBackends() {
  const bool f32 = IsF32Model(*checkpoint_);
  options_.backend_options.activations =
      options_.activations.value_or(f32 ? Activations::kF32 : Activations::kInt8);
  kv_dtype_ = options_.kv_dtype.value_or(f32 ? DType::kF32 : DType::kF16);
  absl::StatusOr<std::unique_ptr<WorkerPool>> pool =
      WorkerPool::Create(options_.num_threads, options_.pin_threads);
  if (!pool.ok()) return pool.status();
  pool_ = *std::move(pool);
  absl::StatusOr<std::unique_ptr<Backend>> host =
      MakeBackend(options_.backend, pool_.get(), options_.backend_options);
  if (!host.ok()) return host.status();
  host_backend_ = *std::move(host);
  other_dense_backend_ = std::move(options_.dense_backend);
  device_backend_ = std::move(options_.device_backend);
  dense_backend_ =
      other_dense_backend_ != nullptr ? other_dense_backend_.get() : host_backend_.get();
  return absl::OkStatus();
}

absl::Status Engine::LoadWeights() {
  absl::StatusOr<std::unique_ptr<WeightStore>> weights =
      WeightStore::Create(checkpoint_.get(), model_.get(), dense_backend_->device.get());
  if (!weights.ok()) return weights.status();
  weights_ = *std::move(weights);
  absl::StatusOr<std::unique_ptr<ExpertFiles>> files =
      ExpertFiles::Create(checkpoint_.get(), weights_->table(), model_->dims().num_hidden_layers);
  if (!files.ok()) return files.status();
  expert_files_ = *std::move(files);
  const int num_experts = expert_files_->num_experts();
  int host_slots = options_.host_experts.value_or(num_experts);
  // With all of them on the device the host has a slot that nobody uses.
  if (device_backend_ != nullptr && options_.device_experts == num_experts) {
    host_slots = std::max(1, host_slots);
  }
  if (num_experts > 0 && (host_slots < 1 || host_slots > num_experts)) {
    return absl::InvalidArgumentError(
        absl::StrCat("host experts = ", host_slots,
                     " per layer, but 1 to num_experts = ", num_experts, " are allowed"));
  }
  if (absl::Status s = CheckWeightMemory(host_slots); !s.ok()) return s;
  if (absl::Status s = CheckActivationMemory(); !s.ok()) return s;
  absl::StatusOr<std::unique_ptr<ExpertStore>> experts =
      ExpertStore::Create({.checkpoint = checkpoint_.get(),
                           .dense = dense_backend_,
                           .host = host_backend_.get(),
                           .device = device_backend_.get(),
                           .pool = pool_.get(),
                           .host_slots = host_slots,
                           .device_experts = options_.device_experts,
                           .policy = options_.expert_policy,
                           .poison = options_.poison_evicted},
                          expert_files_.get());
  if (!experts.ok()) return experts.status();
  experts_ = *std::move(experts);
  const int64_t total = weights_->dense_bytes() + experts_->fill_bytes();
  int64_t done = 0;
  const auto progress = [&](int64_t bytes) {
    done += bytes;
    if (options_.progress) options_.progress(done, total);
  };
  const LoadProgress dense_progress = [&](int64_t dense_done, int64_t) {
    progress(dense_done - done);
  };
  if (absl::Status s = weights_->LoadDense(pool_.get(), dense_progress); !s.ok()) return s;
  return experts_->Fill(progress);
}

absl::Status Engine::CheckWeightMemory(int host_slots) const {
  const int64_t dense = weights_->dense_bytes(), available = options_.available_memory();
  int64_t slot = 0;  // one expert in every layer
  for (const ExpertLayout& layout : expert_files_->layouts()) slot += layout.bytes;
  if (dense + slot * host_slots <= available) return absl::OkStatus();
  std::string message = absl::StrCat("the weights need ", dense + slot * host_slots,
                                     " bytes of memory, but ", available, " are available");
  if (slot > 0 && dense + slot <= available) {
    absl::StrAppend(&message, "; ", (available - dense) / slot, " of ",
                    expert_files_->num_experts(), " experts a layer would fit: --host-experts ",
                    (available - dense) / slot);
  }
  return absl::ResourceExhaustedError(message);
}

absl::Status Engine::CheckActivationMemory() const {
  // A generous bound: eight arrays as wide as the widest matrix and the experts' outputs, for every
  // token of a step.
  const ModelDims& dims = model_->dims();
  int64_t widest = dims.hidden_size * std::max<int64_t>(1, dims.num_experts_per_tok);
  for (const auto& [name, tensor] : checkpoint_->tensors()) {
    // The head runs for the rows whose logits are wanted, the embedding is looked up.
    if (tensor.shape.size() == 2 && tensor.shape[0] != dims.vocab_size)
      widest = std::max(widest, tensor.shape[0]);
  }
  const double bytes =
      8.0 * sizeof(float) * static_cast<double>(widest) * options_.scheduler.max_batch_tokens;
  const int64_t available = options_.available_memory();
  if (bytes > static_cast<double>(available)) {
    return absl::ResourceExhaustedError(
        absl::StrFormat("a step of %d tokens may need %.0f bytes for activations, but %d are "
                        "available; allow fewer tokens a step",
                        options_.scheduler.max_batch_tokens, bytes, available));
  }
  return absl::OkStatus();
}

absl::Status Engine::CreateCaches() {
  const int64_t model_context = model_->dims().max_position_embeddings;
  if (options_.max_context < 0 || options_.max_context > model_context) {
    return absl::InvalidArgumentError(absl::StrCat(
        "context = ", options_.max_context, " tokens, but the model allows 1 to ", model_context));
  }
  max_context_ = options_.max_context > 0 ? options_.max_context : model_context;
  if (absl::Status s = KvCache::CheckType(model_->dims(), kv_dtype_); !s.ok()) return s;
  // A model without paged memory (none so far) would take nothing per token.
  const int64_t token_bytes =
      std::max<int64_t>(1, KvCache::BytesPerToken(model_->dims(), kv_dtype_));
  const int64_t free = options_.available_memory();
  const int64_t states =
      options_.scheduler.max_num_seqs * KvCache::BytesPerSequence(model_->dims());
  if (states > free) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "the fixed-size state of ", options_.scheduler.max_num_seqs, " sequences needs ", states,
        " bytes, but ", free, " are free; allow fewer sequences"));
  }
  int64_t kv_tokens = options_.kv_tokens;
  if (kv_tokens == 0) {
    const int64_t wanted = std::max<int64_t>(
        options_.block_size,
        std::min(kDefaultKvTokens, max_context_ * options_.scheduler.max_num_seqs));
    kv_tokens = std::clamp<int64_t>((free - states) / 4 / token_bytes, options_.block_size, wanted);
  }
  const int64_t num_blocks = (kv_tokens + options_.block_size - 1) / options_.block_size;
  if (num_blocks * options_.block_size > INT32_MAX) {
    return absl::InvalidArgumentError(
        absl::StrCat("KV cache of ", kv_tokens, " tokens is too large"));
  }
  const int64_t kv_bytes = num_blocks * options_.block_size * token_bytes;
  if (states + kv_bytes > free) {
    return absl::ResourceExhaustedError(absl::StrCat("a KV cache of ", kv_tokens, " tokens needs ",
                                                     states + kv_bytes, " bytes, but ", free,
                                                     " are free"));
  }
  kv_pool_ = std::make_unique<KvBlockPool>(static_cast<int>(num_blocks), options_.block_size,
                                           options_.shuffle_kv_seed);
  max_context_ = std::min(max_context_, num_blocks * options_.block_size);
  absl::StatusOr<std::unique_ptr<KvCache>> kv_cache =
      KvCache::Create(dense_backend_->device.get(), model_->dims(),
                      {.dtype = kv_dtype_,
                       .num_blocks = static_cast<int>(num_blocks),
                       .block_size = options_.block_size,
                       .num_state_slots = options_.scheduler.max_num_seqs});
  if (!kv_cache.ok()) return kv_cache.status();
  kv_cache_ = *std::move(kv_cache);
  scratch_ = std::make_unique<Scratch>(dense_backend_->device.get());
  scheduler_ = std::make_unique<Scheduler>(options_.scheduler, kv_pool_.get());
  PublishLoad();
  return absl::OkStatus();
}

int64_t Engine::kv_bytes() const {
  return int64_t{kv_pool_->num_blocks()} * kv_pool_->block_size() *
             KvCache::BytesPerToken(model_->dims(), kv_dtype_) +
         options_.scheduler.max_num_seqs * KvCache::BytesPerSequence(model_->dims());
}

absl::StatusOr<RequestId> Engine::Submit(GenerateRequest request,
                                         std::unique_ptr<ResponseSink> sink) {
  if (absl::Status s = ValidateRequest(request, dims().vocab_size, max_context_); !s.ok()) return s;
  Active active;
  active.text = TextStream(request.stop);
  active.submitted = Now();
  active.request = std::move(request);
  active.sink = std::move(sink);
  const int64_t room = max_context_ - static_cast<int64_t>(active.request.prompt.size());
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
  return next_id_ - 1;
}

void Engine::Cancel(RequestId id) {
  const MutexLock lock(&mutex_);
  cancels_.push_back(id);
  wake_.NotifyOne();
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
}

EngineLoad Engine::Load() const {
  const MutexLock lock(&mutex_);
  EngineLoad load = load_;
  load.num_waiting += static_cast<int>(inbox_.size());
  return load;
}

void Engine::Run() {
  while (true) {
    {
      const MutexLock lock(&mutex_);
      if (active_.empty()) {
        while (!stop_ && inbox_.empty() && cancels_.empty()) wake_.Wait(&mutex_);
      }
      if (stop_) return;
    }
    Step();
  }
}

bool Engine::Step() {
  DrainInbox();
  const double start = Now();
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
  scratch_->Release({});
  ForwardPass pass({.backend = dense_backend_,
                    .kv_cache = kv_cache_.get(),
                    .experts = &experts_->runner(),
                    .scratch = scratch_.get(),
                    .observer = &options_.hidden_observer,
                    .clock = clock_.get()},
                   batch);
  absl::StatusOr<TensorView> result = model_->Forward(&pass);
  if (!result.ok()) return result.status();
  logits->resize(static_cast<size_t>(result->num_elems()));
  dense_backend_->device->Copy(Queue::kCompute, result->data, logits->data(), result->bytes());
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
      (!request.ignore_eos && tokenizer_ != nullptr && contains(tokenizer_->end_tokens()));
  Delta delta;
  delta.tokens.push_back(request.logprobs >= 0 ? WithLogprobs(logits, token, request.logprobs)
                                               : OutputToken{token, 0.0f, {}});
  if (tokenizer_ != nullptr && !ended)
    delta.text = active->text.Append(tokenizer_->TokenBytes(token, request.show_special));
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
  load_.kv_blocks_used = kv_pool_->num_used();
  load_.kv_blocks_total = kv_pool_->num_blocks();
  load_.num_steps = num_steps_;
  load_.prompt_tokens = prompt_tokens_;
  load_.generated_tokens = generated_tokens_;
  load_.num_preemptions = scheduler_->num_preemptions();
  load_.step_seconds = step_seconds_;
  load_.stage_seconds = clock_->seconds();
  load_.expert_bytes_computed = experts_->runner().bytes_computed();
  load_.draining = draining_;
  const ExpertTier& host = experts_->host();
  const size_t num_layers = static_cast<size_t>(host.num_layers());
  load_.experts.resize(num_layers);
  load_.resident.resize(num_layers);
  load_.heat = experts_->runner().heat();
  for (int l = 0; l < host.num_layers(); ++l) {
    load_.experts[static_cast<size_t>(l)] = experts_->stats(l);
    std::vector<bool>& resident = load_.resident[static_cast<size_t>(l)];
    resident.assign(static_cast<size_t>(host.num_experts()), false);
    if (!host.residency().has_experts(l)) continue;
    for (int e = 0; e < host.num_experts(); ++e) {
      resident[static_cast<size_t>(e)] = host.IsResident({l, e});
    }
  }
}

}  // namespace thermocline
