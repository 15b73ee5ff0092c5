// Every CPU kernel at every instruction-set level, against plain arithmetic, at sizes around the
// vector width.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>

#include "absl/strings/str_cat.h"
#include "engine/formats/float_tensor.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/onednn_matmul.h"
#include "kernels/cpu/rounded_activations.h"
#include "kernels/quant/blocks.h"
#include "kernels/quant/float_bits.h"
#include "kernels/quant/panels.h"
#include "kernels/quant/registry.h"
#include "tests/support/packed_weight.h"
#include "tests/support/test_name.h"

namespace thermocline {
namespace {

// The integer part of a dot product is exact; what is left is the rounding of a few f32 sums.
constexpr double kSumTolerance = 2e-5;
constexpr DType kQuantTypes[] = {DType::kQ4_0, DType::kQ4_1, DType::kQ5_0,   DType::kQ5_1,
                                 DType::kQ8_0, DType::kQ2_K, DType::kQ3_K,   DType::kQ4_K,
                                 DType::kQ5_K, DType::kQ6_K, DType::kIQ4_NL, DType::kIQ4_XS,
                                 DType::kMXFP4};

const CpuKernels& Kernels(const std::string& level) {
  const absl::StatusOr<const CpuKernels*> kernels = SelectKernels(level);
  EXPECT_TRUE(kernels.ok()) << kernels.status();
  return **kernels;
}

// Rows of random bits with tame scales: every f16 field of a block is set to a moderate number.
std::vector<uint8_t> RandomWeights(DType dtype, int64_t rows, int64_t k, std::mt19937* random) {
  const WeightFormat& format = GetFormat(dtype);
  std::vector<uint8_t> bytes(static_cast<size_t>(BytesOf(dtype, rows * k)));
  for (uint8_t& b : bytes) b = static_cast<uint8_t>((*random)());
  const auto set_half = [&](size_t block, size_t offset, float value) {
    const uint16_t half = FloatToHalf(value);
    std::memcpy(&bytes[block * static_cast<size_t>(format.block_bytes) + offset], &half, 2);
  };
  for (size_t b = 0; b < bytes.size() / static_cast<size_t>(format.block_bytes); ++b) {
    switch (dtype) {
      case DType::kQ4_1:
      case DType::kQ5_1:
      case DType::kQ4_K:
      case DType::kQ5_K:
        set_half(b, 0, 0.01f);
        set_half(b, 2, 0.02f);
        break;
      case DType::kQ2_K:
        set_half(b, 80, 0.01f);
        set_half(b, 82, 0.02f);
        break;
      case DType::kQ3_K:
        set_half(b, 108, 0.01f);
        break;
      case DType::kQ6_K:
        set_half(b, 208, 0.01f);
        break;
      case DType::kMXFP4:
        bytes[b * 17] = static_cast<uint8_t>(120 + bytes[b * 17] % 10);
        break;
      default:
        set_half(b, 0, 0.01f);
    }
  }
  return bytes;
}

class KernelTest : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    if (!SelectKernels(GetParam()).ok()) GTEST_SKIP() << "this machine lacks " << GetParam();
  }
  const CpuKernels& kernels() { return Kernels(GetParam()); }
  std::mt19937 random_{7};
};

// Rows in panels, as the kernels read them.
std::vector<uint8_t> Pack(DType dtype, const std::vector<uint8_t>& rows, int64_t num_rows,
                          int64_t k) {
  std::vector<uint8_t> panels(static_cast<size_t>(PackedBytes(dtype, num_rows, k)));
  PackRows(dtype, rows.data(), num_rows, k, panels.data());
  return panels;
}

// Rounded tokens with what they are rounded from.
struct Tokens {
  RoundedActivations activations;
  std::vector<std::vector<float>> x, rounded;
  std::vector<const void*> rows;
};

