#include "tests/support/fake_device.h"

#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <random>
#include <vector>

#include "kernels/check.h"
#include "kernels/checked_ops.h"

namespace thermocline {
namespace {

// Bit 62 makes an x86-64 address non-canonical: touching it faults.
constexpr uintptr_t kTag = uintptr_t{1} << 62;

void* Tag(void* data) { return reinterpret_cast<void*>(reinterpret_cast<uintptr_t>(data) | kTag); }

void* Real(const void* data) {
  const uintptr_t address = reinterpret_cast<uintptr_t>(data);
  TC_CHECK((address & kTag) != 0) << "host memory handed to the device";
  return reinterpret_cast<void*>(address & ~kTag);
}

// Of host memory, or of a device's.
void* Reachable(const void* data) {
  const uintptr_t address = reinterpret_cast<uintptr_t>(data);
  return reinterpret_cast<void*>(address & ~kTag);
}

TensorView Real(const TensorView& view) {
  TensorView real = view;
  if (!view.empty()) real.data = Real(view.data);
  return real;
}

StateArgs Real(const StateArgs& args) {
  return {Real(args.state), Real(args.slots), Real(args.cu_seqlens), Real(args.positions)};
}

void FreeTagged(void* free_bytes, void* data, int64_t bytes) {
  *static_cast<int64_t*>(free_bytes) += bytes;
  std::free(Reachable(data));
}

// What was enqueued and has not run.
class FakeQueues {
 public:
  explicit FakeQueues(const FakeDeviceOptions& options)
      : random_(options.seed), lost_after_(options.lost_after) {}

  void Enqueue(Queue queue, std::function<void()> run) {
    Of(queue).push_back({.run = std::move(run), .wait = 0, .event = 0});
  }
  void WaitOn(Queue queue, EventId event) {
    if (event != 0) Of(queue).push_back({.run = {}, .wait = event, .event = 0});
  }
  EventId Record(Queue queue) {
    passed_.push_back(false);
    Of(queue).push_back({.run = {}, .wait = 0, .event = passed_.size()});
    return passed_.size();
  }
  // What a device would do meanwhile, then whether the event has passed.
  bool Passed(EventId event) {
    for (uint64_t steps = random_() % 4; steps > 0; --steps) RunOne();
    return HasPassed(event);
  }
  absl::Status Wait(EventId event) {
    while (!HasPassed(event)) TC_CHECK(RunOne()) << "nobody will ever pass event " << event;
    return health();
  }
  absl::Status health() const {
    return lost() ? absl::UnavailableError("the device is lost") : absl::OkStatus();
  }

 private:
  struct Item {
    std::function<void()> run;
    EventId wait = 0;   // runs after it
    EventId event = 0;  // passes when the item runs
  };

  std::deque<Item>& Of(Queue queue) { return queues_[static_cast<size_t>(queue)]; }
  bool HasPassed(EventId event) const { return event == 0 || passed_[event - 1]; }
  bool lost() const { return lost_after_ >= 0 && num_run_ >= lost_after_; }

  // The head of some queue that may run; false: there is none.
  bool RunOne() {
    const size_t first = random_() % kNumQueues;
    for (size_t i = 0; i < kNumQueues; ++i) {
      std::deque<Item>& queue = queues_[(first + i) % kNumQueues];
      if (queue.empty() || !HasPassed(queue.front().wait)) continue;
      const Item item = std::move(queue.front());
      queue.pop_front();
      if (item.run && !lost()) item.run();
      ++num_run_;
      if (item.event != 0) passed_[item.event - 1] = true;
      return true;
    }
    return false;
  }

  std::mt19937_64 random_;
  const int64_t lost_after_;
  int64_t num_run_ = 0;
  std::deque<Item> queues_[kNumQueues];
  std::vector<bool> passed_;  // [event - 1]
};

class FakeDevice : public Device {
 public:
  FakeDevice(const FakeDeviceOptions& options, FakeQueues* queues)
      : total_bytes_(options.memory_bytes), free_bytes_(options.memory_bytes), queues_(queues) {}

