// KernelRow: which kernel serves an operation on a format, for tokens of a role. A backend's rows
// are what its operations go by; they are printed at start.
#ifndef THERMOCLINE_KERNELS_KERNEL_TABLE_H_
#define THERMOCLINE_KERNELS_KERNEL_TABLE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "kernels/dtype.h"
#include "kernels/token_role.h"

namespace thermocline {

enum class KernelUse : uint8_t {
  kProduct,    // of a dense matrix; the format is the matrix's
  kExperts,    // likewise
  kAttention,  // the format is the cache's
};

struct KernelRow {
  KernelUse use = KernelUse::kProduct;
  DType format = DType::kF32;
  TokenRole role = TokenRole::kPrompt;
  std::string kernel;
  std::string remark;  // what else was built, measured, and not taken; may be empty
};

// "products", "experts", "attention".
absl::string_view NameOf(KernelUse use);

// For people, of the formats at hand: a line for those of a use that are served alike.
std::vector<std::string> Describe(const std::vector<KernelRow>& rows,
                                  const std::vector<DType>& products,
                                  const std::vector<DType>& experts, DType cache);

}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_KERNEL_TABLE_H_
