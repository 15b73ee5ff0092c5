#include "kernels/cpu/cpu_kernel_table.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "kernels/cpu/onednn_attention.h"
#include "kernels/cpu/onednn_matmul.h"
#include "kernels/quant/registry.h"

namespace thermocline {
namespace {

constexpr KernelUse kUses[] = {KernelUse::kProduct, KernelUse::kExperts, KernelUse::kAttention};
constexpr TokenRole kRoles[] = {TokenRole::kPrompt, TokenRole::kGenerated};

// What oneDNN can serve, and what share of our own kernel's speed it reached with 512 tokens on two
// cores of a Xeon that has AVX-512 and BF16, but not AMX (tests/bench/onednn_bench.cc).
struct OneDnnRow {
  KernelUse use;
  DType format;
  const char* measured;
};
constexpr OneDnnRow kOneDnnRows[] = {
    {KernelUse::kProduct, DType::kBF16, "0.71"},   {KernelUse::kExperts, DType::kBF16, "0.50"},
    {KernelUse::kAttention, DType::kF32, "0.86"},  {KernelUse::kAttention, DType::kF16, "0.79"},
    {KernelUse::kAttention, DType::kBF16, "0.50"}, {KernelUse::kAttention, DType::kQ8_0, "0.85"},
};

// oneDNN only where it was the faster one: for dense products, with AMX tiles.
bool IsFaster(KernelUse use) { return use == KernelUse::kProduct && OneDnnMatMul::HasTiles(); }

CpuKernel OwnKernel(KernelUse use, DType format, TokenRole role, Activations activations) {
  if (use == KernelUse::kAttention) {
    const bool stored = format == DType::kF32 || format == DType::kF16 || format == DType::kBF16 ||
                        format == DType::kQ8_0;
    if (!stored) return CpuKernel::kNone;
    return role == TokenRole::kPrompt ? CpuKernel::kTiles : CpuKernel::kRows;
  }
  if (format == DType::kI32) return CpuKernel::kNone;
  if (!IsQuantized(format)) return CpuKernel::kF32Panels;
  return activations == Activations::kF32 ? CpuKernel::kDecodedPanels : CpuKernel::kInt8Panels;
}

const char* NameOf(CpuKernel kernel) {
  switch (kernel) {
    case CpuKernel::kNone:
      return "none";
    case CpuKernel::kInt8Panels:
      return "panels with int8 activations";
    case CpuKernel::kF32Panels:
      return "panels with f32 activations";
    case CpuKernel::kDecodedPanels:
      return "decoded panels with f32 activations";
    case CpuKernel::kTiles:
      return "tiles";
    case CpuKernel::kRows:
      return "rows";
    case CpuKernel::kOneDnn:
      return "oneDNN with bf16 activations";
  }
  return "?";
}

}  // namespace

CpuKernelTable::CpuKernelTable(Activations activations, std::optional<bool> onednn) {
  for (const KernelUse use : kUses) {
    for (int f = 0; f < kNumDTypes; ++f) {
      for (const TokenRole role : kRoles) {
        const DType format = static_cast<DType>(f);
        kernels_[Index(use, format, role)] = OwnKernel(use, format, role, activations);
      }
    }
  }
  if (activations == Activations::kF32 || !OneDnnMatMul::Available()) return;
  for (const OneDnnRow& row : kOneDnnRows) {
    if (!onednn.value_or(IsFaster(row.use))) continue;
    kernels_[Index(row.use, row.format, TokenRole::kPrompt)] = CpuKernel::kOneDnn;
  }
}

bool CpuKernelTable::uses_onednn() const {
  return std::find(kernels_.begin(), kernels_.end(), CpuKernel::kOneDnn) != kernels_.end();
}

std::vector<KernelRow> CpuKernelTable::Rows() const {
  std::vector<KernelRow> rows;
  for (const KernelUse use : kUses) {
    for (int f = 0; f < kNumDTypes; ++f) {
      for (const TokenRole role : kRoles) {
        const DType format = static_cast<DType>(f);
        const CpuKernel kernel = Serving(use, format, role);
        if (kernel == CpuKernel::kNone) continue;
        KernelRow row = {use, format, role, NameOf(kernel), ""};
        for (const OneDnnRow& other : kOneDnnRows) {
          const bool loses = role == TokenRole::kPrompt && other.use == use &&
                             other.format == format && kernel != CpuKernel::kOneDnn;
          if (loses) row.remark = absl::StrCat("oneDNN: ", other.measured, " of its speed");
        }
        rows.push_back(row);
      }
    }
  }
  return rows;
}

}  // namespace thermocline