void MakeTokens(const CpuKernels& kernels, bool small, int num_tokens, int64_t k,
                std::mt19937* random, Tokens* tokens) {
  const int64_t group = small ? kSmallBlockElems : kSuperBlockElems;
  tokens->activations.Reset({.small = small, .super = !small}, num_tokens, k);
  TokenRows rows;
  for (int t = 0; t < num_tokens; ++t) {
    const std::vector<float> x = RandomFloats(k, random);
    tokens->activations.Fill(kernels, t, x.data());
    std::vector<float> rounded(static_cast<size_t>(k));
    for (int64_t g = 0; g < k; g += group) {
      float max = 0.0f;
      for (int64_t i = g; i < g + group; ++i) max = std::max(max, std::fabs(x[i]));
      for (int64_t i = g; i < g + group; ++i) {
        rounded[i] = max / 127.0f * std::nearbyint(x[i] * (127.0f / max));
      }
    }
    tokens->activations.AppendTo(t, x.data(), &rows);
    tokens->x.push_back(x);
    tokens->rounded.push_back(rounded);
  }
  tokens->rows = small ? rows.small : rows.super;
}

// [tokens][last_row - first_row]
std::vector<std::vector<float>> DotPanels(const CpuKernels& kernels, DType dtype,
                                          const std::vector<uint8_t>& panels, int64_t k,
                                          int64_t first_row, int64_t last_row,
                                          const std::vector<const void*>& rows, int wide_from = 0) {
  std::vector<std::vector<float>> out(
      rows.size(), std::vector<float>(static_cast<size_t>(last_row - first_row), -1.0f));
  std::vector<float*> pointers;
  for (auto& o : out) pointers.push_back(o.data());
  const PanelDotArgs args = {
      panels.data(),   k,       first_row, last_row, rows.data(), static_cast<int>(rows.size()),
      pointers.data(), nullptr, wide_from, false};
  kernels.dot_panels[static_cast<int>(dtype)](&args);
  return out;
}

TEST_P(KernelTest, IntegerDotsEqualTheRoundedActivationsTimesTheDecodedWeights) {
  for (DType dtype : kQuantTypes) {
    const WeightFormat& format = GetFormat(dtype);
    const bool small = format.block_elems == kSmallBlockElems;
    const std::vector<int64_t> sizes =
        small ? std::vector<int64_t>{32, 64, 96, 576} : std::vector<int64_t>{256, 512, 768};
    for (int64_t k : sizes) {
      // Two panels and a part of one; tiles of every width.
      constexpr int kRows = 37, kTokens = 25;
      const std::vector<uint8_t> weights = RandomWeights(dtype, kRows, k, &random_);
      const std::vector<uint8_t> panels = Pack(dtype, weights, kRows, k);
      std::vector<float> decoded(static_cast<size_t>(kRows * k));
      format.decode(weights.data(), kRows * k / format.block_elems, decoded.data());
      Tokens tokens;
      MakeTokens(kernels(), small, kTokens, k, &random_, &tokens);
      const auto out = DotPanels(kernels(), dtype, panels, k, 0, kRows, tokens.rows);
      for (int t = 0; t < kTokens; ++t) {
        for (int r = 0; r < kRows; ++r) {
          double exact = 0.0, magnitude = 0.0;
          for (int64_t i = 0; i < k; ++i) {
            const double product = static_cast<double>(decoded[r * k + i]) * tokens.rounded[t][i];
            exact += product;
            magnitude += std::fabs(product);
          }
          ASSERT_NEAR(out[t][r], exact, kSumTolerance * magnitude)
              << format.name << " k " << k << " token " << t << " row " << r;
        }
      }
    }
  }
}

// The contract: the same bits for a row and a token whatever they are computed with, and at every
// instruction set.
TEST_P(KernelTest, IntegerDotsAreTheSameAloneAndTogetherAndAtEveryLevel) {
  for (DType dtype : kQuantTypes) {
    const bool small = GetFormat(dtype).block_elems == kSmallBlockElems;
    constexpr int kRows = 48;
    const int64_t k = small ? 160 : 512;
    const std::vector<uint8_t> panels =
        Pack(dtype, RandomWeights(dtype, kRows, k, &random_), kRows, k);
    for (int num_tokens = 1; num_tokens <= 26; ++num_tokens) {
      Tokens tokens;
      MakeTokens(Kernels("scalar"), small, num_tokens, k, &random_, &tokens);
      const auto scalar = DotPanels(Kernels("scalar"), dtype, panels, k, 0, kRows, tokens.rows);
      const auto all = DotPanels(kernels(), dtype, panels, k, 0, kRows, tokens.rows);
      ASSERT_EQ(all, scalar) << GetFormat(dtype).name << " tokens " << num_tokens;
      for (int wide_from : {1, 100}) {
        ASSERT_EQ(DotPanels(kernels(), dtype, panels, k, 0, kRows, tokens.rows, wide_from), all)
            << GetFormat(dtype).name << " tokens " << num_tokens << " wide from " << wide_from;
      }
      const auto part = DotPanels(kernels(), dtype, panels, k, 5, 35, tokens.rows);
      for (int t = 0; t < num_tokens; ++t) {
        ASSERT_EQ(part[t], std::vector<float>(all[t].begin() + 5, all[t].begin() + 35));
        const auto alone = DotPanels(kernels(), dtype, panels, k, 0, kRows, {tokens.rows[t]});
        ASSERT_EQ(alone[0], all[t]) << GetFormat(dtype).name << " tokens " << num_tokens;
      }
    }
  }
}

