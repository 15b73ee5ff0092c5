#include "kernels/cpu/weight_dot.h"

#include <algorithm>

#include "kernels/quant/blocks.h"

namespace thermocline {
namespace {

// Tokens whose rounded activations stay in the second-level cache while rows pass by.
constexpr int kTokensPerPass = 96;

}  // namespace

ActivationForm WeightDot::FormFor(const TensorView& weight) const {
  if (activations_ == Activations::kF32 || !IsQuantized(weight.dtype)) return ActivationForm::kF32;
  return GetFormat(weight.dtype).block_elems == kSuperBlockElems ? ActivationForm::kSuperInt8
                                                                 : ActivationForm::kSmallInt8;
}

void WeightDot::Note(const TensorView& weight, FormsNeeded* needed) const {
  needed->small |= FormFor(weight) == ActivationForm::kSmallInt8;
  needed->super |= FormFor(weight) == ActivationForm::kSuperInt8;
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

void WeightDot::Run(const TensorView& weight, const TensorView& bias, int64_t first_row,
                    int64_t last_row, const TokenRows& tokens, const uint8_t* next,
                    float* const* out, WeightDotScratch* scratch) const {
  const int num_tokens = static_cast<int>(tokens.f32.size());
  const int dtype = static_cast<int>(weight.dtype);
  const ActivationForm form = FormFor(weight);
  TC_CHECK(weight.layout == Layout::kPanels);
  if (form == ActivationForm::kF32 && IsQuantized(weight.dtype)) {
    RunDecoded(weight, first_row, last_row, tokens, out, scratch);
  } else {
    const void* const* x = form == ActivationForm::kF32         ? tokens.f32.data()
                           : form == ActivationForm::kSmallInt8 ? tokens.small.data()
                                                                : tokens.super.data();
    for (int t = 0; t < num_tokens; t += kTokensPerPass) {
      const PanelDotArgs args = {.panels = static_cast<const uint8_t*>(weight.data),
                                 .k = weight.cols(),
                                 .first_row = weight.first_row + first_row,
                                 .last_row = weight.first_row + last_row,
                                 .x = x + t,
                                 .num_tokens = std::min(kTokensPerPass, num_tokens - t),
                                 .out = out + t,
                                 .next = t + kTokensPerPass < num_tokens ? nullptr : next,
                                 .wide_from = table_.wide_from[static_cast<size_t>(dtype)],
                                 .accumulate = false};
      kernels_.dot_panels[dtype](&args);
    }
  }
  if (bias.empty()) return;
  for (int t = 0; t < num_tokens; ++t) {
    kernels_.axpy(bias.Row<float>(0) + first_row, 1.0f, last_row - first_row, out[t]);
  }
}

}  // namespace thermocline
