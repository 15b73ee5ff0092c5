#include "tests/support/fake_device.h"

#include <cstdlib>
#include <cstring>
#include <vector>

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

TensorView Real(const TensorView& view) {
  TensorView real = view;
  if (!view.empty()) real.data = Real(view.data);
  return real;
}

StateArgs Real(const StateArgs& args) {
  return {Real(args.state), Real(args.slots), Real(args.cu_seqlens), Real(args.positions)};
}

void FreeTagged(void*, void* data, int64_t) { std::free(Real(data)); }

}  // namespace

FakeDevice::FakeDevice(std::unique_ptr<Backend> inner)
    : inner_(inner != nullptr ? std::move(inner) : std::make_unique<ReferenceBackend>()) {
  TC_CHECK(inner_->memory_kind() == MemoryKind::kHost);
}

absl::StatusOr<Buffer> FakeDevice::Allocate(int64_t bytes) {
  const size_t rounded = (static_cast<size_t>(bytes) + 63) / 64 * 64 + 64;
  void* data = std::aligned_alloc(64, rounded);
  std::memset(data, 0xFF, rounded);  // NaN as f32, f16 and bf16
  return Buffer(Tag(data), bytes, MemoryKind::kDevice, &FreeTagged, nullptr);
}

void FakeDevice::Enqueue(std::function<void()> operation) {
  queue_.push_back(std::move(operation));
  ++num_enqueued_;
}

absl::Status FakeDevice::Wait(EventId event) {
  for (; num_done_ < event; ++num_done_) {
    queue_.front()();
    queue_.pop_front();
  }
  return absl::OkStatus();
}

void FakeDevice::CopyFromHost(const void* host, void* device, int64_t bytes) {
  if (bytes > 0) Enqueue([=] { std::memcpy(Real(device), host, static_cast<size_t>(bytes)); });
}

void FakeDevice::CopyToHost(const void* device, void* host, int64_t bytes) {
  if (bytes > 0) Enqueue([=] { std::memcpy(host, Real(device), static_cast<size_t>(bytes)); });
}

void FakeDevice::EmbedTokens(const TensorView& table, const TensorView& token_ids, float scale,
                             const TensorView& out) {
  Enqueue([=, this] { inner_->EmbedTokens(Real(table), Real(token_ids), scale, Real(out)); });
}

void FakeDevice::RmsNorm(const TensorView& x, const TensorView& weight, float eps,
                         const TensorView& out) {
  Enqueue([=, this] { inner_->RmsNorm(Real(x), Real(weight), eps, Real(out)); });
}

void FakeDevice::LayerNorm(const TensorView& x, const TensorView& weight, const TensorView& bias,
                           float eps, const TensorView& out) {
  Enqueue([=, this] { inner_->LayerNorm(Real(x), Real(weight), Real(bias), eps, Real(out)); });
}

void FakeDevice::MatMul(const TensorView& x, absl::Span<const TokenRole> roles,
                        absl::Span<const Projection> projections) {
  std::vector<TokenRole> kept_roles(roles.begin(), roles.end());
  std::vector<Projection> kept;
  for (const Projection& p : projections)
    kept.push_back({Real(p.weight), Real(p.bias), Real(p.out)});
  Enqueue([=, this] { inner_->MatMul(Real(x), kept_roles, kept); });
}

void FakeDevice::HeadMatMul(const TensorView& x, absl::Span<const TokenRole> roles,
                            const TensorView& weight, const TensorView& out) {
  std::vector<TokenRole> kept(roles.begin(), roles.end());
  Enqueue([=, this] { inner_->HeadMatMul(Real(x), kept, Real(weight), Real(out)); });
}

void FakeDevice::Rope(const TensorView& x, const TensorView& positions, const RopeArgs& args) {
  RopeArgs real = args;
  real.inv_freq = Real(args.inv_freq);
  Enqueue([=, this] { inner_->Rope(Real(x), Real(positions), real); });
}

void FakeDevice::StoreKv(const TensorView& k, const TensorView& v, const TensorView& slots,
                         const TensorView& k_cache, const TensorView& v_cache) {
  Enqueue(
      [=, this] { inner_->StoreKv(Real(k), Real(v), Real(slots), Real(k_cache), Real(v_cache)); });
}

void FakeDevice::Attention(const AttentionArgs& args) {
  AttentionArgs real = args;
  std::vector<TokenRole> roles(args.roles.begin(), args.roles.end());
  for (TensorView* view : {&real.q, &real.k_cache, &real.v_cache, &real.block_tables, &real.seq_idx,
                           &real.positions, &real.sinks, &real.out}) {
    *view = Real(*view);
  }
  Enqueue([=, this]() mutable {
    real.roles = roles;
    inner_->Attention(real);
  });
}

