// CountingBackend: the reference backend that remembers its matrix products and watches the KV
// cache.
#ifndef THERMOCLINE_TESTS_SUPPORT_COUNTING_BACKEND_H_
#define THERMOCLINE_TESTS_SUPPORT_COUNTING_BACKEND_H_

#include <map>
#include <set>
#include <vector>

#include "kernels/reference/reference_backend.h"

namespace thermocline {

class CountingBackend : public ReferenceBackend {
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

  void EmbedTokens(const TensorView& table, const TensorView& ids, float scale,
                   const TensorView& out) override {
    if (counting_) matmuls_.emplace_back();
    ReferenceBackend::EmbedTokens(table, ids, scale, out);
  }
  void MatMul(const TensorView& x, absl::Span<const TokenRole> roles,
              absl::Span<const Projection> projections) override {
    for (const Projection& p : projections) {
      if (counting_) matmuls_.back()[p.weight.data].push_back(x.rows());
    }
    ReferenceBackend::MatMul(x, roles, projections);
  }
  void StoreKv(const TensorView& k, const TensorView& v, const TensorView& slots,
               const TensorView& k_cache, const TensorView& v_cache) override {
    stored_[k_cache.data] = k_cache.bytes();
    if (!v.empty()) stored_[v_cache.data] = v_cache.bytes();
    ReferenceBackend::StoreKv(k, v, slots, k_cache, v_cache);
  }
  void Attention(const AttentionArgs& args) override {
    reads_stored_kv_ &=
        stored_.count(args.k_cache.data) == 1 && stored_.count(args.v_cache.data) == 1;
    ReferenceBackend::Attention(args);
  }
  void CopyFromHost(const void* host, void* device, int64_t bytes) override {
    CountIfKv(device, bytes);
    ReferenceBackend::CopyFromHost(host, device, bytes);
  }
  void CopyToHost(const void* device, void* host, int64_t bytes) override {
    CountIfKv(device, bytes);
    ReferenceBackend::CopyToHost(device, host, bytes);
  }

 private:
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

}  // namespace thermocline

#endif  // THERMOCLINE_TESTS_SUPPORT_COUNTING_BACKEND_H_