TEST_P(KernelTest, RoundsActivationsAlikeAtEveryLevel) {
  for (bool small : {false, true}) {
    const int64_t k = small ? 96 : 512;
    Tokens tokens, scalar;
    std::mt19937 same = random_;
    MakeTokens(kernels(), small, 3, k, &random_, &tokens);
    MakeTokens(Kernels("scalar"), small, 3, k, &same, &scalar);
    const size_t bytes = static_cast<size_t>(small ? k / kSmallBlockElems * sizeof(SmallRecord)
                                                   : k / kSuperBlockElems * sizeof(SuperRecord));
    for (size_t t = 0; t < 3; ++t) {
      ASSERT_EQ(std::memcmp(tokens.rows[t], scalar.rows[t], bytes), 0);
    }
  }
}

TEST_P(KernelTest, DecodedPanelsAreTheWeightsOfTheRegistry) {
  for (DType dtype : kQuantTypes) {
    const WeightFormat& format = GetFormat(dtype);
    const int64_t k = 3 * format.block_elems;
    const std::vector<uint8_t> weights = RandomWeights(dtype, kPanelRows, k, &random_);
    std::vector<float> expected(static_cast<size_t>(kPanelRows * k)), actual(expected.size());
    format.decode(weights.data(), kPanelRows * k / format.block_elems, expected.data());
    kernels().decode_panel[static_cast<int>(dtype)](Pack(dtype, weights, kPanelRows, k).data(), k,
                                                    actual.data());
    for (int64_t r = 0; r < kPanelRows; ++r) {
      for (int64_t i = 0; i < k; ++i) {
        ASSERT_EQ(actual[i * kPanelRows + r], expected[r * k + i])
            << format.name << " row " << r << " weight " << i;
      }
    }
  }
}

TEST_P(KernelTest, FloatPanelDotsAreRightAndTheSameAloneAndTogetherAndAtEveryLevel) {
  for (DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    const WeightFormat& format = GetFormat(dtype);
    for (int64_t k : {1, 2, 7, 31, 32, 33, 63, 64, 100, 576}) {
      constexpr int kRows = 37, kTokens = 26;
      const std::vector<uint8_t> weights = FromFloats(dtype, RandomFloats(kRows * k, &random_));
      const std::vector<uint8_t> panels = Pack(dtype, weights, kRows, k);
      std::vector<float> decoded(static_cast<size_t>(kRows * k));
      format.decode(weights.data(), kRows * k, decoded.data());
      std::vector<std::vector<float>> x;
      for (int t = 0; t < kTokens; ++t) {
        x.push_back(RandomFloats(k, &random_));
      }
      std::vector<const void*> rows;
      std::vector<std::vector<float>> alone;
      for (int t = 0; t < kTokens; ++t) {
        rows.push_back(x[t].data());
        alone.push_back(DotPanels(Kernels("scalar"), dtype, panels, k, 0, kRows, {rows[t]})[0]);
        for (int r = 0; r < kRows; ++r) {
          double exact = 0.0, magnitude = 0.0;
          for (int64_t i = 0; i < k; ++i) {
            const double product = static_cast<double>(decoded[r * k + i]) * x[t][i];
            exact += product;
            magnitude += std::fabs(product);
          }
          ASSERT_NEAR(alone[t][r], exact, 1e-6 * magnitude) << format.name << " k " << k;
        }
        for (int wide_from : {0, 1, 100}) {
          ASSERT_EQ(DotPanels(kernels(), dtype, panels, k, 0, kRows, rows, wide_from), alone)
              << format.name << " k " << k << " tokens " << t + 1 << " wide from " << wide_from;
        }
        const auto part = DotPanels(kernels(), dtype, panels, k, 5, 35, rows);
        ASSERT_EQ(part[t], std::vector<float>(alone[t].begin() + 5, alone[t].begin() + 35));
      }
    }
  }
}

