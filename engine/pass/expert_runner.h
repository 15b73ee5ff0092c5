// ExpertRunner: computes a MoE layer's experts where they lie, while those that are missing are on
// their way.
#ifndef THERMOCLINE_ENGINE_PASS_EXPERT_RUNNER_H_
#define THERMOCLINE_ENGINE_PASS_EXPERT_RUNNER_H_

#include <chrono>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cache/cost_model.h"
#include "cache/expert_fetcher.h"
#include "cache/plan_experts.h"
#include "engine/pass/routed_experts.h"
#include "engine/pass/scratch.h"
#include "engine/weights/expert_biases.h"
#include "kernels/backend.h"

namespace thermocline {

class ExpertRunner : public RoutedExperts {
 public:
  // One place where experts are computed.
  struct Tier {
    Backend* backend = nullptr;  // null: there is none
    ExpertTier* experts = nullptr;
    const ExpertBiases* biases = nullptr;
  };
  // Of a layer, since the start. A hit is an expert that a step needs and that is there.
  struct Stats {
    int64_t hits = 0, misses = 0;
  };

  // All outlive the runner. `dense` holds x and out; `fetcher` brings experts to the host.
  ExpertRunner(Backend* dense, const Tier& host, const Tier& device, ExpertFetcher* fetcher);

  absl::Status Plan(int layer, const TensorView& x, absl::Span<const TokenRole> roles,
                    const TensorView& ids) override;
  void Start(Activation activation, const TensorView& out) override;
  absl::StatusOr<std::vector<LostRow>> Finish() override;

  // Tokens routed to each expert since the start, [layer][expert].
  const std::vector<std::vector<int64_t>>& heat() const { return heat_; }
  const Stats& stats(int layer) const { return stats_[static_cast<size_t>(layer)]; }
  // Bytes of the experts computed since the start: an expert counts once a step, however many of
  // its tokens there are.
  int64_t bytes_computed() const { return bytes_computed_; }
  // What layers cost, and the sums of what was predicted and what it was.
  const CostModel& costs() const { return costs_; }
  double predicted_seconds() const { return predicted_seconds_; }
  double measured_seconds() const { return measured_seconds_; }

 private:
  // The experts of the layer at hand that one tier computes.
  struct Share {
    std::vector<int32_t> experts;   // in the order of works
    std::vector<int32_t> out_rows;  // of all of them, of the layer's out
    std::unique_ptr<ExpertWork[]> works;
    ExpertBatch batch;
    std::vector<char> x, out;  // in host memory, where the dense memory is another
    bool direct = false;       // reads x and writes out where they are
  };

  // Rows of out of a layer's experts, one expert after the other, and where each one's begin.
  void Sort(const std::vector<int32_t>& chosen);
  void AddWork(const Tier& tier, int32_t expert, Share* share);
  void StartDevice();
  // Rows that a tier computed elsewhere, into the layer's out.
  void BringBack(Share* share);
  const ExpertLayout& layout() const { return host_.experts->layout(layer_); }
  absl::Span<ExpertWork> WorksOf(Share* share) const {
    return absl::MakeSpan(share->works.get(), share->experts.size());
  }

  Backend* dense_;
  Tier host_, device_;
  ExpertFetcher* fetcher_;
  Scratch dense_scratch_, device_scratch_;
  int layer_ = 0;
  TensorView x_, out_;
  absl::Span<const TokenRole> roles_;
  int64_t top_k_ = 1;
  std::vector<char> host_x_;  // x, where the dense memory is not the host's
  std::vector<int32_t> rows_, out_rows_, tokens_per_expert_, first_;
  std::vector<int32_t> in_order_;  // 0, 1, 2, ...
  Share on_host_, on_device_;
  EventId device_done_ = 0;
  std::vector<std::vector<int64_t>> heat_;
  std::vector<Stats> stats_;
  int64_t bytes_computed_ = 0;
  CostModel costs_;
  LayerWork work_;  // of the layer at hand
  std::chrono::steady_clock::time_point started_;
  double predicted_seconds_ = 0.0, measured_seconds_ = 0.0;
};

}  // namespace thermocline

#endif  // THERMOCLINE_ENGINE_PASS_EXPERT_RUNNER_H_
