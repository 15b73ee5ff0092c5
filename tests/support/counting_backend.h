// The reference backend that remembers its matrix products and watches the KV cache.
#ifndef THERMOCLINE_TESTS_SUPPORT_COUNTING_BACKEND_H_
#define THERMOCLINE_TESTS_SUPPORT_COUNTING_BACKEND_H_

#include <map>
#include <set>
#include <vector>

#include "kernels/host_device.h"
#include "kernels/reference/reference_ops.h"

namespace thermocline {

class OperationCounts {
 public:
  // Counting begins; a step begins with every EmbedTokens.
  void StartSteps() { counting_ = true; }
  int steps() const { return static_cast<int>(matmuls_.size()); }
  // Weight -> number of rows of each product with it, in the given step.
  const std::map<const void*, std::vector<int64_t>>& matmuls(int step) const {
    return matmuls_[static_cast<size_t>(step)];
  }
  // Every cache that attention read is one that keys or values were stored into.
  bool attention_reads_stored_kv() const { return reads_stored_kv_ && !stored_.empty(); }
  int64_t kv_bytes_copied() const { return kv_bytes_copied_; }

 private:
  friend class CountingOps;
  friend class CountingDevice;

  void CountIfKv(const void* address, int64_t bytes) {
    for (const auto& [cache, size] : stored_) {
      const char *begin = static_cast<const char*>(cache), *at = static_cast<const char*>(address);
      if (at < begin + size && at + bytes > begin) kv_bytes_copied_ += bytes;
    }
  }

  bool counting_ = false;
  bool reads_stored_kv_ = true;
  int64_t kv_bytes_copied_ = 0;
  std::map<const void*, int64_t> stored_;
  std::vector<std::map<const void*, std::vector<int64_t>>> matmuls_;
};

class CountingOps : public ReferenceOps {
 public:
  explicit CountingOps(OperationCounts* counts) : counts_(counts) {}

  void EmbedTokens(const TensorView& table, const TensorView& ids, float scale,
                   const TensorView& out) override {
    if (counts_->counting_) counts_->matmuls_.emplace_back();
    ReferenceOps::EmbedTokens(table, ids, scale, out);
  }
  void MatMul(const TensorView& x, const TensorView& roles,
              absl::Span<const Projection> projections) override {
    for (const Projection& p : projections) {
      if (counts_->counting_) counts_->matmuls_.back()[p.weight.data].push_back(x.rows());
    }
    ReferenceOps::MatMul(x, roles, projections);
  }
  void StoreKv(const TensorView& k, const TensorView& v, const TensorView& slots,
               const TensorView& k_cache, const TensorView& v_cache) override {
    counts_->stored_[k_cache.data] = k_cache.bytes();
    if (!v.empty()) counts_->stored_[v_cache.data] = v_cache.bytes();
    ReferenceOps::StoreKv(k, v, slots, k_cache, v_cache);
  }
  void Attention(const AttentionArgs& args) override {
    counts_->reads_stored_kv_ &= counts_->stored_.count(args.k_cache.data) == 1 &&
                                 counts_->stored_.count(args.v_cache.data) == 1;
    ReferenceOps::Attention(args);
  }

 private:
  OperationCounts* counts_;
};

class CountingDevice : public HostDevice {
 public:
  explicit CountingDevice(OperationCounts* counts) : counts_(counts) {}
  void Copy(Queue queue, const void* from, void* to, int64_t bytes) override {
    counts_->CountIfKv(from, bytes);
    counts_->CountIfKv(to, bytes);
    HostDevice::Copy(queue, from, to, bytes);
  }

 private:
  OperationCounts* counts_;
};

// `counts` outlives the backend.
inline std::unique_ptr<Backend> MakeCountingBackend(OperationCounts* counts) {
  std::unique_ptr<Backend> backend = MakeReferenceBackend();
  backend->device = std::make_unique<CountingDevice>(counts);
  backend->dense = std::make_unique<CountingOps>(counts);
  return backend;
}

}  // namespace thermocline

#endif  // THERMOCLINE_TESTS_SUPPORT_COUNTING_BACKEND_H_
