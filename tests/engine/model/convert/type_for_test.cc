// Which type a tensor gets when a model is quantised.
#include <gtest/gtest.h>

#include "engine/model/convert/name_pattern.h"
#include "engine/model/convert/quantize_model.h"
#include "kernels/quant/registry.h"

namespace thermocline {
namespace {

constexpr DType kQ4 = DType::kQ4_K, kQ5 = DType::kQ5_K, kQ6 = DType::kQ6_K;

DType Of(DType type, const std::string& name, int layer, int num_layers,
         std::vector<int64_t> shape = {512, 256}) {
  return TypeFor(type, /*pure=*/false, {name, std::move(shape), layer, num_layers, false});
}

// The first and last eighth of the layers, and of those between every third, the last of three.
TEST(TypeFor, MoreBitsGoToTheEndsAndEveryThirdLayerBetween) {
  const std::pair<int, std::string> layers[] = {
      {16, "++..+..+..+..+++"},  // eighths of 2
      {10, "+..+..+.++"},        // eighths of 1, the last from layer 70 / 8 = 8 on
      {8, "+..+..++"},
      {7, "..+..++"},  // no first eighth; 49 / 8 = 6
      {1, "+"}};
  for (const auto& [num_layers, more] : layers) {
    for (int l = 0; l < num_layers; ++l) {
      const DType expected = more[static_cast<size_t>(l)] == '+' ? kQ6 : kQ4;
      EXPECT_EQ(Of(kQ4, "blk.0.ffn_down.weight", l, num_layers), expected)
          << l << " of " << num_layers;
      EXPECT_EQ(Of(kQ4, "blk.0.attn_v.weight", l, num_layers), expected);
      EXPECT_EQ(Of(kQ4, "blk.0.ffn_up.weight", l, num_layers), kQ4);
    }
  }
}

TEST(TypeFor, EveryValueAndDownProjectionGetsMoreBitsAndNoOther) {
  for (const char* name : {"attn_v", "attn_v_b", "attn_qkv", "attn_kv_b", "ffn_down",
                           "ffn_down_exps", "ffn_down_shexp"}) {
    const std::string full = std::string("blk.0.") + name + ".weight";
    EXPECT_EQ(Of(kQ4, full, 0, 16), kQ6) << name;
    EXPECT_EQ(Of(kQ5, full, 0, 16), kQ6) << name;
    EXPECT_EQ(Of(kQ4, full, 2, 16), kQ4) << name;
    EXPECT_EQ(Of(kQ5, full, 2, 16), kQ5) << name;
    // Only the two types that are mixes.
    for (DType type : {DType::kQ4_0, DType::kQ8_0, kQ6, DType::kIQ4_NL})
      EXPECT_EQ(Of(type, full, 0, 16), type) << name;
    EXPECT_EQ(TypeFor(kQ4, /*pure=*/true, {full, {512, 256}, 0, 16, false}), kQ4) << name;
  }
  for (const char* name : {"attn_q", "attn_k", "attn_k_b", "attn_output", "attn_kv_a_mqa",
                           "attn_gate", "ffn_up", "ffn_gate", "ffn_up_exps", "ffn_gate_exps"}) {
    EXPECT_EQ(Of(kQ4, std::string("blk.0.") + name + ".weight", 0, 16), kQ4) << name;
  }
}

TEST(TypeFor, TheOutputAndATiedEmbeddingGetSixOrEightBits) {
  const auto of = [](DType type, const char* name, bool tied, bool pure = false) {
    return TypeFor(type, pure, {name, {512, 256}, -1, 16, tied});
  };
  for (DType type : {DType::kQ4_0, kQ4, kQ5, kQ6, DType::kIQ4_NL}) {
    EXPECT_EQ(of(type, "output.weight", false), kQ6);
    EXPECT_EQ(of(type, "token_embd.weight", true), kQ6);
    EXPECT_EQ(of(type, "token_embd.weight", false), type);
    EXPECT_EQ(of(type, "output.weight", false, /*pure=*/true), type);
  }
  for (DType type : {DType::kQ8_0, DType::kMXFP4}) {
    EXPECT_EQ(of(type, "output.weight", false), DType::kQ8_0);
    EXPECT_EQ(of(type, "token_embd.weight", true), DType::kQ8_0);
  }
  for (DType type : {DType::kF32, DType::kF16, DType::kBF16}) {
    EXPECT_EQ(of(type, "output.weight", false), type);
    EXPECT_EQ(of(type, "token_embd.weight", true), type);
  }
}

TEST(TypeFor, Mxfp4IsForExpertsOnly) {
  const std::vector<int64_t> experts = {8, 512, 256};
  EXPECT_EQ(Of(DType::kMXFP4, "blk.1.ffn_up_exps.weight", 1, 16, experts), DType::kMXFP4);
  EXPECT_EQ(Of(DType::kMXFP4, "blk.1.ffn_up_shexp.weight", 1, 16), DType::kQ8_0);
  EXPECT_EQ(Of(DType::kMXFP4, "token_embd.weight", -1, 16), DType::kQ8_0);
  EXPECT_EQ(Of(DType::kMXFP4, "blk.1.ffn_up_exps.weight", 1, 16, {8, 512, 48}), DType::kF16);
}

TEST(TypeFor, RowsThatBlocksDoNotFitGetATypeThatFits) {
  struct Case {
    DType wanted;
    int64_t cols;
    DType given;
  };
  const Case cases[] = {{kQ4, 256, kQ4},
                        {kQ4, 512, kQ4},
                        {kQ4, 255, DType::kF16},
                        {kQ4, 288, DType::kIQ4_NL},
                        {kQ4, 32, DType::kIQ4_NL},
                        {kQ4, 48, DType::kF16},
                        {kQ5, 288, DType::kQ8_0},
                        {kQ6, 288, DType::kQ8_0},
                        {kQ6, 48, DType::kF16},
                        {DType::kQ4_0, 32, DType::kQ4_0},
                        {DType::kQ4_0, 31, DType::kF16},
                        {DType::kQ8_0, 33, DType::kF16},
                        {DType::kBF16, 3, DType::kBF16}};
  for (const Case& c : cases) {
    for (bool pure : {true, false}) {
      EXPECT_EQ(TypeFor(c.wanted, pure, {"blk.2.attn_q.weight", {4, c.cols}, 2, 16, false}),
                c.given)
          << GetFormat(c.wanted).name << " " << c.cols;
    }
  }
  // The better type gives way too.
  EXPECT_EQ(Of(kQ4, "output.weight", -1, 16, {512, 288}), DType::kQ8_0);
  EXPECT_EQ(Of(kQ4, "blk.0.attn_v.weight", 0, 16, {512, 288}), DType::kQ8_0);
}

TEST(IsKeptInF32, VectorsNormsRoutersAndConvolutions) {
  struct Case {
    const char* name;
    std::vector<int64_t> shape;
    bool kept;
  };
  const Case cases[] = {{"blk.0.attn_q.weight", {512, 256}, false},
                        {"blk.0.attn_q.weight", {1, 512, 256}, false},
                        {"blk.0.attn_q.weight", {2, 2}, false},
                        {"blk.0.attn_q.weight", {256}, true},
                        {"blk.0.attn_q.weight", {1, 256}, true},
                        {"blk.0.attn_q.weight", {256, 1}, true},
                        {"blk.0.attn_q.bias", {512, 256}, true},
                        {"blk.0.ssm_a", {512, 256}, true},
                        {"blk.0.attn_norm.weight", {512, 256}, true},
                        {"blk.0.ffn_gate_inp.weight", {64, 256}, true},
                        {"blk.0.ssm_conv1d.weight", {256, 4}, true},
                        {"blk.0.shortconv.conv.weight", {256, 3}, true},
                        {"blk.0.shortconv.in_proj.weight", {256, 64}, false},
                        {"blk.0.ffn_gate.weight", {256, 64}, false},
                        {"token_embd.weight", {256, 64}, false}};
  for (const Case& c : cases) {
    EXPECT_EQ(IsKeptInF32(c.name, c.shape), c.kept) << c.name << " " << c.shape.size();
    EXPECT_EQ(TypeFor(DType::kQ8_0, true, {c.name, c.shape, 0, 1, false}) == DType::kF32, c.kept);
  }
}

TEST(ParseQuantizedType, EveryTypeThatCanBeWrittenInAnyCase) {
  const std::pair<const char*, DType> names[] = {{"f32", DType::kF32},
                                                 {"F16", DType::kF16},
                                                 {"bf16", DType::kBF16},
                                                 {"q8_0", DType::kQ8_0},
                                                 {"Q4_0", DType::kQ4_0},
                                                 {"q4_k", kQ4},
                                                 {"q5_k", kQ5},
                                                 {"q6_k", kQ6},
                                                 {"iq4_nl", DType::kIQ4_NL},
                                                 {"mxfp4", DType::kMXFP4},
                                                 {"Q5_K_M", kQ5},
                                                 {"q4_k_m", kQ4},
                                                 {"MXFP4_MOE", DType::kMXFP4}};
  for (const auto& [name, type] : names) {
    ASSERT_TRUE(ParseQuantizedType(name).ok()) << name;
    EXPECT_EQ(*ParseQuantizedType(name), type) << name;
  }
  for (const char* name : {"", "q4", "q4_k_s", "q2_k", "i32", "_M", "q4_k_m_m"}) {
    const absl::Status status = ParseQuantizedType(name).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << name;
    EXPECT_NE(status.message().find("f32, f16, bf16, q8_0, q4_0, q4_k, q5_k, q6_k, iq4_nl, mxfp4"),
              std::string::npos)
        << status;
  }
}

TEST(NamePattern, MatchesWholeNames) {
  struct Case {
    const char *pattern, *name;
    bool matches;
  };
  const Case cases[] = {{"a.c", "abc", true},
                        {"a.c", "xabc", false},
                        {"a.c", "abcx", false},
                        {"a|abc", "abc", true},
                        {"", "", true},
                        {"", "a", false},
                        {".*_exps.*", "x_exps.w", true},
                        {"blk\\.[0-3]\\.q", "blk.3.q", true},
                        {"blk\\.[0-3]\\.q", "blk.4.q", false}};
  for (const Case& c : cases) {
    const auto pattern = NamePattern::Create(c.pattern);
    ASSERT_TRUE(pattern.ok()) << pattern.status();
    EXPECT_EQ(pattern->Matches(c.name), c.matches) << c.pattern << " " << c.name;
  }
  const absl::Status status = NamePattern::Create("ab(c").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(
      status.message().find("pattern \"ab(c\" fails at offset 4: missing closing parenthesis"),
      std::string::npos)
      << status;
}

}  // namespace
}  // namespace thermocline
