#include "engine/load_model.h"

#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"
#include "engine/step_memory.h"

namespace thermocline {
namespace {

constexpr int64_t kUsualKvTokens = 65536;        // room for many conversations
constexpr int64_t kConversationKvTokens = 4096;  // for one
constexpr int kLeastPromptLogits = 64;           // rows a step

// Models whose matrices are all F32 are computed in f32 unless told otherwise.
bool IsF32Model(const Checkpoint& checkpoint) {
  for (const auto& [name, tensor] : checkpoint.tensors()) {
    if (tensor.shape.size() > 1 && tensor.dtype != DType::kF32) return false;
  }
  return true;
}

absl::Status CheckOptions(const EngineOptions& options) {
  struct Range {
    const char* name;
    int64_t value, least, most;
  };
  constexpr int64_t kMostAtOnce = 1 << 20;
  constexpr int64_t kMostKvTokens = 2147480000;  // whole blocks of them fit an int32
  constexpr int64_t kAny = std::numeric_limits<int64_t>::max();
  for (const Range& r : std::initializer_list<Range>{
           {"block size", options.block_size, 1, 1024},
           {"kv_tokens", options.kv_tokens, 0, kMostKvTokens},
           {"max_batch_tokens", options.scheduler.max_batch_tokens, 0, kMostAtOnce},
           {"max_num_seqs", options.scheduler.max_num_seqs, 1, kMostAtOnce},
           {"max_waiting", options.max_waiting, 1, kAny},
           {"memory", options.memory.value_or(1), 1, kAny}}) {
    if (r.value >= r.least && r.value <= r.most) continue;
    return absl::InvalidArgumentError(
        r.most == kAny
            ? absl::StrCat(r.name, " = ", r.value, ", but ", r.least, " or more are allowed")
            : absl::StrCat(r.name, " = ", r.value, ", but ", r.least, " to ", r.most,
                           " are allowed"));
  }
  return absl::OkStatus();
}

class Loader {
 public:
  explicit Loader(EngineOptions* options) : options_(*options) {}

  absl::StatusOr<std::unique_ptr<LoadedModel>> Load() {
    for (absl::Status (Loader::*part)() :
         {&Loader::Open, &Loader::CreateBackends, &Loader::Resolve, &Loader::Plan,
          &Loader::MakeRoom, &Loader::ReadWeights}) {
      if (absl::Status s = (this->*part)(); !s.ok()) return s;
    }
    return std::move(loaded_);
  }

 private:
  absl::Status Open();
  absl::Status CreateBackends();
  // Which tensor is where; reads nothing.
  absl::Status Resolve();
  absl::Status Plan();
  absl::Status CheckContext();
  // Slots of each layer that the options ask for.
  absl::StatusOr<std::optional<int>> LayerSlots() const;
  absl::Status PlaceExperts();
  void CountExperts(MemoryNeeds* needs) const;
  // What a step of so many tokens takes, and the bytes of it everywhere.
  StepMemory Measure(int tokens, int prompt_logits);
  int64_t StepBytes(const StepMemory& step) const;
  absl::Status MakeRoom();
  absl::Status ReadWeights();

