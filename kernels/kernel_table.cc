#include "kernels/kernel_table.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "kernels/quant/registry.h"

namespace thermocline {
namespace {

// What serves a format of a use.
std::string Served(const std::vector<KernelRow>& rows, KernelUse use, DType format) {
  const KernelRow* of_role[2] = {};
  for (const KernelRow& row : rows) {
    if (row.use == use && row.format == format) of_role[static_cast<size_t>(row.role)] = &row;
  }
  const KernelRow *prompt = of_role[static_cast<size_t>(TokenRole::kPrompt)],
                  *generated = of_role[static_cast<size_t>(TokenRole::kGenerated)];
  if (prompt == nullptr || generated == nullptr) return "";
  std::string text = prompt->kernel;
  if (generated->kernel != prompt->kernel) {
    absl::StrAppend(&text, " for prompts, ", generated->kernel, " for generated tokens");
  }
  if (!prompt->remark.empty()) absl::StrAppend(&text, " (", prompt->remark, ")");
  return text;
}

}  // namespace

absl::string_view NameOf(KernelUse use) {
  switch (use) {
    case KernelUse::kProduct:
      return "products";
    case KernelUse::kExperts:
      return "experts";
    case KernelUse::kAttention:
      return "attention";
  }
  return "?";
}

std::vector<std::string> Describe(const std::vector<KernelRow>& rows,
                                  const std::vector<DType>& products,
                                  const std::vector<DType>& experts, DType cache) {
  std::vector<std::string> lines;
  const auto describe = [&](KernelUse use, const std::vector<DType>& formats) {
    // In order of first appearance: how, and for which formats.
    std::vector<std::pair<std::string, std::vector<absl::string_view>>> alike;
    for (const DType format : formats) {
      const std::string how = Served(rows, use, format);
      if (how.empty()) continue;
      const auto same = std::find_if(alike.begin(), alike.end(),
                                     [&](const auto& entry) { return entry.first == how; });
      auto& entry = same != alike.end() ? *same : alike.emplace_back(how, 0);
      entry.second.push_back(GetFormat(format).name);
    }
    for (const auto& [how, names] : alike) {
      lines.push_back(absl::StrCat(NameOf(use), ", ", absl::StrJoin(names, " and "), ": ", how));
    }
  };
  describe(KernelUse::kProduct, products);
  describe(KernelUse::kExperts, experts);
  describe(KernelUse::kAttention, {cache});
  return lines;
}

}  // namespace thermocline
