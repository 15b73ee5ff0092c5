// The operations of the CPU backend that cut their work into tasks: right, and the same bits with
// any number of threads. Also run under the thread sanitizer.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>

#include "kernels/backend.h"
#include "tests/support/packed_weight.h"
#include "tests/support/test_backend.h"
#include "tests/support/test_name.h"

namespace thermocline {
namespace {

std::unique_ptr<Backend> Make(const std::string& name, int threads, Activations activations) {
  BackendOptions options;
  options.activations = activations;
  return MakeTestBackend(name, threads, options);
}

TensorView View(std::vector<float>* values, std::initializer_list<int64_t> shape) {
  return MakeView(values->data(), DType::kF32, shape);
}

void ExpectNear(const std::vector<float>& actual, const std::vector<float>& expected,
                float tolerance) {
  float largest = 0.0f;
  for (float v : expected) largest = std::max(largest, std::fabs(v));
  for (size_t i = 0; i < actual.size(); ++i) {
    ASSERT_NEAR(actual[i], expected[i], tolerance * largest) << i;
  }
}

class ExpertFfnTest : public testing::TestWithParam<DType> {};

TEST_P(ExpertFfnTest, IsRightAndTheSameWithAnyNumberOfThreads) {
  // Widths that are no whole number of tasks; experts with one token, several, and many.
  constexpr int64_t kHidden = 512, kWidth = 256, kTokens = 40, kTopK = 2;
  constexpr int kExperts = 5;
  std::mt19937 random(5);
  std::vector<PackedWeight> gates, ups, downs;
  for (int e = 0; e < kExperts; ++e) {
    gates.emplace_back(GetParam(), kWidth, kHidden, &random);
    ups.emplace_back(GetParam(), kWidth, kHidden, &random);
    downs.emplace_back(DType::kQ8_0, kHidden, kWidth, &random);
  }
  std::vector<ExpertJob> work(kExperts);
  for (int32_t slot = 0; slot < kTokens * kTopK; ++slot) {
    const int e = slot == 7 ? 4 : slot % 4;
    work[static_cast<size_t>(e)].rows.push_back(slot / kTopK);
    work[static_cast<size_t>(e)].out_rows.push_back(slot);
  }
  for (size_t e = 0; e < kExperts; ++e) {
    work[e].weights.gate = gates[e].view;
    work[e].weights.up = ups[e].view;
    work[e].weights.down = downs[e].view;
  }
  std::vector<float> x = RandomFloats(kTokens * kHidden, &random);
  const auto run = [&](Backend* backend, const std::vector<ExpertJob>& experts) {
    std::vector<float> out(kTokens * kTopK * kHidden, 0.0f);
    RunExperts(backend, View(&x, {kTokens, kHidden}), experts, Activation::kSilu,
               View(&out, {kTokens * kTopK, kHidden}));
    return out;
  };
  const std::vector<float> expected = run(Make("reference", 1, Activations::kF32).get(), work);
  ExpectNear(run(Make("cpu", 3, Activations::kF32).get(), work), expected, 1e-5f);
  const auto one = Make("cpu", 1, Activations::kInt8), four = Make("cpu", 4, Activations::kInt8);
  const std::vector<float> alone = run(one.get(), work);
  ExpectNear(alone, expected, 0.05f);  // 8-bit activations
  for (int i = 0; i < 20; ++i) ASSERT_EQ(run(four.get(), work), alone) << "run " << i;
  // One expert at a time: the others' slots stay zero, its own are the same.
  const std::vector<float> part = run(four.get(), {work[1]});
  for (int32_t slot : work[1].out_rows) {
    ASSERT_EQ(std::memcmp(&part[static_cast<size_t>(slot) * kHidden],
                          &alone[static_cast<size_t>(slot) * kHidden], kHidden * sizeof(float)),
              0);
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, ExpertFfnTest,
                         testing::Values(DType::kQ4_0, DType::kQ4_K, DType::kQ6_K), kNamedByFormat);

TEST(PagedAttentionTest, PromptsAndGeneratedTokensTogetherMatchTheReference) {
  constexpr int64_t kHeads = 6, kKvHeads = 2, kDim = 48, kBlockSize = 4, kBlocks = 80;
  std::mt19937 random(9);
  std::vector<float> keys = RandomFloats(kBlocks * kBlockSize * kKvHeads * kDim, &random),
                     values = RandomFloats(kBlocks * kBlockSize * kKvHeads * kDim, &random);
  // Three sequences: 70 prompt tokens from position 30 on, one generated token, a prompt's start.
  std::vector<int32_t> seq_idx, positions, tables;
  std::vector<TokenRole> roles;
  const auto add = [&](int seq, int first, int count, TokenRole role) {
    for (int i = 0; i < count; ++i) {
      seq_idx.push_back(seq);
      positions.push_back(first + i);
      roles.push_back(role);
    }
  };
  add(0, 30, 70, TokenRole::kPrompt);
  add(1, 50, 1, TokenRole::kGenerated);
  add(2, 0, 9, TokenRole::kPrompt);
  constexpr int64_t kMaxBlocks = 25;
  for (int32_t seq = 0; seq < 3; ++seq) {
    for (int32_t b = 0; b < kMaxBlocks; ++b) tables.push_back((seq * 27 + b * 3 + 1) % kBlocks);
  }
  const int64_t n = static_cast<int64_t>(positions.size());
  std::vector<float> q = RandomFloats(n * kHeads * kDim, &random);
  for (int window : {0, 20}) {
    const auto run = [&](Backend* backend) {
      std::vector<float> out(static_cast<size_t>(n * kHeads * kDim));
      backend->dense->Attention(
          {.q = View(&q, {n, kHeads, kDim}),
           .roles = RolesView(roles),
           .k_cache = View(&keys, {kBlocks, kBlockSize, kKvHeads, kDim}),
           .v_cache = View(&values, {kBlocks, kBlockSize, kKvHeads, kDim}),
           .block_tables = MakeView(tables.data(), DType::kI32, {3, kMaxBlocks}),
           .seq_idx = MakeView(seq_idx.data(), DType::kI32, {n}),
           .positions = MakeView(positions.data(), DType::kI32, {n}),
           .sinks = {},
           .scale = 0.2f,
           .window = window,
           .out = View(&out, {n, kHeads, kDim})});
      EXPECT_TRUE(backend->device->Synchronize().ok());
      return out;
    };
    const std::vector<float> expected = run(Make("reference", 1, Activations::kF32).get());
    const std::vector<float> one = run(Make("cpu", 1, Activations::kF32).get());
    ExpectNear(one, expected, 1e-5f);
    const auto four = Make("cpu", 4, Activations::kF32);
    for (int i = 0; i < 20; ++i) ASSERT_EQ(run(four.get()), one) << "run " << i;
    BackendOptions onednn;
    onednn.onednn = true;
    const std::vector<float> theirs = run(MakeTestBackend("cpu", 1, onednn).get());
    ExpectNear(theirs, expected, 1e-5f);
    ASSERT_EQ(run(MakeTestBackend("cpu", 4, onednn).get()), theirs);
  }
}

TEST(RopeTest, TheTableFollowsPositionsAndFrequencies) {
  constexpr int64_t kTokens = 5, kHeads = 2, kDim = 12;
  std::mt19937 random(3);
  const auto cpu = Make("cpu", 4, Activations::kF32),
             reference = Make("reference", 1, Activations::kF32);
  for (int round = 0; round < 4; ++round) {
    std::vector<int32_t> positions;
    for (int i = 0; i < kTokens; ++i) positions.push_back(100 * (round / 2) + 7 * i);
    std::vector<float> inv_freq = RandomFloats(4, &random);  // 8 of the 12 elements turn
    for (float& f : inv_freq) f = std::fabs(f);
    for (bool interleaved : {false, true}) {
      std::vector<float> x = RandomFloats(kTokens * kHeads * kDim, &random), expected = x;
      const RopeArgs args = {.inv_freq = View(&inv_freq, {4}),
                             .scale = round == 3 ? 1.5f : 1.0f,
                             .interleaved = interleaved};
      const TensorView where = MakeView(positions.data(), DType::kI32, {kTokens});
      reference->dense->Rope(View(&expected, {kTokens, kHeads, kDim}), where, args);
      cpu->dense->Rope(View(&x, {kTokens, kHeads, kDim}), where, args);
      ExpectNear(x, expected, 1e-6f);
    }
  }
}

}  // namespace
}  // namespace thermocline