  EngineOptions& options_;
  std::unique_ptr<LoadedModel> loaded_ = std::make_unique<LoadedModel>();
  LoadedModel& m_ = *loaded_;
  int64_t step_scratch_ = 0;  // bytes, of the largest step
};

absl::Status Loader::Open() {
  if (absl::Status s = CheckOptions(options_); !s.ok()) return s;
  absl::StatusOr<std::unique_ptr<Checkpoint>> checkpoint = Checkpoint::Open(options_.model_path);
  if (!checkpoint.ok()) return checkpoint.status();
  m_.checkpoint = *std::move(checkpoint);
  absl::StatusOr<std::unique_ptr<Model>> model = MakeModel(
      *m_.checkpoint, {.mla_form = options_.mla_form, .max_context = options_.max_context});
  if (!model.ok()) return model.status();
  m_.model = *std::move(model);
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = TokenizerOf(*m_.checkpoint);
  if (tokenizer.ok()) {
    m_.tokenizer = *std::move(tokenizer);
  } else {
    m_.tokenizer_error = std::string(tokenizer.status().message());  // token ids still work
  }
  return absl::OkStatus();
}

absl::Status Loader::CreateBackends() {
  const bool f32 = IsF32Model(*m_.checkpoint);
  options_.backend_options.activations =
      options_.activations.value_or(f32 ? Activations::kF32 : Activations::kInt8);
  m_.kv_dtype = options_.kv_dtype.value_or(f32 ? DType::kF32 : DType::kF16);
  absl::StatusOr<std::unique_ptr<WorkerPool>> pool =
      WorkerPool::Create(options_.num_threads, options_.pin_threads);
  if (!pool.ok()) return pool.status();
  m_.pool = *std::move(pool);
  absl::StatusOr<std::unique_ptr<Backend>> host =
      MakeBackend(options_.backend, m_.pool.get(), options_.backend_options);
  if (!host.ok()) return host.status();
  m_.host_backend = *std::move(host);
  m_.other_dense_backend = std::move(options_.dense_backend);
  m_.device_backend = std::move(options_.device_backend);
  m_.dense_backend =
      m_.other_dense_backend != nullptr ? m_.other_dense_backend.get() : m_.host_backend.get();
  return absl::OkStatus();
}

absl::Status Loader::Resolve() {
  absl::StatusOr<std::unique_ptr<WeightStore>> weights = WeightStore::Create(
      m_.checkpoint.get(), TensorsOf(m_.model.get()), m_.dense_backend->device.get());
  if (!weights.ok()) return weights.status();
  m_.weights = *std::move(weights);
  absl::StatusOr<std::unique_ptr<ExpertFiles>> files = ExpertFiles::Create(
      m_.checkpoint.get(), m_.weights->table(), m_.model->dims().num_hidden_layers);
  if (!files.ok()) return files.status();
  m_.expert_files = *std::move(files);
  return absl::OkStatus();
}

absl::Status Loader::CheckContext() {
  const int64_t model_context = m_.model->dims().max_position_embeddings;
  if (options_.max_context < 0 || options_.max_context > model_context) {
    return absl::InvalidArgumentError(absl::StrCat(
        "context = ", options_.max_context, " tokens, but the model allows 1 to ", model_context));
  }
  m_.max_context = options_.max_context > 0 ? options_.max_context : model_context;
  return KvCache::CheckType(m_.model->dims(), m_.kv_dtype);
}

absl::StatusOr<std::optional<int>> Loader::LayerSlots() const {
  const int num_experts = m_.expert_files->num_experts();
  if (num_experts == 0) return std::nullopt;
  if (!options_.host_experts.has_value()) return std::nullopt;
  if (!options_.placement.empty()) {
    return absl::InvalidArgumentError(
        "a placement says which experts are kept in memory; host experts, their number a layer, "
        "cannot be given with it");
  }
  const int slots = *options_.host_experts;
  if (slots >= 1 && slots <= num_experts) return slots;
  return absl::InvalidArgumentError(absl::StrCat("host experts = ", slots,
                                                 " per layer, but 1 to num_experts = ", num_experts,
                                                 " are allowed"));
}

absl::Status Loader::PlaceExperts() {
  const int num_layers = m_.model->dims().num_hidden_layers,
            num_experts = m_.expert_files->num_experts();
  if (num_experts == 0 && !options_.placement.empty()) {
    return absl::InvalidArgumentError("placement: the model has no experts");
  }
  absl::StatusOr<Placement> placement =
      Placement::Parse(options_.placement, num_layers, num_experts);
  if (!placement.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("placement, ", placement.status().message()));
  }
  m_.placement = std::make_unique<Placement>(*std::move(placement));
  for (int l = 0; l < num_layers; ++l) {
    for (int32_t e = 0; e < std::min(options_.device_experts, num_experts); ++e) {
      m_.placement->Set({l, e}, Wanted::kDevice);
    }
    if (m_.device_backend != nullptr || m_.placement->Experts(l, Wanted::kDevice).empty()) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("placement: experts of layer ", l,
                     " on the device, but there is none; host and disk are allowed"));
  }
  return absl::OkStatus();
}