TEST_P(KernelTest, SumsOfPiecesOfF32PanelsAreThoseOfTheWhole) {
  constexpr int64_t kRows = 16, kCols = 600, kPiece = 256;
  constexpr int kTokens = 14;
  const std::vector<float> w = RandomFloats(kRows * kCols, &random_),
                           x = RandomFloats(kTokens * kCols, &random_);
  const std::vector<uint8_t> panels = Pack(DType::kF32, FromFloats(DType::kF32, w), kRows, kCols);
  std::vector<float> whole(kTokens * kRows), pieces(kTokens * kRows, -1.0f);
  const auto run = [&](int64_t first, int64_t count, std::vector<float>* sums) {
    std::vector<const void*> rows;
    std::vector<float*> out;
    for (int t = 0; t < kTokens; ++t) {
      rows.push_back(&x[t * kCols + first]);
      out.push_back(&(*sums)[t * kRows]);
    }
    const PanelDotArgs args = {.panels = &panels[4 * kPanelRows * first],
                               .k = count,
                               .first_row = 0,
                               .last_row = kRows,
                               .x = rows.data(),
                               .num_tokens = kTokens,
                               .out = out.data(),
                               .next = nullptr,
                               .wide_from = 0,
                               .accumulate = first > 0};
    kernels().dot_panels[static_cast<int>(DType::kF32)](&args);
  };
  run(0, kCols, &whole);
  for (int64_t k = 0; k < kCols; k += kPiece) run(k, std::min(kPiece, kCols - k), &pieces);
  ASSERT_EQ(pieces, whole);
}

// Whether or not this machine has the AMX tiles for which it is there. Where the library has no
// such product it says so, and nothing is thrown.
TEST(OneDnnMatMulTest, ReadsBfloat16PanelsOrRefuses) {
  constexpr int64_t kRows = 48, kCols = 96, kTokens = OneDnnMatMul::kTokensPerCall;
  std::mt19937 random(5);
  const std::vector<float> w = RandomFloats(kRows * kCols, &random),
                           x = RandomFloats(kTokens * kCols, &random);
  std::vector<uint8_t> panels = Pack(DType::kBF16, FromFloats(DType::kBF16, w), kRows, kCols);
  constexpr int64_t kFirst = 16, kCount = 32;
  std::vector<float> out(static_cast<size_t>(kTokens * kCount));
  RoundedActivations rounded_x;
  rounded_x.Reset({.bfloat16 = true}, kTokens, kCols);
  TokenRows rows;
  std::vector<float*> out_rows;
  for (int64_t t = 0; t < kTokens; ++t) {
    rounded_x.Fill(ScalarKernels(), t, &x[t * kCols]);
    rounded_x.AppendTo(t, &x[t * kCols], &rows);
    out_rows.push_back(&out[t * kCount]);
  }
  OneDnnMatMul matmul;
  const TensorView weight = MakeWeightView(panels.data(), DType::kBF16, kRows, kCols);
  const absl::Status ran =
      matmul.Run(weight, kFirst, kCount, rows.bfloat16.data(), kTokens, out_rows.data());
  if (!OneDnnMatMul::Available()) {
    EXPECT_EQ(ran.code(), absl::StatusCode::kInternal) << ran;
    return;
  }
  ASSERT_TRUE(ran.ok()) << ran;
  const auto rounded = [](float v) { return Bfloat16ToFloat(FloatToBfloat16(v)); };
  for (int64_t t = 0; t < kTokens; ++t) {
    for (int64_t r = 0; r < kCount; ++r) {
      double exact = 0.0, magnitude = 0.0;
      for (int64_t i = 0; i < kCols; ++i) {
        const double product =
            static_cast<double>(rounded(w[(kFirst + r) * kCols + i])) * rounded(x[t * kCols + i]);
        exact += product;
        magnitude += std::fabs(product);
      }
      ASSERT_NEAR(out[t * kCount + r], exact, 1e-5 * magnitude) << "token " << t << " row " << r;
    }
  }
}

