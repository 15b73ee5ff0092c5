// Prompt attention whose two products are oneDNN's, one thread at a time.
#ifndef THERMOCLINE_KERNELS_CPU_ONEDNN_ATTENTION_H_
#define THERMOCLINE_KERNELS_CPU_ONEDNN_ATTENTION_H_

#include <memory>

#include "absl/status/status.h"
#include "kernels/cpu/kernels.h"

namespace thermocline {

// Dao et al. 2022 (FlashAttention), algorithm 1, as in kernels/cpu/attend_tile_impl.h, with
// products of fixed shapes: kMaxQueries queries (missing ones are zeros) and kBlock positions from
// a multiple of it, so that a query sees the same operations whatever tile it is in. The products
// of a BF16 cache take queries and weights rounded to bf16, those of others are f32.
class OneDnnAttention {
 public:
  static constexpr int kMaxQueries = 96;
  static constexpr int kBlock = 256;

  OneDnnAttention();
  ~OneDnnAttention();
  OneDnnAttention(OneDnnAttention&&) noexcept;
  OneDnnAttention& operator=(OneDnnAttention&&) noexcept;

  // CpuKernels::attend_tile, but for its rounding and `scratch`, which is not used; at most
  // kMaxQueries. INTERNAL when the library refuses: then nothing is written.
  absl::Status Run(const CpuKernels& kernels, const AttendTileArgs& args);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_CPU_ONEDNN_ATTENTION_H_
