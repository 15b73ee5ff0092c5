#include "kernels/cpu/calibrate.h"

#include <algorithm>
#include <chrono>
#include <climits>
#include <cstring>
#include <vector>

#include "kernels/cpu/isa.h"
#include "kernels/cpu/rounded_activations.h"
#include "kernels/host_memory.h"
#include "kernels/quant/blocks.h"
#include "kernels/quant/panels.h"

namespace thermocline {
namespace {

constexpr int64_t kCols = 2048;
constexpr int64_t kRowsPerTask = 128;
constexpr int64_t kWeightBytes = int64_t{64} << 20;  // read once a measurement
constexpr int kRepetitions = 7;                      // taken in turns; the best one counts
constexpr int kMaxTokens = 48;
constexpr int kTokenCounts[] = {2, 3, 4, 6, 8, 10, 12, 16, 24, 32, kMaxTokens};

double Seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

class FormatTimer {
 public:
  FormatTimer(const CpuKernels& kernels, WorkerPool* pool, DType dtype, const Buffer& weights)
      : kernels_(kernels), pool_(pool), dtype_(dtype), weights_(weights) {
    const bool small = GetFormat(dtype).block_elems == kSmallBlockElems;
    x_.Reset({.small = small, .super = !small}, kMaxTokens, kCols);
    std::vector<float> row(kCols, 1.0f);
    TokenRows tokens;
    for (int t = 0; t < kMaxTokens; ++t) {
      x_.Fill(kernels, t, row.data());
      x_.AppendTo(t, row.data(), &tokens);
    }
    rows_ = small ? tokens.small : tokens.super;
  }

  bool NarrowWins(int num_tokens) const {
    double narrow = 1e9, wide = 1e9;
    for (int i = 0; i < kRepetitions; ++i) {
      narrow = std::min(narrow, TimeOnce(num_tokens, false));
      wide = std::min(wide, TimeOnce(num_tokens, true));
    }
    return narrow < wide;
  }

 private:
  double TimeOnce(int num_tokens, bool wide) const {
    const int64_t num_rows = kWeightBytes / BytesOf(dtype_, kCols) / kRowsPerTask * kRowsPerTask;
    const size_t out_elems = static_cast<size_t>(num_tokens) * kRowsPerTask;
    std::vector<float> out(out_elems * static_cast<size_t>(pool_->num_threads()));
    const double start = Seconds();
    pool_->ParallelFor(num_rows / kRowsPerTask, [&](int64_t task, int worker) {
      float* rows[kMaxTokens];
      for (int t = 0; t < num_tokens; ++t) {
        rows[t] =
            &out[static_cast<size_t>(worker) * out_elems + static_cast<size_t>(t) * kRowsPerTask];
      }
      const PanelDotArgs args = {.panels = static_cast<const uint8_t*>(weights_.data()),
                                 .k = kCols,
                                 .first_row = task * kRowsPerTask,
                                 .last_row = (task + 1) * kRowsPerTask,
                                 .x = rows_.data(),
                                 .num_tokens = num_tokens,
                                 .out = rows,
                                 .next = nullptr,
                                 .wide_from = wide ? 1 : INT_MAX,
                                 .accumulate = false};
      kernels_.dot_panels[static_cast<int>(dtype_)](&args);
    });
    return Seconds() - start;
  }

  const CpuKernels& kernels_;
  WorkerPool* pool_;
  const DType dtype_;
  const Buffer& weights_;
  RoundedActivations x_;
  std::vector<const void*> rows_;
};

}  // namespace

absl::StatusOr<Calibration> CalibrateKernels(
    const std::string& isa, WorkerPool* pool,
    const std::function<void(absl::string_view)>& progress) {
  absl::StatusOr<const CpuKernels*> kernels = SelectKernels(isa);
  if (!kernels.ok()) return kernels.status();
  absl::StatusOr<Buffer> weights = AllocateHost(kWeightBytes);
  if (!weights.ok()) return weights.status();
  std::memset(weights->data(), 1, static_cast<size_t>(weights->bytes()));
  Calibration calibration;
  for (const WeightFormat& format : AllFormats()) {
    if (!IsQuantized(format.dtype)) continue;
    if (progress) progress(format.name);
    const FormatTimer timer(**kernels, pool, format.dtype, *weights);
    // The largest count at which narrow tiles still win ends their range.
    int& wide_from = calibration.wide_from[static_cast<size_t>(format.dtype)];
    wide_from = 1;
    for (int tokens : kTokenCounts) {
      if (timer.NarrowWins(tokens)) wide_from = tokens + 1;
    }
  }
  return calibration;
}

}  // namespace thermocline
