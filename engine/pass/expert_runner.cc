#include "engine/pass/expert_runner.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "kernels/check.h"

namespace thermocline {
namespace {

bool IsHost(const Backend* backend) { return backend->device->memory_kind() == MemoryKind::kHost; }

Device* DeviceOf(const Backend* backend) {
  return backend != nullptr ? backend->device.get() : nullptr;
}

}  // namespace

ExpertRunner::ExpertRunner(Backend* dense, const Tier& host, const Tier& device,
                           ExpertFetcher* fetcher)
    : dense_(dense),
      host_(host),
      device_(device),
      fetcher_(fetcher),
      dense_scratch_(DeviceOf(dense)),
      device_scratch_(DeviceOf(device.backend)) {
  const size_t num_layers = static_cast<size_t>(host.experts->num_layers()),
               num_experts = static_cast<size_t>(host.experts->num_experts());
  heat_.assign(num_layers, std::vector<int64_t>(num_experts, 0));
  stats_.resize(num_layers);
  tokens_per_expert_.resize(num_experts);
  first_.resize(num_experts + 1);
  on_host_.works = std::make_unique<ExpertWork[]>(num_experts);
  on_device_.works = std::make_unique<ExpertWork[]>(num_experts);
  on_host_.direct = IsHost(dense);
  on_device_.direct = device.backend == dense;
}

absl::Status ExpertRunner::Plan(int layer, const TensorView& x, absl::Span<const TokenRole> roles,
                                const TensorView& ids) {
  layer_ = layer;
  x_ = x;
  roles_ = roles;
  top_k_ = ids.cols();
  std::vector<int32_t> chosen(static_cast<size_t>(ids.num_elems()));
  dense_->device->Copy(Queue::kCompute, ids.data, chosen.data(), ids.bytes());
  if (!IsHost(dense_)) {
    host_x_.resize(static_cast<size_t>(x.bytes()));
    dense_->device->Copy(Queue::kCompute, x.data, host_x_.data(), x.bytes());
  }
  if (absl::Status s = dense_->device->Synchronize(); !s.ok()) return s;
  Sort(chosen);

  const auto states = [&](const Tier& tier) {
    std::vector<SlotState> of;
    for (int32_t e = 0; tier.experts != nullptr && e < tier.experts->num_experts(); ++e) {
      of.push_back(tier.experts->residency()->StateOf(ExpertId{layer, e}));
    }
    return of;
  };
  const std::vector<SlotState> on_device = states(device_), on_host = states(host_);
  for (Share* share : {&on_host_, &on_device_}) {
    share->experts.clear();
    share->out_rows.clear();
  }
  Stats& stats = stats_[static_cast<size_t>(layer)];
  work_ = {};
  for (const PlannedExpert& planned : PlanExperts({tokens_per_expert_, on_device, on_host})) {
    const bool device = planned.place == Place::kDevice;
    AddWork(device ? device_ : host_, planned.expert, device ? &on_device_ : &on_host_);
    ++(planned.fetch ? stats.misses : stats.hits);
    bytes_computed_ += layout().bytes;
    PlaceWork& work = work_.at(planned.place);
    work.expert_bytes += layout().bytes;
    ++work.experts;
    work.pairs += tokens_per_expert_[static_cast<size_t>(planned.expert)];
    if (planned.fetch) work_.missing_bytes += layout().bytes;
  }
  return absl::OkStatus();
}

void ExpertRunner::Sort(const std::vector<int32_t>& chosen) {
  const int32_t num_experts = static_cast<int32_t>(tokens_per_expert_.size());
  std::fill(tokens_per_expert_.begin(), tokens_per_expert_.end(), 0);
  for (const int32_t e : chosen) {
    if (e < num_experts) ++tokens_per_expert_[static_cast<size_t>(e)];
  }
  first_[0] = 0;
  std::partial_sum(tokens_per_expert_.begin(), tokens_per_expert_.end(), first_.begin() + 1);
  out_rows_.resize(static_cast<size_t>(first_.back()));
  rows_.resize(out_rows_.size());
  for (int32_t i = static_cast<int32_t>(in_order_.size()); in_order_.size() < rows_.size(); ++i) {
    in_order_.push_back(i);
  }
  std::vector<int32_t> next = first_;
  for (int32_t row = 0; row < static_cast<int32_t>(chosen.size()); ++row) {
    const int32_t e = chosen[static_cast<size_t>(row)];
    if (e >= num_experts) continue;
    const size_t at = static_cast<size_t>(next[static_cast<size_t>(e)]++);
    out_rows_[at] = row;
    rows_[at] = row / static_cast<int32_t>(top_k_);
  }
  std::vector<int64_t>& heat = heat_[static_cast<size_t>(layer_)];
  for (size_t e = 0; e < heat.size(); ++e) heat[e] += tokens_per_expert_[e];
}

void ExpertRunner::AddWork(const Tier& tier, int32_t expert, Share* share) {
  const size_t first = static_cast<size_t>(first_[static_cast<size_t>(expert)]),
               count = static_cast<size_t>(tokens_per_expert_[static_cast<size_t>(expert)]);
  ExpertWork& work = share->works[share->experts.size()];
  const ExpertId id = {layer_, expert};
  work.rows = absl::MakeConstSpan(rows_).subspan(first, count);
  work.out_rows = absl::MakeConstSpan(out_rows_).subspan(first, count);
  work.weights = {};
  if (&tier == &device_) {
    work.weights = tier.experts->Weights(*tier.experts->residency()->Find(id));
  }
  tier.biases->Set(id, &work.weights);
  share->experts.push_back(expert);
  const size_t begin = share->out_rows.size();
  share->out_rows.insert(share->out_rows.end(), work.out_rows.begin(), work.out_rows.end());
  if (!share->direct) work.out_rows = absl::MakeConstSpan(in_order_).subspan(begin, count);
}

void ExpertRunner::Start(Activation activation, const TensorView& out) {
  out_ = out;
  started_ = std::chrono::steady_clock::now();
  for (Share* share : {&on_host_, &on_device_}) {
    share->batch = {WeightsIn(layout(), nullptr), activation, x_, out, roles_};
    if (share->direct) continue;
    // Rows of its own, one after the other, to go back together.
    share->out.resize(share->out_rows.size() * static_cast<size_t>(out.row_bytes));
  }
  if (!on_device_.experts.empty()) StartDevice();
  if (on_host_.experts.empty()) return;
  if (!on_host_.direct) {
    on_host_.batch.x.data = host_x_.data();
    on_host_.batch.out.data = on_host_.out.data();
    on_host_.batch.out.shape[0] = static_cast<int64_t>(on_host_.out_rows.size());
  }
  fetcher_->Begin(layer_, on_host_.experts, WorksOf(&on_host_));
  host_.backend->experts->Start(on_host_.batch, WorksOf(&on_host_));
}

void ExpertRunner::StartDevice() {
  Device* device = device_.backend->device.get();
  Share& share = on_device_;
  if (!share.direct) {
    device_scratch_.Release({});
    share.batch.x.data = device_scratch_.Allocate(x_.bytes());
    share.batch.out.data = device_scratch_.Allocate(static_cast<int64_t>(share.out.size()));
    share.batch.out.shape[0] = static_cast<int64_t>(share.out_rows.size());
    device->Copy(Queue::kCopyIn, IsHost(dense_) ? x_.data : host_x_.data(), share.batch.x.data,
                 x_.bytes());
    device->WaitOn(Queue::kCompute, device->Record(Queue::kCopyIn));
  }
  device_.backend->experts->Start(share.batch, WorksOf(&share));
  if (share.direct) return;
  device->WaitOn(Queue::kCopyOut, device->Record(Queue::kCompute));
  device->Copy(Queue::kCopyOut, share.batch.out.data, share.out.data(),
               static_cast<int64_t>(share.out.size()));
  device_done_ = device->Record(Queue::kCopyOut);
}

absl::StatusOr<std::vector<ExpertRunner::LostRow>> ExpertRunner::Finish() {
  std::vector<LostRow> lost;
  if (!on_host_.experts.empty()) {
    const bool feed = !fetcher_->all_here() || !fetcher_->idle();
    fetcher_->EnterRegion();
    const absl::Status done = host_.backend->experts->Finish(feed ? fetcher_ : nullptr);
    for (const ExpertFetcher::Failure& failure : fetcher_->End()) {
      for (const int32_t token : on_host_.works[failure.work].rows) {
        lost.push_back({token, failure.status});
      }
    }
    if (!done.ok()) return done;
    if (!on_host_.direct) BringBack(&on_host_);
  }
  if (!on_device_.experts.empty() && !on_device_.direct) {
    if (absl::Status s = device_.backend->device->Wait(device_done_); !s.ok()) return s;
    BringBack(&on_device_);
  }
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - started_;
  predicted_seconds_ += costs_.LayerSeconds(work_);
  measured_seconds_ += seconds.count();
  costs_.Observe(work_, seconds.count());
  return lost;
}

void ExpertRunner::BringBack(Share* share) {
  const int64_t num_rows = static_cast<int64_t>(share->out_rows.size());
  if (IsHost(dense_)) {
    for (int64_t i = 0; i < num_rows; ++i) {
      std::memcpy(out_.Row<char>(share->out_rows[static_cast<size_t>(i)]),
                  &share->out[static_cast<size_t>(i * out_.row_bytes)],
                  static_cast<size_t>(out_.row_bytes));
    }
    return;
  }
  dense_scratch_.Release({});
  TensorView x = out_, rows = MakeView(nullptr, DType::kI32, {num_rows});
  x.shape[0] = num_rows;
  x.data = dense_scratch_.Allocate(x.bytes());
  rows.data = dense_scratch_.Allocate(rows.bytes());
  dense_->device->Copy(Queue::kCompute, share->out.data(), x.data, x.bytes());
  dense_->device->Copy(Queue::kCompute, share->out_rows.data(), rows.data, rows.bytes());
  dense_->dense->ScatterRows(x, rows, out_);
}

}  // namespace thermocline
