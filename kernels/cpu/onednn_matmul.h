// Products of many prompt tokens through oneDNN, one thread at a time.
#ifndef THERMOCLINE_KERNELS_CPU_ONEDNN_MATMUL_H_
#define THERMOCLINE_KERNELS_CPU_ONEDNN_MATMUL_H_

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "kernels/tensor_view.h"

namespace thermocline {

// Every call computes exactly kTokensPerCall tokens (missing ones are zeros), so that a token's
// result cannot depend on how many others are with it. One object per worker thread; oneDNN runs
// inside the calling thread only (its own thread team would fight ours).
class OneDnnMatMul {
 public:
  static constexpr int kTokensPerCall = 64;
  static constexpr int64_t kMaxWeightRows = 512;

  OneDnnMatMul();
  ~OneDnnMatMul();
  OneDnnMatMul(OneDnnMatMul&&) noexcept;
  OneDnnMatMul& operator=(OneDnnMatMul&&) noexcept;

  // False when built without oneDNN, or when the library has no product of our panels on this
  // processor (2.6 has none below AVX-512).
  static bool Available();
  // Whether this machine has the AMX tiles for which it is there; without them our f32 products of
  // the same weights are faster.
  static bool HasTiles();
  // BF16 matrices of some size whose panels oneDNN can read as they lie.
  static bool CanServe(const TensorView& weight);

  // out[t][r] = x[t] . weight[first_row + r] for num_tokens <= kTokensPerCall tokens, x[t] of [in]
  // bf16, and num_rows <= kMaxWeightRows. INTERNAL when the library refuses: then nobody has
  // computed anything. A caller that wants the same bits again asks for the same rows together.
  absl::Status Run(const TensorView& weight, int64_t first_row, int64_t num_rows,
                   const void* const* x, int num_tokens, float* const* out);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_CPU_ONEDNN_MATMUL_H_