  MemoryKind memory_kind() const override { return MemoryKind::kDevice; }
  absl::StatusOr<Buffer> Allocate(MemoryKind kind, int64_t bytes) override {
    const bool on_device = kind == MemoryKind::kDevice;
    if (on_device && bytes > free_bytes_) {
      return absl::ResourceExhaustedError("the device's memory is full");
    }
    const size_t rounded = (static_cast<size_t>(bytes) + 63) / 64 * 64 + 64;
    void* data = std::aligned_alloc(64, rounded);
    std::memset(data, 0xFF, rounded);  // NaN as f32, f16 and bf16
    if (on_device) free_bytes_ -= bytes;
    static int64_t unlimited;  // host memory is not counted
    return Buffer(on_device ? Tag(data) : data, bytes, kind, &FreeTagged,
                  on_device ? &free_bytes_ : &unlimited);
  }
  MemoryInfo memory() const override { return {total_bytes_, free_bytes_}; }

  void Copy(Queue queue, const void* from, void* to, int64_t bytes) override {
    if (bytes == 0) return;
    queues_->Enqueue(
        queue, [=] { std::memcpy(Reachable(to), Reachable(from), static_cast<size_t>(bytes)); });
  }
  EventId Record(Queue queue) override { return queues_->Record(queue); }
  void WaitOn(Queue queue, EventId event) override { queues_->WaitOn(queue, event); }
  bool Passed(EventId event) override { return queues_->Passed(event); }
  absl::Status Wait(EventId event) override { return queues_->Wait(event); }
  absl::Status health() const override { return queues_->health(); }

 private:
  const int64_t total_bytes_;
  int64_t free_bytes_;
  FakeQueues* queues_;
};

class FakeOps : public DenseOps {
 public:
  FakeOps(std::unique_ptr<DenseOps> inner, std::shared_ptr<FakeQueues> queues)
      : inner_(std::move(inner)), queues_(std::move(queues)) {}

  void EmbedTokens(const TensorView& table, const TensorView& token_ids, float scale,
                   const TensorView& out) override;
  void RmsNorm(const TensorView& x, const TensorView& weight, float eps,
               const TensorView& out) override;
  void LayerNorm(const TensorView& x, const TensorView& weight, const TensorView& bias, float eps,
                 const TensorView& out) override;
  void MatMul(const TensorView& x, const TensorView& roles,
              absl::Span<const Projection> projections) override;
  void HeadMatMul(const TensorView& x, const TensorView& roles, const TensorView& weight,
                  const TensorView& out) override;
  void Rope(const TensorView& x, const TensorView& positions, const RopeArgs& args) override;
  void StoreKv(const TensorView& k, const TensorView& v, const TensorView& slots,
               const TensorView& k_cache, const TensorView& v_cache) override;
  void Attention(const AttentionArgs& args) override;
  void RouteTopK(const TensorView& logits, const RouteArgs& args, const TensorView& ids,
                 const TensorView& weights) override;
  void IdentityExperts(const TensorView& x, const TensorView& ids, int num_experts,
                       const TensorView& out) override;
  void CombineExperts(const TensorView& expert_out, const TensorView& weights, float scale,
                      const TensorView& acc) override;
  void SiluMul(const TensorView& gate, const TensorView& up, const TensorView& out) override;
  void Multiply(const TensorView& a, const TensorView& b, const TensorView& out) override;
  void SigmoidMul(const TensorView& gate, const TensorView& x) override;
  void CopyHeads(const TensorView& x, const TensorView& out) override;
  void CausalConv(const TensorView& x, const TensorView& weight, bool silu,
                  const StateArgs& state) override;
  void GatedDeltaRule(const DeltaRuleArgs& args) override;
  void AddScaled(const TensorView& x, float scale, const TensorView& acc) override;
  void Fill(const TensorView& x, float value) override;
  void Scale(const TensorView& x, float scale) override;
  void Clamp(const TensorView& x, float limit) override;
  void MarkFaults(const TensorView& x, float limit, int32_t code,
                  const TensorView& faults) override;
  void GatherRows(const TensorView& x, const TensorView& rows, const TensorView& out) override;
  void ScatterRows(const TensorView& x, const TensorView& rows, const TensorView& out) override;