TEST_P(KernelTest, SiluAndNormMatchTheFormula) {
  for (int64_t n : {1, 5, 16, 17, 48, 65}) {
    const std::vector<float> gate = RandomFloats(n, &random_), up = RandomFloats(n, &random_);
    std::vector<float> out(static_cast<size_t>(n));
    kernels().silu_mul(gate.data(), up.data(), n, out.data());
    for (int64_t i = 0; i < n; ++i) {
      const double expected = gate[i] / (1.0 + std::exp(-static_cast<double>(gate[i]))) * up[i];
      ASSERT_NEAR(out[i], expected, 1e-6 * (1.0 + std::fabs(expected)));
    }
    kernels().swiglu_oai(gate.data(), up.data(), n, out.data());
    for (int64_t i = 0; i < n; ++i) {
      const double g = std::min(static_cast<double>(gate[i]), 7.0),
                   u = std::clamp(static_cast<double>(up[i]), -7.0, 7.0);
      const double expected = g / (1.0 + std::exp(-1.702 * g)) * (u + 1.0);
      ASSERT_NEAR(out[i], expected, 1e-6 * (1.0 + std::fabs(expected)));
    }
    kernels().rms_norm(gate.data(), up.data(), 1e-5f, n, out.data());
    double square = 0.0;
    for (float g : gate) square += static_cast<double>(g) * g;
    for (int64_t i = 0; i < n; ++i) {
      const double expected = gate[i] / std::sqrt(square / static_cast<double>(n) + 1e-5) * up[i];
      ASSERT_NEAR(out[i], expected, 1e-5 * (1.0 + std::fabs(expected)));
    }
  }
  // Beyond the limits only they count.
  const std::vector<float> high = {9.0f, 1e30f, -1e30f}, far = {-1e30f, 9.0f, 3.0f};
  std::vector<float> limited(3);
  kernels().swiglu_oai(high.data(), far.data(), 3, limited.data());
  const float seven = 7.0f / (1.0f + std::exp(-1.702f * 7.0f));
  EXPECT_NEAR(limited[0], seven * -6.0f, 1e-4f);
  EXPECT_NEAR(limited[1], seven * 8.0f, 1e-4f);
  EXPECT_NEAR(limited[2], 0.0f, 1e-4f);
  // Far out it must not overflow or turn into NaN.
  const std::vector<float> extreme = {-1e30f, -200.0f, -88.0f, 0.0f, 88.0f, 200.0f, 1e30f};
  const std::vector<float> ones(extreme.size(), 1.0f);
  std::vector<float> out(extreme.size());
  kernels().silu_mul(extreme.data(), ones.data(), static_cast<int64_t>(extreme.size()), out.data());
  for (size_t i = 0; i < out.size(); ++i) {
    ASSERT_NEAR(out[i], extreme[i] > 0 ? extreme[i] : 0.0f,
                1e-5f * std::max(1.0f, std::fabs(extreme[i] > 0 ? extreme[i] : 0.0f)))
        << extreme[i];
  }
}