void Loader::CountExperts(MemoryNeeds* needs) const {
  needs->classes = SizeClassesOf(m_.expert_files->layouts());
  needs->num_experts = m_.expert_files->num_experts();
  for (const SizeClass& size : needs->classes) {
    int kept = 0, anywhere = 0, on_disk = 0, at_once = 0;
    for (const int layer : size.layers) {
      const auto count = [&](Wanted wanted) {
        return static_cast<int>(m_.placement->Experts(layer, wanted).size());
      };
      kept += count(Wanted::kHost);
      anywhere += count(Wanted::kAnywhere);
      on_disk += count(Wanted::kDisk);
      at_once = std::max(at_once, count(Wanted::kDisk));
    }
    // Beside the kept ones, others need a slot to be computed in.
    needs->least_slots.push_back(std::max(1, kept + (anywhere + on_disk > 0 ? 1 : 0)));
    needs->most_slots.push_back(std::max(1, kept + anywhere + at_once));
    needs->expert_bytes += (kept + anywhere + on_disk) * size.slot_bytes;
    needs->some_on_disk |= on_disk > 0;
  }
}

StepMemory Loader::Measure(int tokens, int prompt_logits) {
  int64_t width = 0;
  for (const ExpertLayout& layout : m_.expert_files->layouts()) {
    width = std::max(width, layout.gate.rows);
  }
  const int seqs = std::min(options_.scheduler.max_num_seqs, tokens);
  const StepShape shape = {.tokens = tokens,
                           .seqs = seqs,
                           .logits_rows = std::min(tokens, seqs + prompt_logits),
                           .blocks_per_seq = static_cast<int>(
                               (m_.max_context + options_.block_size - 1) / options_.block_size),
                           .expert_width = static_cast<int>(width)};
  absl::StatusOr<StepMemory> step = MeasureStep(*m_.checkpoint, shape, m_.kv_dtype, m_.model.get());
  TC_CHECK(step.ok()) << step.status();  // nothing is read or computed
  return *std::move(step);
}

int64_t Loader::StepBytes(const StepMemory& step) const {
  int64_t bytes = step.scratch + step.arrays;
  for (const Backend* backend : {m_.host_backend.get(), m_.other_dense_backend.get()}) {
    if (backend == nullptr || !backend->workspace_bytes) continue;
    bytes += backend->workspace_bytes(step.sizes);
  }
  return bytes;
}

absl::Status Loader::Plan() {
  if (absl::Status s = CheckContext(); !s.ok()) return s;
  if (absl::Status s = PlaceExperts(); !s.ok()) return s;
  const ModelDims& dims = m_.model->dims();
  const absl::StatusOr<std::optional<int>> layer_slots = LayerSlots();
  if (!layer_slots.ok()) return layer_slots.status();
  const MemoryReading memory = options_.read_memory();
  MemoryNeeds& needs = m_.needs;
  needs.held = memory.held;
  needs.limit = memory.held + memory.available;
  if (options_.memory.has_value()) needs.limit = std::min(needs.limit, *options_.memory);
  needs.dense = m_.weights->dense_bytes();
  needs.states = options_.scheduler.max_num_seqs * KvCache::BytesPerSequence(dims);
  // A model without paged memory (none so far) would take nothing per token.
  needs.kv_token = KvCache::BytesPerToken(dims, m_.kv_dtype);
  needs.block_tokens = options_.block_size;
  if (options_.kv_tokens > 0) needs.kv_tokens = options_.kv_tokens;
  needs.most_kv_tokens =
      std::max<int64_t>(options_.block_size,
                        std::min(kUsualKvTokens, m_.max_context * options_.scheduler.max_num_seqs));
  needs.least_kv_tokens = std::min(kConversationKvTokens, needs.most_kv_tokens);
  needs.step = [this](int tokens) { return StepBytes(Measure(tokens, kLeastPromptLogits)); };
  if (options_.scheduler.max_batch_tokens > 0) {
    needs.step_tokens = options_.scheduler.max_batch_tokens;
  }
  if (m_.expert_files->num_experts() > 0) {
    CountExperts(&needs);
    needs.experts_per_token = static_cast<int>(dims.num_experts_per_tok);
    needs.layer_slots = *layer_slots;
    needs.staging = ExpertStore::kReadDepth * m_.expert_files->max_piece_bytes();
  }
  absl::StatusOr<MemoryPlan> plan = PlanMemory(needs);
  needs.step = nullptr;
  if (!plan.ok()) return plan.status();
  m_.plan = *std::move(plan);
  SchedulerOptions& scheduler = options_.scheduler;
  scheduler.max_batch_tokens = m_.plan.step_tokens;
  // More rows of prompt logits a step where memory is left.
  const int64_t row_bytes = 2 * BytesOf(DType::kF32, dims.vocab_size);
  scheduler.max_prompt_logits = static_cast<int>(
      std::min<int64_t>(m_.plan.step_tokens, kLeastPromptLogits + m_.plan.spare / 2 / row_bytes));
  step_scratch_ = Measure(m_.plan.step_tokens, scheduler.max_prompt_logits).scratch;
  return absl::OkStatus();
}

