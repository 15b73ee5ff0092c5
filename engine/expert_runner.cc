#include "engine/expert_runner.h"

#include <cstring>

#include "kernels/check.h"

namespace thermocline {
namespace {

TensorView ViewOf(const ExpertLayout::Matrix& matrix, void* slot) {
  if (matrix.rows == 0) return {};
  void* data = slot != nullptr ? static_cast<char*>(slot) + matrix.offset : nullptr;
  if (matrix.cols == 1) return MakeView(data, matrix.dtype, {matrix.rows});
  return MakeWeightView(data, matrix.dtype, matrix.rows, matrix.cols);
}

// The views into a slot; null: the shapes alone.
ExpertWeights WeightsIn(const ExpertLayout& layout, void* slot) {
  return {.gate = ViewOf(layout.gate, slot),
          .up = ViewOf(layout.up, slot),
          .down = ViewOf(layout.down, slot),
          .gate_bias = ViewOf(layout.gate_bias, slot),
          .up_bias = ViewOf(layout.up_bias, slot),
          .down_bias = ViewOf(layout.down_bias, slot)};
}

}  // namespace

ExpertRunner::ExpertRunner(Backend* dense, Tier host, Tier device,
                           std::vector<ExpertLayout> layouts)
    : dense_(dense),
      host_(host),
      device_(device),
      layouts_(std::move(layouts)),
      host_scratch_(host.backend->device.get()),
      device_scratch_(device.backend != nullptr ? device.backend->device.get() : nullptr) {
  const size_t num_experts =
      host.cache != nullptr ? static_cast<size_t>(host.cache->num_experts()) : 0;
  works_ = std::make_unique<ExpertWork[]>(num_experts);
  heat_.assign(layouts_.size(), std::vector<int64_t>(num_experts, 0));
}

absl::Status ExpertRunner::Run(int layer, const TensorView& x, const TensorView& ids,
                               Activation activation, const TensorView& out) {
  // The only point of a step where the host waits for the dense backend: placement needs to know
  // the routing.
  std::vector<int32_t> chosen(static_cast<size_t>(ids.num_elems()));
  dense_->device->Copy(Queue::kCompute, ids.data, chosen.data(), ids.bytes());
  if (absl::Status s = dense_->device->Synchronize(); !s.ok()) return s;

  const size_t num_experts = static_cast<size_t>(host_.cache->num_experts());
  std::vector<Active> active(num_experts);
  std::vector<int32_t> tokens_per_expert(num_experts, 0);
  for (int32_t slot = 0; slot < static_cast<int32_t>(chosen.size()); ++slot) {
    const size_t e = static_cast<size_t>(chosen[static_cast<size_t>(slot)]);
    if (e >= num_experts) continue;
    active[e].expert = static_cast<int32_t>(e);
    active[e].rows.push_back(slot / static_cast<int32_t>(ids.cols()));
    active[e].out_rows.push_back(slot);
    ++tokens_per_expert[e];
    ++heat_[static_cast<size_t>(layer)][e];
  }
  std::vector<bool> on_device(num_experts, false), on_host(num_experts, false);
  for (size_t e = 0; e < num_experts; ++e) {
    const ExpertId id = {layer, static_cast<int32_t>(e)};
    on_device[e] = device_.cache != nullptr && device_.cache->IsResident(id);
    on_host[e] = host_.cache->IsResident(id);
  }
  std::vector<const Active*> for_device, for_host;
  const std::vector<Placement> plan = PlanExperts(tokens_per_expert, on_device, on_host);
  // Resident experts first: a wave that waits for the disk should not hold them up.
  for (const Placement wanted : {Placement::kDevice, Placement::kHost, Placement::kFetch}) {
    for (size_t e = 0; e < num_experts; ++e) {
      if (plan[e] != wanted) continue;
      (wanted == Placement::kDevice ? for_device : for_host).push_back(&active[e]);
      bytes_computed_ += layouts_[static_cast<size_t>(layer)].bytes;
    }
  }
  const Job job = {layer, activation, x, out};
  if (absl::Status s = RunTier(device_, for_device, job); !s.ok()) return s;
  return RunTier(host_, for_host, job);
}

absl::Status ExpertRunner::RunTier(const Tier& tier, absl::Span<const Active* const> active,
                                   const Job& job) {
  if (active.empty()) return absl::OkStatus();
  TC_CHECK(tier.cache->capacity() > 0) << "experts sent to an empty tier";
  if (tier.backend == dense_) return RunWaves(tier, active, job);
  Scratch* scratch = &tier == &device_ ? &device_scratch_ : &host_scratch_;
  return RunRemote(tier, scratch, active, job);
}

absl::Status ExpertRunner::RunWaves(const Tier& tier, absl::Span<const Active* const> active,
                                    const Job& job) {
  static const Arrival kHere;
  const ExpertLayout& layout = layouts_[static_cast<size_t>(job.layer)];
  const ExpertBatch batch = {WeightsIn(layout, nullptr), job.activation, job.x, job.out};
  for (size_t begin = 0; begin < active.size();) {
    std::vector<PinnedExpert> pins;
    for (; begin < active.size() && pins.size() < static_cast<size_t>(tier.cache->capacity());
         ++begin) {
      const Active& expert = *active[begin];
      const ExpertId id = {job.layer, expert.expert};
      PinnedExpert pin = tier.cache->Lookup(id);
      if (!pin) {
        absl::StatusOr<PinnedExpert> fetched = tier.cache->Insert(id);
        if (!fetched.ok()) return fetched.status();
        pin = *std::move(fetched);
      }
      ExpertWork& work = works_[pins.size()];
      work.weights = WeightsIn(layout, pin.data());
      work.arrival.store(&kHere);
      work.rows = expert.rows;
      work.out_rows = expert.out_rows;
      pins.push_back(std::move(pin));
    }
    tier.backend->experts->Start(batch, absl::MakeSpan(works_.get(), pins.size()));
    if (absl::Status s = tier.backend->experts->Finish(nullptr); !s.ok()) return s;
    // The pins go before the next wave: the queue must be done with the slots.
    if (absl::Status s = tier.backend->device->Synchronize(); !s.ok()) return s;
  }
  return absl::OkStatus();
}

absl::Status ExpertRunner::RunRemote(const Tier& tier, Scratch* scratch,
                                     absl::Span<const Active* const> active, const Job& job) {
  const TensorView &x = job.x, &out = job.out;
  const Scratch::Position mark = scratch->Mark();
  const auto on_tier = [&](const TensorView& view) {
    TensorView copy = view;
    copy.data = scratch->Allocate(view.bytes());
    return copy;
  };
  std::vector<char> staged_x(static_cast<size_t>(x.bytes())),
      staged_out(static_cast<size_t>(out.bytes()));
  dense_->device->Copy(Queue::kCompute, x.data, staged_x.data(), x.bytes());
  if (absl::Status s = dense_->device->Synchronize(); !s.ok()) return s;
  const TensorView tier_x = on_tier(x), tier_out = on_tier(out);
  tier.backend->device->Copy(Queue::kCompute, staged_x.data(), tier_x.data, x.bytes());

  absl::Status ran = RunWaves(tier, active, {job.layer, job.activation, tier_x, tier_out});
  if (ran.ok()) {
    tier.backend->device->Copy(Queue::kCompute, tier_out.data, staged_out.data(), out.bytes());
    ran = tier.backend->device->Synchronize();
  }
  scratch->Release(mark);
  if (!ran.ok()) return ran;
  for (const Active* expert : active) {
    for (int32_t slot : expert->out_rows) {
      dense_->device->Copy(Queue::kCompute, &staged_out[static_cast<size_t>(slot * out.row_bytes)],
                           out.Row<char>(slot), out.row_bytes);
    }
  }
  return dense_->device->Synchronize();  // the staging copy dies here
}

}  // namespace thermocline