TEST_P(KernelTest, AttentionMatchesSoftmaxOverTheStoredRowsWhereverTheyLie) {
  // 40 and 21: vectors and a tail. The values are the first columns of longer rows, as in latent
  // attention.
  constexpr int64_t kHeadDim = 40, kValueDim = 21, kBlock = 4, kHeads = 2;
  constexpr int kQueries = 3;
  for (DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    for (int64_t last : {0, 1, 15, 16, 17, 33}) {
      const int64_t num_blocks = 16, row_bytes = BytesOf(dtype, kHeadDim);
      std::vector<uint8_t> k_cache(static_cast<size_t>(num_blocks * kBlock * kHeads * row_bytes)),
          v_cache(k_cache.size());
      for (std::vector<uint8_t>* cache : {&k_cache, &v_cache}) {
        const std::vector<float> values =
            RandomFloats(num_blocks * kBlock * kHeads * kHeadDim, &random_);
        for (size_t i = 0; i < values.size(); ++i) {
          const uint16_t bits =
              dtype == DType::kF16 ? FloatToHalf(values[i]) : FloatToBfloat16(values[i]);
          if (dtype == DType::kF32) {
            std::memcpy(&(*cache)[4 * i], &values[i], 4);
          } else {
            std::memcpy(&(*cache)[2 * i], &bits, 2);
          }
        }
      }
      std::vector<int32_t> table = {3, 9, 0, 7, 12, 1, 5, 11, 2};
      const std::vector<float> q = RandomFloats(kQueries * kHeadDim, &random_);
      std::vector<float> scores(kQueries * 64), out(kQueries * kValueDim);
      const std::vector<float> sinks = RandomFloats(kQueries, &random_);
      const bool sink = last % 2 == 1;
      const int64_t first = last > 20 ? last - 9 : 0;  // a window
      AttendArgs args = {};
      args.q = q.data();
      args.num_heads = 1;
      args.group = kQueries;
      args.key_dim = kHeadDim;
      args.value_dim = kValueDim;
      args.k_cache = k_cache.data();
      args.v_cache = v_cache.data();
      args.cache_dtype = dtype;
      args.k_row_bytes = args.v_row_bytes = row_bytes;
      args.num_kv_heads = kHeads;
      args.head = 1;
      args.block_size = kBlock;
      args.block_table = table.data();
      args.first = first;
      args.last = last;
      args.sinks = sink ? sinks.data() : nullptr;
      args.scale = 0.25f;
      args.scores = scores.data();
      args.out = out.data();
      kernels().attend(&args);
      const auto row = [&](const std::vector<uint8_t>& cache, int64_t position) {
        const int64_t slot = table[position / kBlock] * kBlock + position % kBlock;
        std::vector<float> values(kHeadDim);
        GetFormat(dtype).decode(&cache[static_cast<size_t>((slot * kHeads + 1) * row_bytes)],
                                kHeadDim, values.data());
        return values;
      };
      for (int g = 0; g < kQueries; ++g) {
        std::vector<double> weights;
        double total = sink ? std::exp(static_cast<double>(sinks[static_cast<size_t>(g)])) : 0.0;
        for (int64_t p = first; p <= last; ++p) {
          double dot = 0.0;
          const std::vector<float> key = row(k_cache, p);
          for (int64_t i = 0; i < kHeadDim; ++i)
            dot += static_cast<double>(q[g * kHeadDim + i]) * key[i];
          weights.push_back(std::exp(0.25 * dot));
          total += weights.back();
        }
        for (int64_t i = 0; i < kValueDim; ++i) {
          double expected = 0.0;
          for (int64_t p = first; p <= last; ++p)
            expected += weights[p - first] / total * row(v_cache, p)[i];
          ASSERT_NEAR(out[g * kValueDim + i], expected, 1e-5)
              << GetFormat(dtype).name << " last " << last;
        }
      }
    }
  }
}

// A paged cache of random rows with what it holds, as f32.
struct RandomCache {
  RandomCache(DType type, int64_t dim, std::mt19937* random) : dtype(type), head_dim(dim) {
    const std::vector<float> x = RandomFloats(kBlocks * kBlockSize * kHeads * dim, random);
    bytes.resize(static_cast<size_t>(BytesOf(type, static_cast<int64_t>(x.size()))));
    values.resize(x.size());
    if (type == DType::kQ8_0) {
      Kernels("scalar").encode_row[static_cast<int>(type)](x.data(), static_cast<int64_t>(x.size()),
                                                           bytes.data());
    }
    for (size_t i = 0; i < x.size() && type != DType::kQ8_0; ++i) {
      const uint16_t bits = type == DType::kF16 ? FloatToHalf(x[i]) : FloatToBfloat16(x[i]);
      if (type == DType::kF32) {
        std::memcpy(&bytes[4 * i], &x[i], 4);
      } else {
        std::memcpy(&bytes[2 * i], &bits, 2);
      }
    }
    GetFormat(type).decode(
        bytes.data(), static_cast<int64_t>(x.size()) / GetFormat(type).block_elems, values.data());
  }
  const float* Row(const std::vector<int32_t>& table, int64_t position) const {
    const int64_t slot = table[position / kBlockSize] * kBlockSize + position % kBlockSize;
    return &values[static_cast<size_t>((slot * kHeads + 1) * head_dim)];
  }

