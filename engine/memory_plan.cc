#include "engine/memory_plan.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace thermocline {
namespace {

constexpr int kUsualStepTokens = 512;
constexpr int kLargeSteps[] = {512, 1024, 2048};
constexpr int kSmallSteps[] = {256, 128, 64, 32, 16};
constexpr int64_t kTypicalPrompt = 2048, kTypicalOutput = 256;  // tokens of a request

class Planner {
 public:
  explicit Planner(const MemoryNeeds& needs)
      : needs_(needs),
        room_(needs.limit - MemoryReserve(needs.limit) - needs.held - needs.dense - needs.staging -
              needs.states) {}

  absl::StatusOr<MemoryPlan> Plan() const {
    if (needs_.layer_slots.has_value()) {
      const std::vector<int> slots = SlotsForEachLayer(needs_.classes, *needs_.layer_slots);
      if (std::optional<MemoryPlan> plan = WithSlots(slots)) return *plan;
      return DoesNotFit(BytesOf(slots));
    }
    if (std::optional<MemoryPlan> plan = WithSlots(needs_.most_slots)) return *plan;
    if (needs_.classes.empty()) return DoesNotFit(0);
    std::optional<MemoryPlan> best;
    double least = 0.0;
    const auto consider = [&](int tokens) {
      const std::optional<MemoryPlan> plan = WithStep(tokens);
      if (!plan.has_value()) return;
      const double read = BytesRead(*plan);
      if (best.has_value() && read >= least) return;
      best = plan;
      least = read;
    };
    if (needs_.step_tokens.has_value()) {
      consider(*needs_.step_tokens);
    } else {
      for (const int tokens : kLargeSteps) consider(tokens);
      for (const int tokens : kSmallSteps) {
        if (!best.has_value()) consider(tokens);
      }
    }
    if (best.has_value()) return *best;
    return DoesNotFit(BytesOf(needs_.least_slots));
  }

 private:
  int64_t BytesOf(const std::vector<int>& slots) const {
    return BytesOfSlots(needs_.classes, slots);
  }

  // At least one block.
  int64_t WholeBlocks(int64_t tokens) const {
    const int64_t block = needs_.block_tokens;
    return std::max<int64_t>(1, tokens / block) * block;
  }

  // KV tokens that are taken of `room`: a share of it, but enough for one conversation if that is
  // not more than a larger share.
  int64_t KvTokens(int64_t room, int64_t share, int64_t large_share) const {
    const int64_t block = needs_.block_tokens;
    if (needs_.kv_tokens.has_value()) return (*needs_.kv_tokens + block - 1) / block * block;
    if (needs_.kv_token == 0) return WholeBlocks(needs_.most_kv_tokens);
    const int64_t least = std::min(needs_.least_kv_tokens, room / large_share / needs_.kv_token);
    return WholeBlocks(
        std::min(needs_.most_kv_tokens, std::max(least, room / share / needs_.kv_token)));
  }

  // With a given number of slots: the KV cache takes a quarter of the rest.
  std::optional<MemoryPlan> WithSlots(const std::vector<int>& slots) const {
    std::vector<int> steps = {needs_.step_tokens.value_or(kUsualStepTokens)};
    if (!needs_.step_tokens.has_value() && needs_.layer_slots.has_value()) {
      steps.insert(steps.end(), std::begin(kSmallSteps), std::end(kSmallSteps));
    }
    for (const int tokens : steps) {
      MemoryPlan plan;
      plan.slots = slots;
      plan.expert_bytes = BytesOf(slots);
      plan.all_resident = plan.expert_bytes >= needs_.expert_bytes && !needs_.some_on_disk;
      plan.step_tokens = tokens;
      plan.step_bytes = needs_.step(tokens);
      const int64_t rest = room_ - plan.expert_bytes - plan.step_bytes;
      plan.kv_tokens = KvTokens(rest, 4, 1);
      plan.spare = rest - plan.kv_bytes(needs_);
      if (plan.spare >= 0) return plan;
    }
    return std::nullopt;
  }

  // As many slots as fit beside a step of so many tokens.
  std::optional<MemoryPlan> WithStep(int tokens) const {
    MemoryPlan plan;
    plan.all_resident = false;
    plan.step_tokens = tokens;
    plan.step_bytes = needs_.step(tokens);
    plan.kv_tokens = KvTokens(room_ - plan.step_bytes, 8, 4);
    const int64_t rest = room_ - plan.step_bytes - plan.kv_bytes(needs_);
    plan.slots = SlotsWithin(needs_.classes, needs_.least_slots, needs_.most_slots, rest);
    plan.expert_bytes = BytesOf(plan.slots);
    plan.spare = rest - plan.expert_bytes;
    if (plan.spare < 0) return std::nullopt;
    return plan;
  }

  // Of experts, for a typical request with uniform routing.
  double BytesRead(const MemoryPlan& plan) const {
    const int64_t steps = (kTypicalPrompt + plan.step_tokens - 1) / plan.step_tokens;
    const double missing = static_cast<double>(needs_.expert_bytes - plan.expert_bytes);
    const double share =
        static_cast<double>(needs_.experts_per_token) / std::max(1, needs_.num_experts);
    return missing * (static_cast<double>(steps) + static_cast<double>(kTypicalOutput) * share);
  }

  absl::Status DoesNotFit(int64_t expert_bytes) const {
    const int tokens = needs_.step_tokens.value_or(
        needs_.classes.empty() ? kUsualStepTokens : std::end(kSmallSteps)[-1]);
    const int64_t kv_tokens =
        WholeBlocks(needs_.kv_tokens.value_or(std::min<int64_t>(needs_.most_kv_tokens, 1)));
    std::string message = absl::StrCat(
        "the model does not fit into ", Megabytes(needs_.limit),
        " of memory: ", Megabytes(needs_.held), " are held already, ",
        Megabytes(MemoryReserve(needs_.limit)), " are kept free, and it needs ",
        Megabytes(needs_.dense), " for dense weights, ",
        Megabytes(kv_tokens * needs_.kv_token + needs_.states), " for a KV cache of ", kv_tokens,
        " tokens, ", Megabytes(needs_.step(tokens)), " for steps of ", tokens, " tokens");
    if (!needs_.classes.empty()) {
      absl::StrAppend(&message, ", ", Megabytes(needs_.staging + expert_bytes), " for ",
                      needs_.layer_slots.has_value() ? "the" : "the fewest", " experts");
    }
    return absl::ResourceExhaustedError(message);
  }

  const MemoryNeeds& needs_;
  const int64_t room_;
};

}  // namespace

std::string Megabytes(int64_t bytes) {
  return absl::StrFormat("%.1f MB", static_cast<double>(bytes) / 1e6);
}

int64_t MemoryReserve(int64_t bytes) { return bytes / 1000 * 35; }

absl::StatusOr<MemoryPlan> PlanMemory(const MemoryNeeds& needs) { return Planner(needs).Plan(); }

}  // namespace thermocline
