#include "kernels/cpu/weight_dot.h"

#include <algorithm>

#include "kernels/quant/blocks.h"

namespace thermocline {
namespace {

// Tokens whose rounded activations stay in the second-level cache while rows pass by.
constexpr int kTokensPerPass = 96;

// Whether its blocks are super-blocks.
bool IsSuper(const TensorView& weight) {
  return GetFormat(weight.dtype).block_elems == kSuperBlockElems;
}

}  // namespace

CpuKernel WeightDot::KernelFor(const TensorView& weight, TokenRole role) const {
  const CpuKernel kernel = table_.Serving(use_, weight.dtype, role);
  if (kernel != CpuKernel::kOneDnn || OneDnnMatMul::CanServe(weight)) return kernel;
  return table_.Serving(use_, weight.dtype, TokenRole::kGenerated);
}

void WeightDot::Note(const TensorView& weight, Forms* needed) const {
  for (const TokenRole role : {TokenRole::kPrompt, TokenRole::kGenerated}) {
    const CpuKernel kernel = KernelFor(weight, role);
    needed->bfloat16 |= kernel == CpuKernel::kOneDnn;
    if (kernel != CpuKernel::kInt8Panels) continue;
    (IsSuper(weight) ? needed->super : needed->small) = true;
  }
}

void WeightDot::RunDecoded(const TensorView& weight, int64_t first_row, int64_t last_row,
                           const TokenRows& tokens, float* const* out,
                           WeightDotScratch* scratch) const {
  constexpr int64_t kPiece = 256;  // weights a row: decoded, 16 rows stay in the first-level cache
  const auto decode = kernels_.decode_panel[static_cast<int>(weight.dtype)];
  const int num_tokens = static_cast<int>(tokens.f32.size());
  scratch->decoded.resize(static_cast<size_t>(kPanelRows * kPiece));
  scratch->x.resize(static_cast<size_t>(num_tokens));
  scratch->out.resize(static_cast<size_t>(num_tokens));
  for (int64_t r = first_row, end; r < last_row; r = end) {
    const int64_t in_panel = (weight.first_row + r) % kPanelRows;
    end = std::min(last_row, r - in_panel + kPanelRows);
    const uint8_t* panel = PanelOf(weight, r);
    for (int t = 0; t < num_tokens; ++t) scratch->out[t] = out[t] + (r - first_row);
    for (int64_t k = 0; k < weight.cols(); k += kPiece) {
      const int64_t count = std::min(kPiece, weight.cols() - k);
      const uint8_t* piece = panel + PackedBytes(weight.dtype, kPanelRows, k);
      decode(piece, count, scratch->decoded.data());
      for (int t = 0; t < num_tokens; ++t) {
        scratch->x[t] = static_cast<const float*>(tokens.f32[t]) + k;
      }
      const PanelDotArgs args = {
          .panels = reinterpret_cast<const uint8_t*>(scratch->decoded.data()),
          .k = count,
          .first_row = in_panel,
          .last_row = in_panel + end - r,
          .x = scratch->x.data(),
          .num_tokens = num_tokens,
          .out = scratch->out.data(),
          .next = piece + kPrefetchBytes,
          .wide_from = 0,
          .accumulate = k > 0};
      kernels_.dot_panels[static_cast<int>(DType::kF32)](&args);
    }
  }
}

void WeightDot::RunPanels(const TensorView& weight, int64_t first_row, int64_t last_row,
                          const std::vector<const void*>& tokens, const uint8_t* next,
                          float* const* out) const {
  const int num_tokens = static_cast<int>(tokens.size());
  const size_t dtype = static_cast<size_t>(weight.dtype);
  for (int t = 0; t < num_tokens; t += kTokensPerPass) {
    const PanelDotArgs args = {.panels = static_cast<const uint8_t*>(weight.data),
                               .k = weight.cols(),
                               .first_row = weight.first_row + first_row,
                               .last_row = weight.first_row + last_row,
                               .x = tokens.data() + t,
                               .num_tokens = std::min(kTokensPerPass, num_tokens - t),
                               .out = out + t,
                               .next = t + kTokensPerPass < num_tokens ? nullptr : next,
                               .wide_from = calibration_.wide_from[dtype],
                               .accumulate = false};
    kernels_.dot_panels[dtype](&args);
  }
}

bool WeightDot::RunOneDnn(const TensorView& weight, int64_t first_row, int64_t last_row,
                          const TokenRows& tokens, float* const* out,
                          WeightDotScratch* scratch) const {
  const int num_tokens = static_cast<int>(tokens.bfloat16.size());
  for (int t = 0; t < num_tokens; t += OneDnnMatMul::kTokensPerCall) {
    const int count = std::min(OneDnnMatMul::kTokensPerCall, num_tokens - t);
    const absl::Status ran = scratch->onednn.Run(weight, first_row, last_row - first_row,
                                                 tokens.bfloat16.data() + t, count, out + t);
    if (!ran.ok()) return false;
  }
  return true;
}

void WeightDot::Run(const TensorView& weight, const TensorView& bias, int64_t first_row,
                    int64_t last_row, TokenRole role, const TokenRows& tokens, const uint8_t* next,
                    float* const* out, WeightDotScratch* scratch) const {
  TC_CHECK(weight.layout == Layout::kPanels);
  switch (KernelFor(weight, role)) {
    case CpuKernel::kDecodedPanels:
      RunDecoded(weight, first_row, last_row, tokens, out, scratch);
      break;
    case CpuKernel::kInt8Panels:
      RunPanels(weight, first_row, last_row, IsSuper(weight) ? tokens.super : tokens.small, next,
                out);
      break;
    case CpuKernel::kOneDnn:
      if (RunOneDnn(weight, first_row, last_row, tokens, out, scratch)) break;
      [[fallthrough]];  // ours rounds otherwise, but it is right
    default:
      RunPanels(weight, first_row, last_row, tokens.f32, next, out);
  }
  if (bias.empty()) return;
  for (size_t t = 0; t < tokens.f32.size(); ++t) {
    kernels_.axpy(bias.Row<float>(0) + first_row, 1.0f, last_row - first_row, out[t]);
  }
}

}  // namespace thermocline