absl::Status Loader::MakeRoom() {
  const int64_t num_blocks = m_.plan.kv_tokens / options_.block_size;
  if (!m_.plan.all_resident) m_.checkpoint->DropCached();
  absl::StatusOr<std::unique_ptr<ExpertStore>> experts = ExpertStore::Create(
      {.checkpoint = m_.checkpoint.get(),
       .dense = m_.dense_backend,
       .host = m_.host_backend.get(),
       .device = m_.device_backend.get(),
       .pool = m_.pool.get(),
       .host_slots = m_.plan.slots,
       .placement = m_.placement.get(),
       .policy = options_.expert_policy,
       .page_cache = m_.plan.all_resident && m_.plan.spare > m_.checkpoint->total_bytes(),
       .poison = options_.poison_evicted,
       .make_reader = options_.make_reader,
       .read_deadline = options_.read_deadline},
      m_.expert_files.get());
  if (!experts.ok()) return experts.status();
  m_.experts = *std::move(experts);
  m_.kv_pool = std::make_unique<KvBlockPool>(static_cast<int>(num_blocks), options_.block_size,
                                             options_.shuffle_kv_seed);
  m_.max_context = std::min(m_.max_context, m_.plan.kv_tokens);
  absl::StatusOr<std::unique_ptr<KvCache>> kv_cache =
      KvCache::Create(m_.dense_backend->device.get(), m_.model->dims(),
                      {.dtype = m_.kv_dtype,
                       .num_blocks = static_cast<int>(num_blocks),
                       .block_size = options_.block_size,
                       .num_state_slots = options_.scheduler.max_num_seqs});
  if (!kv_cache.ok()) return kv_cache.status();
  m_.kv_cache = *std::move(kv_cache);
  m_.scratch = std::make_unique<Scratch>(m_.dense_backend->device.get(), step_scratch_);
  return absl::OkStatus();
}

absl::Status Loader::ReadWeights() {
  const int64_t total =
      m_.weights->dense_bytes() + (options_.fill_behind ? 0 : m_.experts->fill_bytes());
  int64_t done = 0;
  const auto progress = [&](int64_t bytes) {
    done += bytes;
    if (options_.progress) options_.progress(done, total);
  };
  const LoadProgress dense_progress = [&](int64_t dense_done, int64_t) {
    progress(dense_done - done);
  };
  if (absl::Status s = m_.weights->LoadDense(m_.pool.get(), dense_progress); !s.ok()) return s;
  if (!m_.plan.all_resident) m_.checkpoint->DropCached();
  if (absl::Status s = m_.experts->StartFill(progress); !s.ok()) return s;
  if (options_.fill_behind) return absl::OkStatus();
  m_.experts->Fill(progress, nullptr);
  return m_.experts->first_failure();
}

}  // namespace

absl::StatusOr<std::unique_ptr<LoadedModel>> LoadModel(EngineOptions* options) {
  return Loader(options).Load();
}

}  // namespace thermocline
