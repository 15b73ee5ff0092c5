// The CPU backend against the reference, and the numeric contract: threads, grouping and neighbours
// do not show.
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "kernels/backend.h"
#include "kernels/cpu/onednn_matmul.h"
#include "kernels/host_memory.h"

namespace thermocline {
namespace {

std::unique_ptr<Backend> Make(const std::string& name, int threads = 2,
                              Activations activations = Activations::kF32) {
  absl::StatusOr<std::unique_ptr<Backend>> backend =
      MakeBackend(name, {.num_threads = threads, .activations = activations, .isa = ""});
  EXPECT_TRUE(backend.ok()) << backend.status();
  return *std::move(backend);
}

struct Matrix {
  std::vector<float> values;
  TensorView view;
  Matrix(int64_t rows, int64_t cols, std::mt19937* random)
      : values(static_cast<size_t>(rows * cols)) {
    std::normal_distribution<float> normal;
    if (random != nullptr) {
      for (float& v : values) v = normal(*random);
    }
    view = MakeView(values.data(), DType::kF32, {rows, cols});
  }
};

TEST(MakeBackend, NamesTheKnownOnes) {
  const auto backend = MakeBackend("gpu", {});
  ASSERT_FALSE(backend.ok());
  EXPECT_NE(backend.status().message().find("reference, cpu"), std::string::npos);
}

TEST(MakeBackend, RefusesImpossibleThreadCounts) {
  EXPECT_FALSE(MakeBackend("cpu", {.num_threads = -1, .isa = ""}).ok());
  EXPECT_FALSE(MakeBackend("cpu", {.num_threads = 100000, .isa = ""}).ok());
}

TEST(CpuBackend, MatMulMatchesTheReferenceForBothRolesAndAnyNumberOfRows) {
  std::mt19937 random(3);
  const auto reference = Make("reference"), cpu = Make("cpu");
  // Small matrices stay with our kernels, large ones go to oneDNN for prompt tokens.
  for (const auto& [out_rows, k] : {std::pair<int64_t, int64_t>{33, 40}, {600, 256}}) {
    const Matrix weight(out_rows, k, &random), bias(1, out_rows, &random);
    for (int64_t n : {1, 2, 63, 64, 65, 130}) {
      const Matrix x(n, k, &random);
      Matrix expected(n, out_rows, nullptr), actual(n, out_rows, nullptr);
      std::vector<TokenRole> roles(static_cast<size_t>(n), TokenRole::kPrompt);
      for (size_t i = 0; i < roles.size(); i += 3) roles[i] = TokenRole::kGenerated;
      const TensorView bias_view = Reshape(bias.view, {out_rows});
      const Projection p = {weight.view, bias_view, expected.view},
                       q = {weight.view, bias_view, actual.view};
      reference->MatMul(x.view, roles, {&p, 1});
      cpu->MatMul(x.view, roles, {&q, 1});
      for (size_t i = 0; i < expected.values.size(); ++i)
        ASSERT_NEAR(actual.values[i], expected.values[i], 2e-4) << n << " " << i;
    }
  }
}

TEST(CpuBackend, ARowsProductDoesNotDependOnItsNeighboursOrTheThreads) {
  std::mt19937 random(4);
  const Matrix weight(600, 256, &random), x(130, 256, &random);
  ASSERT_TRUE(!OneDnnMatMul::Available() || OneDnnMatMul::Serves(weight.view, Activations::kF32));
  for (const TokenRole role : {TokenRole::kPrompt, TokenRole::kGenerated}) {
    Matrix together(130, 600, nullptr);
    const std::vector<TokenRole> roles(130, role);
    const Projection all = {weight.view, {}, together.view};
    Make("cpu", 2)->MatMul(x.view, roles, {&all, 1});
    const auto one_thread = Make("cpu", 1);
    for (int64_t n : {0, 1, 47, 48, 63, 64, 129}) {
      Matrix alone(1, 600, nullptr);
      TensorView row = x.view;
      row.data = x.view.Row<void>(n);
      row.shape[0] = 1;
      const Projection one = {weight.view, {}, alone.view};
      one_thread->MatMul(row, {&role, 1}, {&one, 1});
      for (int64_t r = 0; r < 600; ++r)
        ASSERT_EQ(alone.values[r], together.view.Row<float>(n)[r]) << "row " << n;
    }
  }
}

TEST(CpuBackend, ExpertsMatchTheReferenceAndAreTheSameInAnyGrouping) {
  std::mt19937 random(5);
  constexpr int64_t kHidden = 64, kWidth = 96, kTokens = 9;
  const Matrix gate(kWidth, kHidden, &random), up(kWidth, kHidden, &random),
      down(kHidden, kWidth, &random);
  const Matrix x(kTokens, kHidden, &random);
  std::vector<int32_t> rows, slots;
  for (int32_t n = 0; n < kTokens; ++n) {
    rows.push_back(n);
    slots.push_back(kTokens - 1 - n);
  }
  const ExpertWork whole = {gate.view, up.view, down.view, rows, slots};
  Matrix expected(kTokens, kHidden, nullptr), actual(kTokens, kHidden, nullptr),
      split(kTokens, kHidden, nullptr);
  Make("reference")->ExpertFfn(x.view, {&whole, 1}, expected.view);
  Make("cpu", 2)->ExpertFfn(x.view, {&whole, 1}, actual.view);
  const absl::Span<const int32_t> all_rows = rows, all_slots = slots;
  const ExpertWork parts[] = {
      {gate.view, up.view, down.view, all_rows.subspan(0, 2), all_slots.subspan(0, 2)},
      {gate.view, up.view, down.view, all_rows.subspan(2), all_slots.subspan(2)}};
  Make("cpu", 1)->ExpertFfn(x.view, parts, split.view);
  for (size_t i = 0; i < expected.values.size(); ++i) {
    ASSERT_NEAR(actual.values[i], expected.values[i], 1e-2);
    ASSERT_EQ(actual.values[i], split.values[i]);
  }
}

TEST(ReferenceBackend, RoutingBreaksTiesTowardsLowerIdsAndNormalisesAsAsked) {
  const auto backend = Make("reference");
  std::vector<float> logits = {1.0f, 3.0f, 3.0f, 0.0f}, weights(2);
  std::vector<int32_t> ids(2);
  const TensorView logits_view = MakeView(logits.data(), DType::kF32, {1, 4});
  const TensorView ids_view = MakeView(ids.data(), DType::kI32, {1, 2}),
                   weights_view = MakeView(weights.data(), DType::kF32, {1, 2});
  backend->RouteTopK(logits_view, {.top_k = 2, .softmax_before_top_k = true, .normalize = true},
                     ids_view, weights_view);
  EXPECT_EQ(ids, (std::vector<int32_t>{1, 2}));
  EXPECT_FLOAT_EQ(weights[0], 0.5f);
  backend->RouteTopK(logits_view, {.top_k = 2, .softmax_before_top_k = true, .normalize = false},
                     ids_view, weights_view);
  EXPECT_LT(weights[0], 0.5f);
  EXPECT_NEAR(weights[0], std::exp(3.0) / (std::exp(1.0) + 2 * std::exp(3.0) + 1.0), 1e-6);
  backend->RouteTopK(logits_view, {.top_k = 2, .softmax_before_top_k = false, .normalize = false},
                     ids_view, weights_view);
  EXPECT_FLOAT_EQ(weights[0], 0.5f);
}

TEST(AllocateHost, RefusesWhatDoesNotExist) {
  const auto buffer = AllocateHost(int64_t{1} << 60);
  ASSERT_FALSE(buffer.ok());
  EXPECT_EQ(buffer.status().code(), absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace thermocline
