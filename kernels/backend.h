// Backend: a device with the operations that run on it, made by name.
#ifndef THERMOCLINE_KERNELS_BACKEND_H_
#define THERMOCLINE_KERNELS_BACKEND_H_

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "kernels/dense_ops.h"
#include "kernels/device.h"
#include "kernels/expert_ops.h"
#include "kernels/kernel_table.h"
#include "kernels/worker_pool.h"

namespace thermocline {

// Precision in which activations meet quantised weights. Weights stored as F32 always use f32.
enum class Activations { kF32, kInt8 };

// The largest of what the operations of one step are handed, in elements.
struct StepSizes {
  int64_t product_elems = 0;  // x of a product
  int64_t rope_elems = 0;     // tokens times frequencies
  // Of a MoE layer's experts.
  int64_t expert_tokens = 0;
  int64_t expert_pairs = 0;  // of a token and one of its experts
  int64_t expert_cols = 0;   // of x
  int64_t expert_width = 0;
};

struct Backend {
  std::string name;
  std::string description;  // one line for the log: instruction set, threads, precision
  std::unique_ptr<Device> device;
  std::unique_ptr<DenseOps> dense;
  std::unique_ptr<ExpertOps> experts;
  std::vector<KernelRow> kernels;  // which kernel serves what; none where there is but one
  // Bytes that the backend itself may take for such a step, and keeps. Unset: none.
  std::function<int64_t(const StepSizes&)> workspace_bytes;
};

// By weight format, the number of tokens from which the CPU backend uses the wide tiles of its
// products; 0: its own choice. Measured by `thermocline bench --calibrate`; it never shows in a
// result.
struct Calibration {
  std::array<int, kNumDTypes> wide_from = {};
};

struct BackendOptions {
  Activations activations = Activations::kInt8;
  // "scalar", "avx2", "avx512"; empty: THERMOCLINE_CPU_ISA, else the best the machine has
  std::string isa = {};
  Calibration calibration = {};
  // oneDNN for the prompt tokens that it can serve. Unset: where it is faster.
  std::optional<bool> onednn = {};
};

// Makes a backend by name: "reference" or "cpu". `pool` is lent to it, and outlives it.
// INVALID_ARGUMENT lists the names.
absl::StatusOr<std::unique_ptr<Backend>> MakeBackend(absl::string_view name, WorkerPool* pool,
                                                     const BackendOptions& options);

}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_BACKEND_H_
