#include "kernels/null_backend.h"

#include <algorithm>
#include <limits>

#include "kernels/checked_ops.h"

namespace thermocline {
namespace {

// Addresses that nobody reads.
class NullDevice : public Device {
 public:
  MemoryKind memory_kind() const override { return MemoryKind::kDevice; }
  absl::StatusOr<Buffer> Allocate(MemoryKind kind, int64_t bytes) override {
    void* const data = reinterpret_cast<void*>(next_);  // NOLINT: an address by arithmetic
    next_ += static_cast<uintptr_t>((bytes + 63) / 64 * 64);
    return Buffer(
        data, bytes, kind, [](void*, void*, int64_t) {}, nullptr);
  }
  MemoryInfo memory() const override {
    constexpr int64_t kEndless = std::numeric_limits<int64_t>::max();
    return {kEndless, kEndless};
  }
  void Copy(Queue, const void*, void*, int64_t) override {}
  EventId Record(Queue) override { return 0; }
  void WaitOn(Queue, EventId) override {}
  bool Passed(EventId) override { return true; }
  absl::Status Wait(EventId) override { return absl::OkStatus(); }
  absl::Status health() const override { return absl::OkStatus(); }

 private:
  uintptr_t next_ = uintptr_t{1} << 40;
};

class NullOps : public DenseOps {
 public:
  explicit NullOps(StepSizes* sizes) : sizes_(*sizes) {}

  void MatMul(const TensorView& x, const TensorView&, absl::Span<const Projection>) override {
    sizes_.product_elems = std::max(sizes_.product_elems, x.num_elems());
  }
  void HeadMatMul(const TensorView& x, const TensorView&, const TensorView&,
                  const TensorView&) override {
    sizes_.product_elems = std::max(sizes_.product_elems, x.num_elems());
  }
  void Rope(const TensorView&, const TensorView& positions, const RopeArgs& args) override {
    sizes_.rope_elems =
        std::max(sizes_.rope_elems, positions.num_elems() * args.inv_freq.num_elems());
  }
  void EmbedTokens(const TensorView&, const TensorView&, float, const TensorView&) override {}
  void RmsNorm(const TensorView&, const TensorView&, float, const TensorView&) override {}
  void LayerNorm(const TensorView&, const TensorView&, const TensorView&, float,
                 const TensorView&) override {}
  void StoreKv(const TensorView&, const TensorView&, const TensorView&, const TensorView&,
               const TensorView&) override {}
  void Attention(const AttentionArgs&) override {}
  void RouteTopK(const TensorView&, const RouteArgs&, const TensorView&,
                 const TensorView&) override {}
  void IdentityExperts(const TensorView&, const TensorView&, int, const TensorView&) override {}
  void CombineExperts(const TensorView&, const TensorView&, float, const TensorView&) override {}
  void SiluMul(const TensorView&, const TensorView&, const TensorView&) override {}
  void Multiply(const TensorView&, const TensorView&, const TensorView&) override {}
  void SigmoidMul(const TensorView&, const TensorView&) override {}
  void CopyHeads(const TensorView&, const TensorView&) override {}
  void CausalConv(const TensorView&, const TensorView&, bool, const StateArgs&) override {}
  void GatedDeltaRule(const DeltaRuleArgs&) override {}
  void AddScaled(const TensorView&, float, const TensorView&) override {}
  void Fill(const TensorView&, float) override {}
  void Scale(const TensorView&, float) override {}
  void Clamp(const TensorView&, float) override {}
  void MarkFaults(const TensorView&, float, int32_t, const TensorView&) override {}
  void GatherRows(const TensorView&, const TensorView&, const TensorView&) override {}
  void ScatterRows(const TensorView&, const TensorView&, const TensorView&) override {}

 private:
  StepSizes& sizes_;
};

}  // namespace

std::unique_ptr<Backend> MakeNullBackend(StepSizes* sizes) {
  auto backend = std::make_unique<Backend>();
  backend->name = "null";
  backend->device = std::make_unique<NullDevice>();
  backend->dense = MakeCheckedOps(std::make_unique<NullOps>(sizes));
  return backend;
}

}  // namespace thermocline
