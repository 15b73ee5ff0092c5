#include "engine/engine_snapshot.h"

namespace thermocline {
namespace {

std::vector<bool> ResidentOf(const ExpertTier& tier, int layer) {
  std::vector<bool> resident(static_cast<size_t>(tier.num_experts()), false);
  if (!tier.residency().has_experts(layer)) return resident;
  for (int e = 0; e < tier.num_experts(); ++e) {
    resident[static_cast<size_t>(e)] = tier.IsResident({layer, e});
  }
  return resident;
}

}  // namespace

EngineSnapshot TakeSnapshot(const StepStats& steps, const Scheduler& scheduler,
                            const LoadedModel& model) {
  EngineSnapshot snapshot;
  static_cast<StepStats&>(snapshot) = steps;
  snapshot.num_running = scheduler.num_running();
  snapshot.num_waiting = scheduler.num_waiting();
  snapshot.num_preemptions = scheduler.num_preemptions();
  snapshot.kv_blocks_used = model.kv_pool->num_used();
  snapshot.kv_blocks_total = model.kv_pool->num_blocks();
  ExpertStore& experts = *model.experts;
  const ExpertRunner& runner = experts.runner();
  snapshot.expert_bytes_computed = runner.bytes_computed();
  snapshot.expert_seconds = runner.measured_seconds();
  snapshot.expert_seconds_predicted = runner.predicted_seconds();
  snapshot.expert_bytes_read = experts.fetcher().reader().bytes_read();
  snapshot.expert_bytes_allowed = experts.host().allowed_bytes();
  snapshot.filling = experts.busy();
  snapshot.expert_failure = experts.first_failure();
  snapshot.heat = runner.heat();
  for (int l = 0; l < experts.host().num_layers(); ++l) {
    snapshot.experts.push_back(experts.stats(l));
    snapshot.resident.push_back(ResidentOf(experts.host(), l));
  }
  return snapshot;
}

}  // namespace thermocline