void FakeDevice::RouteTopK(const TensorView& logits, const RouteArgs& args, const TensorView& ids,
                           const TensorView& weights) {
  RouteArgs real = args;
  real.bias = Real(args.bias);
  Enqueue([=, this] { inner_->RouteTopK(Real(logits), real, Real(ids), Real(weights)); });
}

void FakeDevice::ExpertFfn(const TensorView& x, absl::Span<const ExpertWork> experts,
                           Activation activation, const TensorView& out) {
  ++num_expert_calls_;
  struct Kept {
    ExpertWork work;
    std::vector<int32_t> rows, slots;
  };
  std::vector<Kept> kept;
  for (const ExpertWork& e : experts) {
    kept.push_back({{Real(e.gate),
                     Real(e.up),
                     Real(e.down),
                     Real(e.gate_bias),
                     Real(e.up_bias),
                     Real(e.down_bias),
                     {},
                     {}},
                    {e.rows.begin(), e.rows.end()},
                    {e.slots.begin(), e.slots.end()}});
  }
  Enqueue([=, this] {
    std::vector<ExpertWork> work;
    for (const Kept& k : kept) {
      work.push_back(k.work);
      work.back().rows = k.rows;
      work.back().slots = k.slots;
    }
    inner_->ExpertFfn(Real(x), work, activation, Real(out));
  });
}

void FakeDevice::IdentityExperts(const TensorView& x, const TensorView& ids, int num_experts,
                                 const TensorView& out) {
  Enqueue([=, this] { inner_->IdentityExperts(Real(x), Real(ids), num_experts, Real(out)); });
}

void FakeDevice::CombineExperts(const TensorView& expert_out, const TensorView& weights,
                                float scale, const TensorView& acc) {
  Enqueue([=, this] { inner_->CombineExperts(Real(expert_out), Real(weights), scale, Real(acc)); });
}

void FakeDevice::SiluMul(const TensorView& gate, const TensorView& up, const TensorView& out) {
  Enqueue([=, this] { inner_->SiluMul(Real(gate), Real(up), Real(out)); });
}

void FakeDevice::Multiply(const TensorView& a, const TensorView& b, const TensorView& out) {
  Enqueue([=, this] { inner_->Multiply(Real(a), Real(b), Real(out)); });
}

void FakeDevice::SigmoidMul(const TensorView& gate, const TensorView& x) {
  Enqueue([=, this] { inner_->SigmoidMul(Real(gate), Real(x)); });
}

void FakeDevice::CopyHeads(const TensorView& x, const TensorView& out) {
  Enqueue([=, this] { inner_->CopyHeads(Real(x), Real(out)); });
}

void FakeDevice::CausalConv(const TensorView& x, const TensorView& weight, bool silu,
                            const StateArgs& state) {
  Enqueue([=, this] { inner_->CausalConv(Real(x), Real(weight), silu, Real(state)); });
}

void FakeDevice::GatedDeltaRule(const DeltaRuleArgs& args) {
  DeltaRuleArgs real = args;
  for (TensorView* view :
       {&real.q, &real.k, &real.v, &real.beta, &real.a, &real.a_scale, &real.dt_bias, &real.out}) {
    *view = Real(*view);
  }
  real.state = Real(args.state);
  Enqueue([=, this] { inner_->GatedDeltaRule(real); });
}

void FakeDevice::AddScaled(const TensorView& x, float scale, const TensorView& acc) {
  Enqueue([=, this] { inner_->AddScaled(Real(x), scale, Real(acc)); });
}

void FakeDevice::Fill(const TensorView& x, float value) {
  Enqueue([=, this] { inner_->Fill(Real(x), value); });
}

void FakeDevice::Scale(const TensorView& x, float scale) {
  Enqueue([=, this] { inner_->Scale(Real(x), scale); });
}

void FakeDevice::Clamp(const TensorView& x, float limit) {
  Enqueue([=, this] { inner_->Clamp(Real(x), limit); });
}

void FakeDevice::MarkFaults(const TensorView& x, float limit, int32_t code,
                            const TensorView& faults) {
  Enqueue([=, this] { inner_->MarkFaults(Real(x), limit, code, Real(faults)); });
}

void FakeDevice::GatherRows(const TensorView& x, const TensorView& rows, const TensorView& out) {
  Enqueue([=, this] { inner_->GatherRows(Real(x), Real(rows), Real(out)); });
}

}  // namespace thermocline
