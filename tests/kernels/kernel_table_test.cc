// Which kernel serves what, and how it is said.
#include "kernels/kernel_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/cpu/cpu_kernel_table.h"
#include "kernels/cpu/onednn_matmul.h"

namespace thermocline {
namespace {

using ::testing::ElementsAre;

TEST(DescribeTest, FormatsThatAreServedAlikeShareALine) {
  const auto row = [](KernelUse use, DType format, TokenRole role, const char* kernel,
                      const char* remark = "") {
    return KernelRow{use, format, role, kernel, remark};
  };
  const std::vector<KernelRow> rows = {
      row(KernelUse::kProduct, DType::kQ4_K, TokenRole::kPrompt, "A"),
      row(KernelUse::kProduct, DType::kQ4_K, TokenRole::kGenerated, "A"),
      row(KernelUse::kProduct, DType::kF32, TokenRole::kPrompt, "B"),
      row(KernelUse::kProduct, DType::kF32, TokenRole::kGenerated, "B"),
      row(KernelUse::kProduct, DType::kQ6_K, TokenRole::kPrompt, "A"),
      row(KernelUse::kProduct, DType::kQ6_K, TokenRole::kGenerated, "A"),
      row(KernelUse::kExperts, DType::kBF16, TokenRole::kPrompt, "C"),
      row(KernelUse::kExperts, DType::kBF16, TokenRole::kGenerated, "D"),
      row(KernelUse::kAttention, DType::kF16, TokenRole::kPrompt, "E", "F is slower"),
      row(KernelUse::kAttention, DType::kF16, TokenRole::kGenerated, "E")};
  EXPECT_THAT(
      Describe(rows, {DType::kQ4_K, DType::kF32, DType::kQ6_K}, {DType::kBF16}, DType::kF16),
      ElementsAre("products, Q4_K and Q6_K: A", "products, F32: B",
                  "experts, BF16: C for prompts, D for generated tokens",
                  "attention, F16: E (F is slower)"));
  EXPECT_THAT(Describe({}, {DType::kQ4_K}, {}, DType::kF16), ElementsAre());
}

TEST(CpuKernelTableTest, EveryFormatOfWeightsIsServedAndOneDnnOnlyPrompts) {
  for (const Activations activations : {Activations::kF32, Activations::kInt8}) {
    for (const bool onednn : {false, true}) {
      const CpuKernelTable table(activations, onednn);
      int num_onednn = 0;
      for (const KernelUse use : {KernelUse::kProduct, KernelUse::kExperts}) {
        for (int f = 0; f < kNumDTypes; ++f) {
          const DType format = static_cast<DType>(f);
          const CpuKernel generated = table.Serving(use, format, TokenRole::kGenerated);
          EXPECT_EQ(generated == CpuKernel::kNone, format == DType::kI32);
          EXPECT_NE(generated, CpuKernel::kOneDnn);
          num_onednn += table.Serving(use, format, TokenRole::kPrompt) == CpuKernel::kOneDnn;
        }
      }
      const bool used = onednn && activations == Activations::kInt8 && OneDnnMatMul::Available();
      EXPECT_EQ(num_onednn, used ? 2 : 0);
      EXPECT_EQ(table.uses_onednn(), used);
    }
  }
}

// What was measured and lost stands beside the row.
TEST(CpuKernelTableTest, RowsSayWhyOneDnnIsNotTaken) {
  for (const KernelRow& row : CpuKernelTable(Activations::kInt8, false).Rows()) {
    const bool experts_of_bf16_prompts = row.use == KernelUse::kExperts &&
                                         row.format == DType::kBF16 &&
                                         row.role == TokenRole::kPrompt;
    if (experts_of_bf16_prompts) {
      EXPECT_THAT(row.remark, testing::HasSubstr("oneDNN"));
    }
    if (row.role == TokenRole::kGenerated) {
      EXPECT_EQ(row.remark, "");
    }
  }
}

}  // namespace
}  // namespace thermocline
