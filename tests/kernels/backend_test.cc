// The CPU backend against the reference, and the numeric contract: threads, grouping and neighbours
// do not show.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "kernels/backend.h"
#include "kernels/cpu/onednn_matmul.h"
#include "kernels/host_memory.h"
#include "tests/support/packed_weight.h"
#include "tests/support/test_backend.h"
#include "tests/support/test_name.h"

namespace thermocline {
namespace {

std::unique_ptr<Backend> Make(const std::string& name, int threads = 2,
                              Activations activations = Activations::kF32) {
  BackendOptions options;
  options.activations = activations;
  return MakeTestBackend(name, threads, options);
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
  WorkerPool pool(1);
  const auto backend = MakeBackend("gpu", &pool, {});
  ASSERT_FALSE(backend.ok());
  EXPECT_NE(backend.status().message().find("reference, cpu"), std::string::npos);
}

TEST(CpuBackend, MatMulMatchesTheReferenceForBothRolesAndAnyNumberOfRows) {
  std::mt19937 random(3);
  const auto reference = Make("reference"), cpu = Make("cpu");
  for (const auto& [out_rows, k] : {std::pair<int64_t, int64_t>{33, 40}, {600, 256}}) {
    const PackedWeight weight(DType::kF32, out_rows, k, &random);
    const Matrix bias(1, out_rows, &random);
    for (int64_t n : {1, 2, 63, 64, 65, 130}) {
      const Matrix x(n, k, &random);
      Matrix expected(n, out_rows, nullptr), actual(n, out_rows, nullptr);
      std::vector<TokenRole> roles(static_cast<size_t>(n), TokenRole::kPrompt);
      for (size_t i = 0; i < roles.size(); i += 3) roles[i] = TokenRole::kGenerated;
      const TensorView bias_view = Reshape(bias.view, {out_rows});
      const Projection p = {weight.view, bias_view, expected.view},
                       q = {weight.view, bias_view, actual.view};
      reference->dense->MatMul(x.view, RolesView(roles), {&p, 1});
      cpu->dense->MatMul(x.view, RolesView(roles), {&q, 1});
      for (size_t i = 0; i < expected.values.size(); ++i)
        ASSERT_NEAR(actual.values[i], expected.values[i], 2e-4) << n << " " << i;
    }
  }
}

// With oneDNN, which serves the prompt tokens of one of the weights wherever it can, and without.
class OneDnnOnAndOff : public testing::TestWithParam<bool> {};

TEST_P(OneDnnOnAndOff, ARowsProductDoesNotDependOnItsNeighboursOrTheThreads) {
  std::mt19937 random(4);
  const Matrix x(130, 256, &random);
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const PackedWeight weight(dtype, 608, 256, &random);
    ASSERT_EQ(OneDnnMatMul::CanServe(weight.view),
              OneDnnMatMul::Available() && dtype == DType::kBF16);
    const auto make = [](int threads) {
      BackendOptions options;
      options.onednn = GetParam();
      return MakeTestBackend("cpu", threads, options);
    };
    for (const TokenRole role : {TokenRole::kPrompt, TokenRole::kGenerated}) {
      Matrix together(130, 608, nullptr), expected(130, 608, nullptr);
      const std::vector<TokenRole> roles(130, role);
      const Projection all = {weight.view, {}, together.view},
                       reference = {weight.view, {}, expected.view};
      make(2)->dense->MatMul(x.view, RolesView(roles), {&all, 1});
      Make("reference")->dense->MatMul(x.view, RolesView(roles), {&reference, 1});
      for (size_t i = 0; i < expected.values.size(); ++i) {
        // oneDNN rounds the tokens to bf16.
        ASSERT_NEAR(together.values[i], expected.values[i], dtype == DType::kF32 ? 2e-4 : 0.3);
      }
      const auto one_thread = make(1);
      for (int64_t n : {0, 1, 47, 48, 63, 64, 129}) {
        Matrix alone(1, 608, nullptr);
        TensorView row = x.view;
        row.data = x.view.Row<void>(n);
        row.shape[0] = 1;
        const Projection one = {weight.view, {}, alone.view};
        one_thread->dense->MatMul(row, RolesView({role}), {&one, 1});
        for (int64_t r = 0; r < 608; ++r)
          ASSERT_EQ(alone.values[r], together.view.Row<float>(n)[r]) << "row " << n;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, OneDnnOnAndOff, testing::Bool(),
                         [](const auto& info) { return info.param ? "on" : "off"; });

// An expert's prompt and generated tokens may have different kernels: each token keeps its own
// whoever is with it.
TEST_P(OneDnnOnAndOff, ARowOfAnExpertDependsOnItsRoleAlone) {
  std::mt19937 random(11);
  constexpr int64_t kHidden = 256, kWidth = 320, kTokens = 150;
  const PackedWeight gate(DType::kBF16, kWidth, kHidden, &random),
      up(DType::kBF16, kWidth, kHidden, &random), down(DType::kBF16, kHidden, kWidth, &random);
  ASSERT_EQ(OneDnnMatMul::CanServe(gate.view), OneDnnMatMul::Available());
  const Matrix x(kTokens, kHidden, &random), bias(1, kHidden, &random);
  ExpertJob job = {.weights = {.gate = gate.view,
                               .up = up.view,
                               .down = down.view,
                               .gate_bias = {},
                               .up_bias = {},
                               .down_bias = bias.view},
                   .rows = {},
                   .out_rows = {}};
  std::vector<TokenRole> roles;
  for (int32_t n = 0; n < kTokens; ++n) {
    roles.push_back(n % 3 == 0 ? TokenRole::kGenerated : TokenRole::kPrompt);
    job.rows.push_back(n);
    job.out_rows.push_back(n);
  }
  const auto run = [&](Backend* backend, const ExpertJob& of) {
    Matrix out(kTokens, kHidden, nullptr);
    RunExperts(backend, x.view, {of}, Activation::kSilu, out.view, roles);
    return out.values;
  };
  BackendOptions options;
  options.onednn = GetParam();
  const std::vector<float> together = run(MakeTestBackend("cpu", 2, options).get(), job);
  BackendOptions without;
  without.onednn = false;
  const std::vector<float> exact = run(MakeTestBackend("cpu", 2, without).get(), job);
  const auto one_thread = MakeTestBackend("cpu", 1, options);
  for (const int32_t n : {0, 1, 2, 75, 149}) {
    ExpertJob alone = job;
    alone.rows = alone.out_rows = {n};
    const std::vector<float> row = run(one_thread.get(), alone);
    bool same_as_exact = true;
    for (int64_t i = n * kHidden; i < (n + 1) * kHidden; ++i) {
      const size_t at = static_cast<size_t>(i);
      ASSERT_EQ(row[at], together[at]) << "token " << n;
      // bf16 sums of 256 and 320 products of normal numbers.
      ASSERT_NEAR(row[at], exact[at], GetParam() ? 0.03f * 16 * 256 : 0.0f) << "token " << n;
      same_as_exact &= row[at] == exact[at];
    }
    const bool onednn = GetParam() && OneDnnMatMul::Available();
    EXPECT_EQ(same_as_exact, !onednn || n % 3 == 0) << "token " << n;
  }
}

TEST(CpuBackend, ExpertsMatchTheReferenceAndAreTheSameInAnyGrouping) {
  std::mt19937 random(5);
  constexpr int64_t kHidden = 64, kWidth = 96, kTokens = 9;
  const PackedWeight gate(DType::kF32, kWidth, kHidden, &random),
      up(DType::kF32, kWidth, kHidden, &random), down(DType::kF32, kHidden, kWidth, &random);
  const Matrix x(kTokens, kHidden, &random);
  const Matrix width_bias(2, kWidth, &random), hidden_bias(1, kHidden, &random);
  ExpertJob whole = {.weights = {.gate = gate.view,
                                 .up = up.view,
                                 .down = down.view,
                                 .gate_bias = RowsOf(width_bias.view, 0, 1),
                                 .up_bias = RowsOf(width_bias.view, 1, 1),
                                 .down_bias = hidden_bias.view},
                     .rows = {},
                     .out_rows = {}};
  std::vector<ExpertJob> parts = {whole, whole};
  for (int32_t n = 0; n < kTokens; ++n) {
    for (ExpertJob* job : {&whole, &parts[n < 2 ? 0 : 1]}) {
      job->rows.push_back(n);
      job->out_rows.push_back(kTokens - 1 - n);
    }
  }
  for (const Activation activation : {Activation::kSilu, Activation::kSwigluOai}) {
    Matrix expected(kTokens, kHidden, nullptr), actual(kTokens, kHidden, nullptr),
        split(kTokens, kHidden, nullptr);
    RunExperts(Make("reference").get(), x.view, {whole}, activation, expected.view);
    RunExperts(Make("cpu", 2).get(), x.view, {whole}, activation, actual.view);
    RunExperts(Make("cpu", 1).get(), x.view, parts, activation, split.view);
    for (size_t i = 0; i < expected.values.size(); ++i) {
      ASSERT_NEAR(actual.values[i], expected.values[i], 1e-2);
      ASSERT_EQ(actual.values[i], split.values[i]);
    }
  }
}

// Weights of small and of super blocks want the tokens rounded in two ways.
TEST(CpuBackend, WeightsOfBothKindsMeetInOneProduct) {
  std::mt19937 random(10);
  constexpr int64_t kIn = 512, kOut = 32, kTokens = 3;
  const Matrix x(kTokens, kIn, &random);
  const PackedWeight small(DType::kQ4_0, kOut, kIn, &random),
      super(DType::kQ4_K, kOut, kIn, &random);
  const auto cpu = Make("cpu", 2, Activations::kInt8);
  const std::vector<TokenRole> roles(kTokens, TokenRole::kPrompt);
  for (const bool small_first : {true, false}) {
    Matrix together[2] = {Matrix(kTokens, kOut, nullptr), Matrix(kTokens, kOut, nullptr)};
    const Projection both[2] = {{(small_first ? small : super).view, {}, together[0].view},
                                {(small_first ? super : small).view, {}, together[1].view}};
    cpu->dense->MatMul(x.view, RolesView(roles), both);
    for (int i = 0; i < 2; ++i) {
      Matrix alone(kTokens, kOut, nullptr);
      const Projection one = {both[i].weight, {}, alone.view};
      // A backend of its own: nothing is left of another call.
      Make("cpu", 2, Activations::kInt8)->dense->MatMul(x.view, RolesView(roles), {&one, 1});
      EXPECT_EQ(together[i].values, alone.values) << small_first << i;
    }
  }
}

// The table of sines and cosines is kept from call to call, as long as everything in it is the
// same.
TEST(CpuBackend, RotationsFollowPositionsFrequenciesAndScale) {
  std::mt19937 random(11);
  constexpr int64_t kTokens = 3, kHeads = 2, kDim = 12;
  const auto cpu = Make("cpu"), reference = Make("reference");
  const Matrix x(kTokens * kHeads, kDim, &random);
  struct Call {
    std::vector<int32_t> positions;
    std::vector<float> inv_freq;
    float scale;
    bool interleaved;
  };
  const Call base = {{0, 5, 900}, {1.0f, 0.3f, 0.01f}, 1.0f, false};
  Call other_positions = base, other_frequencies = base, other_scale = base, pairs = base,
       fewer = base;
  other_positions.positions[2] = 901;
  other_frequencies.inv_freq[2] = 0.02f;
  other_scale.scale = 1.2f;
  pairs.interleaved = true;
  fewer.inv_freq.pop_back();
  for (Call call : {base, other_frequencies, base, other_positions, base, other_scale, base, pairs,
                    fewer, base}) {
    Matrix actual = x, expected = x;
    for (Matrix* m : {&actual, &expected}) {
      m->view.data = m->values.data();
      RopeArgs args;
      args.inv_freq =
          MakeView(call.inv_freq.data(), DType::kF32, {static_cast<int64_t>(call.inv_freq.size())});
      args.scale = call.scale;
      args.interleaved = call.interleaved;
      (m == &actual ? cpu : reference)
          ->dense->Rope(Reshape(m->view, {kTokens, kHeads, kDim}),
                        MakeView(call.positions.data(), DType::kI32, {kTokens}), args);
    }
    for (size_t i = 0; i < x.values.size(); ++i) {
      ASSERT_NEAR(actual.values[i], expected.values[i], 1e-5);
    }
  }
}

TEST(CpuBackend, ProductsByHeadMatchTheReferenceAndTheirSingleRows) {
  std::mt19937 random(6);
  constexpr int64_t kHeads = 3, kIn = 40, kOut = 70, kTokens = 5, kStride = 48;
  const PackedWeight weight(DType::kF32, kHeads * kOut, kIn, &random);
  const Matrix x(kTokens * kHeads, kStride, &random);
  TensorView strided = Reshape(x.view, {kTokens, kHeads, kStride});
  strided.shape[2] = kIn;  // the first columns of longer rows
  Matrix expected(kTokens * kHeads, kOut, nullptr), actual(kTokens * kHeads, kOut, nullptr),
      alone(kHeads, kOut, nullptr);
  const std::vector<TokenRole> roles(kTokens, TokenRole::kPrompt);
  const auto cpu = Make("cpu");
  Make("reference")
      ->dense->HeadMatMul(strided, RolesView(roles), weight.view,
                          Reshape(expected.view, {kTokens, kHeads, kOut}));
  cpu->dense->HeadMatMul(strided, RolesView(roles), weight.view,
                         Reshape(actual.view, {kTokens, kHeads, kOut}));
  for (size_t i = 0; i < expected.values.size(); ++i)
    ASSERT_NEAR(actual.values[i], expected.values[i], 1e-4);
  TensorView last = strided;
  last.data = strided.Row<void>((kTokens - 1) * kHeads);
  last.shape[0] = 1;
  cpu->dense->HeadMatMul(last, RolesView({roles[0]}), weight.view,
                         Reshape(alone.view, {1, kHeads, kOut}));
  for (size_t i = 0; i < alone.values.size(); ++i)
    ASSERT_EQ(alone.values[i], actual.values[(kTokens - 1) * kHeads * kOut + i]);
}

TEST(CpuBackend, LayerNormHasMeanZeroAndVarianceOneBeforeWeightAndBias) {
  std::mt19937 random(7);
  const Matrix x(700, 33, &random), weight(1, 33, &random), bias(1, 33, &random);
  Matrix out(700, 33, nullptr);
  Make("cpu")->dense->LayerNorm(x.view, weight.view, bias.view, 0.0f, out.view);
  for (int64_t n : {0, 1, 699}) {
    double mean = 0.0, variance = 0.0;
    for (int64_t i = 0; i < 33; ++i) mean += x.view.Row<float>(n)[i] / 33.0;
    for (int64_t i = 0; i < 33; ++i) variance += std::pow(x.view.Row<float>(n)[i] - mean, 2) / 33.0;
    for (int64_t i = 0; i < 33; ++i) {
      const double normal = (x.view.Row<float>(n)[i] - mean) / std::sqrt(variance);
      ASSERT_NEAR(out.view.Row<float>(n)[i], normal * weight.values[i] + bias.values[i], 1e-4);
    }
  }
}

// Two sequences of 7 and 5 tokens at slots 2 and 0, whole and cut into steps: the same outputs.
class StateTest : public testing::TestWithParam<const char*> {
 protected:
  static constexpr int64_t kTokens = 12;
  // Runs rows [begins[s], begins[s] + counts[s]) of each sequence with `op`.
  template <class Op>
  static void Step(std::vector<int32_t> begins, std::vector<int32_t> counts, TensorView state,
                   Op op) {
    const int32_t first_rows[] = {0, 7};
    std::vector<int32_t> slots = {2, 0}, cu = {0}, positions, rows;
    for (int s = 0; s < 2; ++s) {
      for (int32_t i = 0; i < counts[s]; ++i) {
        positions.push_back(begins[s] + i);
        rows.push_back(first_rows[s] + begins[s] + i);
      }
      cu.push_back(static_cast<int32_t>(positions.size()));
    }
    const int64_t n = static_cast<int64_t>(rows.size());
    op(rows, StateArgs{state, MakeView(slots.data(), DType::kI32, {2}),
                       MakeView(cu.data(), DType::kI32, {3}),
                       MakeView(positions.data(), DType::kI32, {n})});
  }
};

TEST_P(StateTest, ConvolutionsAreTheSameWholeAndInSteps) {
  std::mt19937 random(8);
  constexpr int64_t kChannels = 300, kKernel = 4;
  const auto backend = Make(GetParam());
  const Matrix x(kTokens, kChannels, &random), weight(kChannels, kKernel, &random);
  const auto run =
      [&](const std::vector<std::pair<std::vector<int32_t>, std::vector<int32_t>>>& steps) {
        Matrix out(kTokens, kChannels, nullptr), state(3, (kKernel - 1) * kChannels, &random);
        for (const auto& [begins, counts] : steps) {
          Step(begins, counts, state.view,
               [&](const std::vector<int32_t>& rows, const StateArgs& args) {
                 Matrix part(static_cast<int64_t>(rows.size()), kChannels, nullptr);
                 for (size_t i = 0; i < rows.size(); ++i)
                   std::copy_n(x.view.Row<float>(rows[i]), kChannels,
                               part.view.Row<float>(static_cast<int64_t>(i)));
                 backend->dense->CausalConv(part.view, weight.view, true, args);
                 for (size_t i = 0; i < rows.size(); ++i)
                   std::copy_n(part.view.Row<float>(static_cast<int64_t>(i)), kChannels,
                               out.view.Row<float>(rows[i]));
               });
        }
        return out.values;
      };
  const std::vector<float> whole = run({{{0, 0}, {7, 5}}});
  EXPECT_EQ(run({{{0, 0}, {1, 4}}, {{1, 4}, {1, 1}}, {{2, 5}, {5, 0}}}), whole);
  // Token 5 of the first sequence, by the formula.
  for (int64_t c : {int64_t{0}, kChannels - 1}) {
    double sum = 0.0;
    for (int64_t j = 0; j < kKernel; ++j)
      sum += static_cast<double>(weight.view.Row<float>(c)[j]) * x.view.Row<float>(2 + j)[c];
    EXPECT_NEAR(whole[static_cast<size_t>(5 * kChannels + c)], sum / (1.0 + std::exp(-sum)), 1e-5);
  }
}

TEST_P(StateTest, TheDeltaRuleRemembersAndIsTheSameWholeAndInSteps) {
  std::mt19937 random(9);
  constexpr int64_t kHeads = 4, kKeyHeads = 2, kKey = 8, kValue = 6;
  const auto backend = Make(GetParam());
  const Matrix q(kTokens, kKeyHeads * kKey, &random), k(kTokens, kKeyHeads * kKey, &random),
      v(kTokens, kHeads * kValue, &random), beta(kTokens, kHeads, &random),
      a(kTokens, kHeads, &random), dt_bias(1, kHeads, &random);
  Matrix a_scale(1, kHeads, nullptr);
  for (float& s : a_scale.values) s = -0.5f;
  const auto run =
      [&](const std::vector<std::pair<std::vector<int32_t>, std::vector<int32_t>>>& steps) {
        Matrix out(kTokens, kHeads * kValue, nullptr), state(3, kHeads * kKey * kValue, &random);
        for (const auto& [begins, counts] : steps) {
          Step(begins, counts, state.view,
               [&](const std::vector<int32_t>& rows, const StateArgs& args) {
                 const int64_t n = static_cast<int64_t>(rows.size());
                 const auto gather = [&](const Matrix& all) {
                   Matrix part(n, all.view.cols(), nullptr);
                   for (int64_t i = 0; i < n; ++i)
                     std::copy_n(all.view.Row<float>(rows[static_cast<size_t>(i)]), all.view.cols(),
                                 part.view.Row<float>(i));
                   return part;
                 };
                 const Matrix pq = gather(q), pk = gather(k), pv = gather(v), pb = gather(beta),
                              pa = gather(a);
                 Matrix part(n, kHeads * kValue, nullptr);
                 backend->dense->GatedDeltaRule({.q = Reshape(pq.view, {n, kKeyHeads, kKey}),
                                                 .k = Reshape(pk.view, {n, kKeyHeads, kKey}),
                                                 .v = Reshape(pv.view, {n, kHeads, kValue}),
                                                 .beta = pb.view,
                                                 .a = pa.view,
                                                 .a_scale = a_scale.view,
                                                 .dt_bias = dt_bias.view,
                                                 .state = args,
                                                 .out = Reshape(part.view, {n, kHeads, kValue})});
                 for (int64_t i = 0; i < n; ++i)
                   std::copy_n(part.view.Row<float>(i), kHeads * kValue,
                               out.view.Row<float>(rows[static_cast<size_t>(i)]));
               });
        }
        return out.values;
      };
  const std::vector<float> whole = run({{{0, 0}, {7, 5}}});
  EXPECT_EQ(run({{{0, 0}, {1, 4}}, {{1, 4}, {1, 1}}, {{2, 5}, {5, 0}}}), whole);
  // The first token: S = k (b v)^T, so out = (q.k) b v, with q and k of length one.
  double qk = 0.0, qq = 0.0, kk = 0.0;
  for (int64_t i = 0; i < kKey; ++i) {
    qk += static_cast<double>(q.values[i]) * k.values[i];
    qq += static_cast<double>(q.values[i]) * q.values[i];
    kk += static_cast<double>(k.values[i]) * k.values[i];
  }
  const double share = qk / std::sqrt(qq * kk * kKey) / (1.0 + std::exp(-beta.values[0]));
  for (int64_t j = 0; j < kValue; ++j) EXPECT_NEAR(whole[j], share * v.values[j], 1e-5);
}

INSTANTIATE_TEST_SUITE_P(Backends, StateTest, testing::Values("reference", "cpu"), kNamedByItself);

TEST(ReferenceBackend, CopiesMultipliesAndGatesStridedRows) {
  const auto backend = Make("reference");
  std::vector<float> x = {1, 2, 9, 3, 4, 9}, out(8, 0.0f), gate = {0.0f, 100.0f};
  TensorView rows = MakeView(x.data(), DType::kF32, {2, 1, 3});
  rows.shape[2] = 2;  // [2, 1, 2] of rows of 3
  backend->dense->CopyHeads(rows, MakeView(out.data(), DType::kF32, {2, 2, 2}));
  EXPECT_EQ(out, (std::vector<float>{1, 2, 1, 2, 3, 4, 3, 4}));
  const TensorView pairs = MakeView(out.data(), DType::kF32, {4, 2});
  backend->dense->Multiply(pairs, pairs, pairs);
  EXPECT_EQ(out, (std::vector<float>{1, 4, 1, 4, 9, 16, 9, 16}));
  TensorView first = RowsOf(pairs, 0, 2);
  backend->dense->SigmoidMul(MakeView(gate.data(), DType::kF32, {2, 1}), first);
  EXPECT_EQ(out, (std::vector<float>{0.5f, 2, 1, 4, 9, 16, 9, 16}));
}

TEST(ReferenceBackend, IdentityExpertsReturnTheirInputAndLeaveTheOthersAlone) {
  const auto backend = Make("reference");
  std::vector<float> x = {1, 2, 3, 4}, out(8, -1.0f);
  std::vector<int32_t> ids = {0, 5, 4, 3};
  backend->dense->IdentityExperts(MakeView(x.data(), DType::kF32, {2, 2}),
                                  MakeView(ids.data(), DType::kI32, {2, 2}), 4,
                                  MakeView(out.data(), DType::kF32, {4, 2}));
  EXPECT_EQ(out, (std::vector<float>{-1, -1, 1, 2, 3, 4, -1, -1}));
}

TEST(AllocateHost, RefusesWhatDoesNotExist) {
  const auto buffer = AllocateHost(int64_t{1} << 60);
  ASSERT_FALSE(buffer.ok());
  EXPECT_EQ(buffer.status().code(), absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace thermocline