 private:
  std::unique_ptr<DenseOps> inner_;
  std::shared_ptr<FakeQueues> queues_;  // of the whole backend
};

void FakeOps::EmbedTokens(const TensorView& table, const TensorView& token_ids, float scale,
                          const TensorView& out) {
  queues_->Enqueue(Queue::kCompute, [=, this] {
    inner_->EmbedTokens(Real(table), Real(token_ids), scale, Real(out));
  });
}

void FakeOps::RmsNorm(const TensorView& x, const TensorView& weight, float eps,
                      const TensorView& out) {
  queues_->Enqueue(Queue::kCompute,
                   [=, this] { inner_->RmsNorm(Real(x), Real(weight), eps, Real(out)); });
}

void FakeOps::LayerNorm(const TensorView& x, const TensorView& weight, const TensorView& bias,
                        float eps, const TensorView& out) {
  queues_->Enqueue(Queue::kCompute, [=, this] {
    inner_->LayerNorm(Real(x), Real(weight), Real(bias), eps, Real(out));
  });
}

void FakeOps::MatMul(const TensorView& x, const TensorView& roles,
                     absl::Span<const Projection> projections) {
  std::vector<Projection> kept;
  for (const Projection& p : projections)
    kept.push_back({Real(p.weight), Real(p.bias), Real(p.out)});
  queues_->Enqueue(Queue::kCompute, [=, this] { inner_->MatMul(Real(x), Real(roles), kept); });
}

void FakeOps::HeadMatMul(const TensorView& x, const TensorView& roles, const TensorView& weight,
                         const TensorView& out) {
  queues_->Enqueue(Queue::kCompute, [=, this] {
    inner_->HeadMatMul(Real(x), Real(roles), Real(weight), Real(out));
  });
}

void FakeOps::Rope(const TensorView& x, const TensorView& positions, const RopeArgs& args) {
  RopeArgs real = args;
  real.inv_freq = Real(args.inv_freq);
  queues_->Enqueue(Queue::kCompute, [=, this] { inner_->Rope(Real(x), Real(positions), real); });
}

void FakeOps::StoreKv(const TensorView& k, const TensorView& v, const TensorView& slots,
                      const TensorView& k_cache, const TensorView& v_cache) {
  queues_->Enqueue(Queue::kCompute, [=, this] {
    inner_->StoreKv(Real(k), Real(v), Real(slots), Real(k_cache), Real(v_cache));
  });
}

void FakeOps::Attention(const AttentionArgs& args) {
  AttentionArgs real = args;
  for (TensorView* view : {&real.q, &real.roles, &real.k_cache, &real.v_cache, &real.block_tables,
                           &real.seq_idx, &real.positions, &real.sinks, &real.out}) {
    *view = Real(*view);
  }
  queues_->Enqueue(Queue::kCompute, [=, this] { inner_->Attention(real); });
}

void FakeOps::RouteTopK(const TensorView& logits, const RouteArgs& args, const TensorView& ids,
                        const TensorView& weights) {
  RouteArgs real = args;
  real.bias = Real(args.bias);
  queues_->Enqueue(Queue::kCompute,
                   [=, this] { inner_->RouteTopK(Real(logits), real, Real(ids), Real(weights)); });
}

void FakeOps::IdentityExperts(const TensorView& x, const TensorView& ids, int num_experts,
                              const TensorView& out) {
  queues_->Enqueue(Queue::kCompute, [=, this] {
    inner_->IdentityExperts(Real(x), Real(ids), num_experts, Real(out));
  });
}

void FakeOps::CombineExperts(const TensorView& expert_out, const TensorView& weights, float scale,
                             const TensorView& acc) {
  queues_->Enqueue(Queue::kCompute, [=, this] {
    inner_->CombineExperts(Real(expert_out), Real(weights), scale, Real(acc));
  });
}

void FakeOps::SiluMul(const TensorView& gate, const TensorView& up, const TensorView& out) {
  queues_->Enqueue(Queue::kCompute,
                   [=, this] { inner_->SiluMul(Real(gate), Real(up), Real(out)); });
}

void FakeOps::Multiply(const TensorView& a, const TensorView& b, const TensorView& out) {
  queues_->Enqueue(Queue::kCompute, [=, this] { inner_->Multiply(Real(a), Real(b), Real(out)); });
}

void FakeOps::SigmoidMul(const TensorView& gate, const TensorView& x) {
  queues_->Enqueue(Queue::kCompute, [=, this] { inner_->SigmoidMul(Real(gate), Real(x)); });
}

void FakeOps::CopyHeads(const TensorView& x, const TensorView& out) {
  queues_->Enqueue(Queue::kCompute, [=, this] { inner_->CopyHeads(Real(x), Real(out)); });
}

void FakeOps::CausalConv(const TensorView& x, const TensorView& weight, bool silu,
                         const StateArgs& state) {
  queues_->Enqueue(Queue::kCompute,
                   [=, this] { inner_->CausalConv(Real(x), Real(weight), silu, Real(state)); });
}

void FakeOps::GatedDeltaRule(const DeltaRuleArgs& args) {
  DeltaRuleArgs real = args;
  for (TensorView* view :
       {&real.q, &real.k, &real.v, &real.beta, &real.a, &real.a_scale, &real.dt_bias, &real.out}) {
    *view = Real(*view);
  }
  real.state = Real(args.state);
  queues_->Enqueue(Queue::kCompute, [=, this] { inner_->GatedDeltaRule(real); });
}

void FakeOps::AddScaled(const TensorView& x, float scale, const TensorView& acc) {
  queues_->Enqueue(Queue::kCompute, [=, this] { inner_->AddScaled(Real(x), scale, Real(acc)); });
}

void FakeOps::Fill(const TensorView& x, float value) {
  queues_->Enqueue(Queue::kCompute, [=, this] { inner_->Fill(Real(x), value); });
}

void FakeOps::Scale(const TensorView& x, float scale) {
  queues_->Enqueue(Queue::kCompute, [=, this] { inner_->Scale(Real(x), scale); });
}

void FakeOps::Clamp(const TensorView& x, float limit) {
  queues_->Enqueue(Queue::kCompute, [=, this] { inner_->Clamp(Real(x), limit); });
}

void FakeOps::MarkFaults(const TensorView& x, float limit, int32_t code, const TensorView& faults) {
  queues_->Enqueue(Queue::kCompute,
                   [=, this] { inner_->MarkFaults(Real(x), limit, code, Real(faults)); });
}

void FakeOps::ScatterRows(const TensorView& x, const TensorView& rows, const TensorView& out) {
  queues_->Enqueue(Queue::kCompute,
                   [=, this] { inner_->ScatterRows(Real(x), Real(rows), Real(out)); });
}

void FakeOps::GatherRows(const TensorView& x, const TensorView& rows, const TensorView& out) {
  queues_->Enqueue(Queue::kCompute,
                   [=, this] { inner_->GatherRows(Real(x), Real(rows), Real(out)); });
}

class FakeExperts : public ExpertOps {
 public:
  FakeExperts(std::unique_ptr<Backend> inner, FakeQueues* queues, FakeDeviceStats* stats)
      : inner_(std::move(inner)), queues_(queues), stats_(stats) {}