  static constexpr int64_t kBlocks = 64, kBlockSize = 4, kHeads = 2;
  DType dtype;
  int64_t head_dim;
  std::vector<uint8_t> bytes;
  std::vector<float> values;
};

TEST_P(KernelTest, CacheRowsAreRoundedAlikeAtEveryLevelAndWithinHalfAStep) {
  const std::vector<float> x = RandomFloats(96, &random_);
  for (DType dtype : {DType::kF32, DType::kF16, DType::kBF16, DType::kQ8_0}) {
    const WeightFormat& format = GetFormat(dtype);
    std::vector<uint8_t> row(static_cast<size_t>(BytesOf(dtype, 96))), scalar(row.size());
    kernels().encode_row[static_cast<int>(dtype)](x.data(), 96, row.data());
    Kernels("scalar").encode_row[static_cast<int>(dtype)](x.data(), 96, scalar.data());
    ASSERT_EQ(row, scalar) << format.name;
    std::vector<float> decoded(96);
    format.decode(row.data(), 96 / format.block_elems, decoded.data());
    for (size_t i = 0; i < 96; ++i) {
      ASSERT_NEAR(decoded[i], x[i], dtype == DType::kQ8_0 ? 4.0f / 250.0f : 0.02f) << format.name;
    }
  }
  const std::vector<float> zeros(32, 0.0f);
  std::vector<uint8_t> row(34, 0xFF);
  kernels().encode_row[static_cast<int>(DType::kQ8_0)](zeros.data(), 32, row.data());
  EXPECT_EQ(row, std::vector<uint8_t>(34, 0));
}

