#include "kernels/cpu/weight_dot.h"

#include <algorithm>

#include "kernels/quant/blocks.h"

namespace thermocline {
namespace {

// Tokens whose rounded activations stay in the second-level cache while rows pass by.
constexpr int kTokensPerPass = 96;

}  // namespace

ActivationForm WeightDot::FormFor(const TensorView& weight) const {
  const int block_elems = GetFormat(weight.dtype).block_elems;
  if (activations_ == Activations::kF32 || block_elems == 1) return ActivationForm::kF32;
  return block_elems == kSuperBlockElems ? ActivationForm::kSuperInt8 : ActivationForm::kSmallInt8;
}

void WeightDot::Note(const TensorView& weight, FormsNeeded* needed) const {
  needed->small |= FormFor(weight) == ActivationForm::kSmallInt8;
  needed->super |= FormFor(weight) == ActivationForm::kSuperInt8;
}

const uint8_t* WeightDot::AddressOf(const TensorView& weight, int64_t row) {
  if (weight.layout == Layout::kRows) return weight.Row<const uint8_t>(row);
  const int64_t panel = (weight.first_row + row) / kPanelRows;
  return static_cast<const uint8_t*>(weight.data) +
         panel * PackedBytes(weight.dtype, kPanelRows, weight.cols());
}

void WeightDot::Run(const TensorView& weight, const TensorView& bias, int64_t first_row,
                    int64_t last_row, const TokenRows& tokens, const uint8_t* next,
                    float* const* out, WeightDotScratch* scratch) const {
  const int num_tokens = static_cast<int>(tokens.f32.size());
  const int dtype = static_cast<int>(weight.dtype);
  const ActivationForm form = FormFor(weight);
  const bool floats = weight.dtype == DType::kF16 || weight.dtype == DType::kBF16;
  if (form != ActivationForm::kF32 || floats) {
    TC_CHECK(weight.layout == Layout::kPanels);
    const void* const* x = floats                               ? tokens.f32.data()
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
                                 .wide_from = table_.wide_from[static_cast<size_t>(dtype)]};
      kernels_.dot_panels[dtype](&args);
    }
  } else {
    scratch->decoded.resize(static_cast<size_t>(weight.cols()));
    scratch->out.assign(out, out + num_tokens);
    for (int64_t r = first_row; r < last_row; ++r) {
      const uint8_t* stored = StoredRow(weight, r, &scratch->stored);
      const float* row = reinterpret_cast<const float*>(stored);
      if (weight.dtype != DType::kF32) {
        kernels_.decode_row[dtype](stored, weight.cols(), scratch->decoded.data());
        row = scratch->decoded.data();
      }
      kernels_.dot_f32(row, weight.cols(), tokens.f32.data(), num_tokens, scratch->out.data());
      for (float*& slot : scratch->out) ++slot;
    }
  }
  if (bias.empty()) return;
  for (int t = 0; t < num_tokens; ++t) {
    kernels_.axpy(bias.Row<float>(0) + first_row, 1.0f, last_row - first_row, out[t]);
  }
}

}  // namespace thermocline