  // One item an expert: it needs nothing but its own copy.
  void Start(const ExpertBatch& batch, absl::Span<ExpertWork> experts) override {
    ExpertBatch real = batch;
    real.x = Real(batch.x);
    real.out = Real(batch.out);
    for (ExpertWork& work : experts) {
      ExpertWeights weights = work.weights;
      for (TensorView* view : {&weights.gate, &weights.up, &weights.down, &weights.gate_bias,
                               &weights.up_bias, &weights.down_bias}) {
        *view = Real(*view);
      }
      queues_->WaitOn(Queue::kCompute, work.copied);
      const std::vector<int32_t> rows(work.rows.begin(), work.rows.end()),
          out_rows(work.out_rows.begin(), work.out_rows.end());
      const std::vector<TokenRole> roles(batch.roles.begin(), batch.roles.end());
      queues_->Enqueue(Queue::kCompute, [=, this] {
        static const Arrival kHere;
        ExpertWork one;
        one.weights = weights;
        one.arrival = &kHere;
        one.rows = rows;
        one.out_rows = out_rows;
        ExpertBatch then = real;
        then.roles = roles;
        inner_->experts->Start(then, {&one, 1});
        TC_CHECK(inner_->experts->Finish(nullptr).ok());
      });
      work.computed = queues_->Record(Queue::kCompute);
      if (stats_ != nullptr) ++stats_->num_experts;
    }
  }
  absl::Status Finish(ExpertFeed*) override { return absl::OkStatus(); }

 private:
  std::unique_ptr<Backend> inner_;
  FakeQueues* queues_;
  FakeDeviceStats* stats_;
};

}  // namespace

std::unique_ptr<Backend> MakeFakeDevice(std::unique_ptr<Backend> inner,
                                        const FakeDeviceOptions& options) {
  TC_CHECK(inner->device->memory_kind() == MemoryKind::kHost);
  auto queues = std::make_shared<FakeQueues>(options);
  auto backend = std::make_unique<Backend>();
  backend->name = "fake";
  backend->description = "fake device, deferred, over " + inner->description;
  backend->device = std::make_unique<FakeDevice>(options, queues.get());
  std::unique_ptr<DenseOps> dense = std::move(inner->dense);
  backend->experts = std::make_unique<FakeExperts>(std::move(inner), queues.get(), options.stats);
  backend->dense = MakeCheckedOps(std::make_unique<FakeOps>(std::move(dense), std::move(queues)));
  return backend;
}

}  // namespace thermocline