TEST_P(KernelTest, TiledAttentionMatchesSoftmaxAndIsTheSameInEveryTile) {
  for (DType dtype : {DType::kF32, DType::kF16, DType::kBF16, DType::kQ8_0}) {
    // Vectors and a tail, or whole blocks.
    const bool blocks = dtype == DType::kQ8_0;
    const int64_t key_dim = blocks ? 64 : 40, value_dim = blocks ? 32 : 21;
    const RandomCache keys(dtype, key_dim, &random_), values(dtype, value_dim, &random_);
    std::vector<int32_t> table(RandomCache::kBlocks);
    for (size_t i = 0; i < table.size(); ++i) table[i] = static_cast<int32_t>((i * 37) % 64);
    for (bool windowed : {false, true}) {
      // Queries of neighbouring tokens, two heads each, around the borders of blocks of 64.
      std::vector<int64_t> first, last;
      for (int64_t position : {0, 1, 2, 15, 62, 63, 64, 65, 100, 127, 128, 200, 201, 202}) {
        for (int head = 0; head < 2; ++head) {
          last.push_back(position);
          first.push_back(windowed ? std::max<int64_t>(0, position - 40) : 0);
        }
      }
      const size_t n = last.size();
      const std::vector<float> q = RandomFloats(n * key_dim, &random_),
                               sinks = RandomFloats(n, &random_);
      const auto run = [&](size_t begin, size_t count) {
        std::vector<float> out(count * value_dim);
        std::vector<const float*> q_rows, sink_rows;
        std::vector<float*> out_rows;
        for (size_t i = 0; i < count; ++i) {
          q_rows.push_back(&q[(begin + i) * key_dim]);
          sink_rows.push_back(&sinks[begin + i]);
          out_rows.push_back(&out[i * value_dim]);
        }
        std::vector<float> scratch(static_cast<size_t>(kernels().attend_tile_scratch(
                                       static_cast<int64_t>(count), key_dim, value_dim)) +
                                   16);
        AttendTileArgs args = {};
        args.q = q_rows.data();
        args.num_queries = static_cast<int>(count);
        args.first = &first[begin];
        args.last = &last[begin];
        args.sinks = windowed ? sink_rows.data() : nullptr;
        args.out = out_rows.data();
        args.key_dim = key_dim;
        args.value_dim = value_dim;
        args.k_cache = keys.bytes.data();
        args.v_cache = values.bytes.data();
        args.cache_dtype = dtype;
        args.k_row_bytes = BytesOf(dtype, key_dim);
        args.v_row_bytes = BytesOf(dtype, value_dim);
        args.num_kv_heads = RandomCache::kHeads;
        args.head = 1;
        args.block_size = RandomCache::kBlockSize;
        args.block_table = table.data();
        args.scale = 0.25f;
        args.scratch = scratch.data();
        kernels().attend_tile(&args);
        return out;
      };
      const std::vector<float> together = run(0, n);
      for (size_t i = 0; i < n; ++i) {
        const std::vector<float> mine(together.begin() + i * value_dim,
                                      together.begin() + (i + 1) * value_dim);
        ASSERT_EQ(run(i, 1), mine) << "query " << i;
        const size_t some = std::min<size_t>(5, n - i);
        std::vector<float> scores(512), single(static_cast<size_t>(value_dim));
        AttendArgs one = {};
        one.q = &q[i * static_cast<size_t>(key_dim)];
        one.num_heads = one.group = 1;
        one.key_dim = key_dim;
        one.value_dim = value_dim;
        one.k_cache = keys.bytes.data();
        one.v_cache = values.bytes.data();
        one.cache_dtype = dtype;
        one.k_row_bytes = BytesOf(dtype, key_dim);
        one.v_row_bytes = BytesOf(dtype, value_dim);
        one.num_kv_heads = RandomCache::kHeads;
        one.head = 1;
        one.block_size = RandomCache::kBlockSize;
        one.block_table = table.data();
        one.first = first[i];
        one.last = last[i];
        one.sinks = windowed ? &sinks[i] : nullptr;
        one.scale = 0.25f;
        one.scores = scores.data();
        one.out = single.data();
        kernels().attend(&one);
        for (int64_t j = 0; j < value_dim; ++j) ASSERT_NEAR(single[j], mine[j], 1e-5);
        const std::vector<float> part = run(i, some);
        ASSERT_EQ(std::vector<float>(part.begin(), part.begin() + value_dim), mine);
        double total = windowed ? std::exp(static_cast<double>(sinks[i])) : 0.0;
        std::vector<double> expected(value_dim);
        for (int64_t p = first[i]; p <= last[i]; ++p) {
          double dot = 0.0;
          for (int64_t j = 0; j < key_dim; ++j) {
            dot += static_cast<double>(q[i * key_dim + j]) * keys.Row(table, p)[j];
          }
          const double weight = std::exp(0.25 * dot);
          total += weight;
          for (int64_t j = 0; j < value_dim; ++j) expected[j] += weight * values.Row(table, p)[j];
        }
        for (int64_t j = 0; j < value_dim; ++j) {
          ASSERT_NEAR(mine[j], expected[j] / total, 1e-5)
              << GetFormat(dtype).name << " query " << i << " windowed " << windowed;
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Isa, KernelTest, testing::Values("scalar", "avx2", "avx512"),
                         kNamedByItself);

TEST(IsaSelection, CanBeForcedAndRefusesWhatTheMachineLacks) {
  for (const std::string& level : AvailableIsaLevels()) EXPECT_EQ(Kernels(level).name, level);
  const auto missing = SelectKernels("sse9");
  ASSERT_FALSE(missing.ok());
  EXPECT_NE(missing.status().message().find("\"sse9\""), std::string::npos);
  EXPECT_NE(missing.status().message().find("scalar"), std::string::npos);
}

TEST(FloatBits, HalvesRoundTripAndRoundToEven) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const uint16_t half = static_cast<uint16_t>(bits);
    const float value = HalfToFloat(half);
    if (std::isnan(value)) continue;
    ASSERT_EQ(FloatToHalf(value), half);
  }
  EXPECT_EQ(FloatToHalf(1.0f + 1.0f / 2048.0f), FloatToHalf(1.0f));  // tie: to even
  EXPECT_EQ(FloatToHalf(1.0f + 3.0f / 2048.0f),
            FloatToHalf(1.0f + 2.0f / 1024.0f));  // tie: to even
  EXPECT_EQ(FloatToHalf(1e9f), 0x7C00);
  EXPECT_EQ(FloatToHalf(65519.0f), 0x7BFF);
}

}  // namespace
}  // namespace thermocline
