// YaRN and LongRoPE as files describe them: factors, attention, and which context decides. And what
// latent attention makes of YaRN.
#include <gtest/gtest.h>

#include <cmath>

#include "engine/model/layers/mla.h"
#include "engine/model/layers/rope.h"
#include "tests/support/config.h"
#include "tests/support/model_bytes.h"
#include "tests/support/temporary_file.h"

namespace thermocline {
namespace {

using nlohmann::json;

RopeConfig Read(Configured* configured, int64_t max_positions, int64_t max_context = 0) {
  return ReadRope(configured->get(), 8, 8, max_positions, max_context);
}

Configured Yarn(json scaling) {
  scaling["rope_type"] = "yarn";
  return Configured(json{{"rope_scaling", scaling}});
}

constexpr double kE = 2.718281828459045;

// 0.1 ln(s) + 1 for a factor s beyond one, and 1 up to it.
TEST(Yarn, AttentionIsSharpenedOnlyBeyondAFactorOfOne) {
  for (const auto& [factor, expected] :
       {std::pair{kE, 1.1}, std::pair{kE * kE, 1.2}, std::pair{1.0, 1.0}, std::pair{0.5, 1.0},
        std::pair{0.01, 1.0}}) {
    Configured c = Yarn({{"factor", factor}, {"original_max_position_embeddings", 1024}});
    const RopeConfig rope = Read(&c, 4096);
    EXPECT_EQ(rope.scaling, RopeConfig::Scaling::kYarn);
    EXPECT_NEAR(rope.attention_factor, expected, 1e-12) << factor;
    EXPECT_EQ(rope.factor, factor);
    EXPECT_EQ(rope.softmax_mscale, 1.0);
  }
}

TEST(Yarn, WhatIsNotSaidFollowsFromTheRest) {
  Configured c = Yarn({{"original_max_position_embeddings", 1024}});
  RopeConfig rope = Read(&c, 4096);
  EXPECT_EQ(rope.factor, 4.0);  // 4096 / 1024
  EXPECT_EQ(rope.original_max_position_embeddings, 1024.0);
  EXPECT_EQ(rope.beta_fast, 32.0);
  EXPECT_EQ(rope.beta_slow, 1.0);
  EXPECT_TRUE(rope.truncate);
  EXPECT_EQ(std::get<std::string>(c->recorded().at("rope.scaling.type")), "yarn");
  // Without the original context it is the whole one, and the factor 1.
  Configured whole = Yarn({{"beta_fast", 16.0}, {"beta_slow", 2.0}, {"truncate", false}});
  rope = Read(&whole, 4096);
  EXPECT_EQ(rope.original_max_position_embeddings, 4096.0);
  EXPECT_EQ(rope.factor, 1.0);
  EXPECT_EQ(rope.beta_fast, 16.0);
  EXPECT_EQ(rope.beta_slow, 2.0);
  EXPECT_FALSE(rope.truncate);
  // The key may stand outside of the dictionary too.
  Configured outside(json{{"rope_scaling", {{"rope_type", "yarn"}, {"factor", 2.0}}},
                          {"original_max_position_embeddings", 512}});
  EXPECT_EQ(Read(&outside, 4096).original_max_position_embeddings, 512.0);
}

TEST(Yarn, GptOssDoesNotTruncateInGguf) {
  for (const auto& [name, truncate] : {std::pair{"gpt-oss", false}, std::pair{"deepseek2", true}}) {
    const std::string n = name;
    Configured g(Metadata{{"general.architecture", n},
                          {n + ".rope.scaling.type", std::string("yarn")},
                          {n + ".rope.scaling.factor", 4.0},
                          {n + ".rope.scaling.original_context_length", int64_t{1024}}});
    EXPECT_EQ(Read(&g, 4096).truncate, truncate) << name;
  }
}

// mscale / mscale_all_dim: 0.1 m ln(s) + 1 for each. With s = e: 1 + 0.1 m.
TEST(Yarn, TwoScalesDivideAndTheSecondGoesToTheSoftmax) {
  struct Case {
    json scales;
    double attention, softmax;
  };
  for (const Case& c :
       {Case{{{"mscale", 2.0}, {"mscale_all_dim", 2.0}}, 1.0, 1.2},
        Case{{{"mscale", 5.0}, {"mscale_all_dim", 2.0}}, 1.5 / 1.2, 1.2},
        Case{{{"mscale_all_dim", 2.0}}, 1.1, 1.2}, Case{{{"mscale", 5.0}}, 1.1, 1.0},
        Case{{{"attention_factor", 3.0}, {"mscale_all_dim", 2.0}}, 3.0, 1.2},
        Case{json::object(), 1.1, 1.0}}) {
    json scaling = c.scales;
    scaling["factor"] = kE;
    scaling["original_max_position_embeddings"] = 1024;
    Configured configured = Yarn(scaling);
    const RopeConfig rope = Read(&configured, 4096);
    EXPECT_NEAR(rope.attention_factor, c.attention, 1e-12) << scaling;
    EXPECT_NEAR(rope.softmax_mscale, c.softmax, 1e-12) << scaling;
    const auto& recorded = configured->recorded();
    EXPECT_EQ(recorded.count("rope.scaling.yarn_log_multiplier"),
              scaling.contains("mscale_all_dim"));
    if (scaling.contains("mscale_all_dim")) {
      EXPECT_NEAR(std::get<double>(recorded.at("rope.scaling.yarn_log_multiplier")), 0.2, 1e-12);
    }
    // The quotient is told only where it is not 1.
    const bool told = scaling.contains("attention_factor") || c.attention == 1.5 / 1.2;
    EXPECT_EQ(recorded.count("rope.scaling.yarn_attn_factor"), told) << scaling;
  }
}

TEST(Yarn, GgufTellsTheSecondScaleAsALogMultiplier) {
  const Metadata base = {{"x.rope.scaling.type", std::string("yarn")},
                         {"x.rope.scaling.factor", kE},
                         {"x.rope.scaling.original_context_length", int64_t{1024}}};
  Configured plain(base);
  RopeConfig rope = Read(&plain, 4096);
  EXPECT_NEAR(rope.attention_factor, 1.1, 1e-12);
  EXPECT_EQ(rope.softmax_mscale, 1.0);
  Metadata with = base;
  with["x.rope.scaling.yarn_log_multiplier"] = 0.2;
  Configured latent(with);
  rope = Read(&latent, 4096);
  EXPECT_EQ(rope.attention_factor, 1.0);
  EXPECT_NEAR(rope.softmax_mscale, 1.2, 1e-12);
  with["x.rope.scaling.yarn_attn_factor"] = 1.5;
  with["x.rope.scaling.yarn_beta_fast"] = 16.0;
  with["x.rope.scaling.yarn_beta_slow"] = 2.0;
  with["x.rope.scaling.yarn_truncate"] = false;
  Configured all(with);
  rope = Read(&all, 4096);
  EXPECT_EQ(rope.attention_factor, 1.5);
  EXPECT_EQ(rope.beta_fast, 16.0);
  EXPECT_EQ(rope.beta_slow, 2.0);
  EXPECT_FALSE(rope.truncate);
}

json LongRope() {
  return {{"type", "longrope"},
          {"long_factor", {5.0, 6.0, 7.0, 8.0}},
          {"short_factor", {1.0, 2.0, 3.0, 4.0}},
          {"original_max_position_embeddings", 16}};
}

// Up to the original context the short factors, beyond it the long ones.
TEST(LongRope, TheContextToBeServedDecides) {
  const std::vector<double> shorts = {1, 2, 3, 4}, longs = {5, 6, 7, 8};
  for (const auto& [max_positions, max_context, is_long] :
       {std::tuple{256, 15, false}, std::tuple{256, 16, false}, std::tuple{256, 17, true},
        std::tuple{256, 256, true}, std::tuple{256, 0, true},  // 0: as long as the model allows
        std::tuple{16, 0, false}, std::tuple{17, 0, true}}) {
    Configured c(json{{"rope_scaling", LongRope()}});
    const RopeConfig rope = Read(&c, max_positions, max_context);
    EXPECT_EQ(rope.scaling, RopeConfig::Scaling::kFactors);
    EXPECT_EQ(rope.divisors, is_long ? longs : shorts) << max_positions << " " << max_context;
    // Both sets go to GGUF, whichever is used here.
    EXPECT_EQ(c->recorded_tensors().at("rope_factors_long.weight"), longs);
    EXPECT_EQ(c->recorded_tensors().at("rope_factors_short.weight"), shorts);
    EXPECT_EQ(std::get<std::string>(c->recorded().at("rope.scaling.type")), "longrope");
  }
  json su = LongRope();
  su["type"] = "su";
  Configured c(json{{"rope_scaling", su}});
  EXPECT_EQ(Read(&c, 256).divisors, longs);
}

// sqrt(1 + ln(stretch) / ln(original)): 256 positions for 16 give sqrt(2).
TEST(LongRope, AttentionGrowsWithTheStretch) {
  const auto factor = [](const json& scaling, int64_t max_positions, int64_t max_context) {
    Configured c(json{{"rope_scaling", scaling}});
    const double value = Read(&c, max_positions, max_context).attention_factor;
    EXPECT_EQ(std::get<double>(c->recorded().at("rope.scaling.attn_factor")), value);
    return value;
  };
  EXPECT_NEAR(factor(LongRope(), 256, 256), std::sqrt(2.0), 1e-12);
  EXPECT_NEAR(factor(LongRope(), 256, 8), std::sqrt(2.0), 1e-12);
  EXPECT_EQ(factor(LongRope(), 16, 16), 1.0);
  EXPECT_EQ(factor(LongRope(), 8, 8), 1.0);
  json given = LongRope();
  given["attention_factor"] = 1.25;
  EXPECT_EQ(factor(given, 256, 256), 1.25);
  given["long_mscale"] = 1.5;
  given["short_mscale"] = 1.75;
  EXPECT_EQ(factor(given, 256, 256), 1.5);
  EXPECT_EQ(factor(given, 256, 16), 1.75);
}

TEST(LongRope, WithoutFactorsItIsAnError) {
  Configured c(json{{"rope_scaling", {{"type", "longrope"}}}});
  const RopeConfig rope = Read(&c, 256);
  EXPECT_NE(c->status().message().find("needs long_factor and short_factor"), std::string::npos);
  EXPECT_EQ(rope.divisors, (std::vector<double>{1, 1, 1, 1}));
}

// In GGUF the tensors alone say it.
TEST(LongRope, GgufHoldsTheFactorsAsTensors) {
  const TemporaryFile file("longrope.gguf");
  GgufBytes gguf;
  gguf.String("general.architecture", "x").U32("x.rope.scaling.original_context_length", 16);
  gguf.F32("x.rope.scaling.attn_factor", 1.5f);
  gguf.Tensor("rope_factors_long.weight", {4}, 0, 0)
      .Tensor("rope_factors_short.weight", {4}, 0, 32);
  std::string data = RawList<float>({5, 6, 7, 8});
  data.resize(32, '\0');
  WriteBytes(file.path(), gguf.File(data + RawList<float>({1, 2, 3, 4})));
  const auto checkpoint = Checkpoint::Open(file.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  for (int64_t context : {16, 17}) {
    ConfigReader reader(**checkpoint);
    const RopeConfig rope = ReadRope(&reader, 8, 8, 256, context);
    EXPECT_TRUE(reader.status().ok()) << reader.status();
    EXPECT_EQ(rope.divisors, context == 16 ? (std::vector<double>{1, 2, 3, 4})
                                           : (std::vector<double>{5, 6, 7, 8}));
    EXPECT_EQ(rope.attention_factor, 1.5);
  }
}

TEST(ReadRope, GgufHoldsLlama3sDivisorsAsATensor) {
  const TemporaryFile file("freqs.gguf");
  GgufBytes gguf;
  gguf.String("general.architecture", "x").Tensor("rope_freqs.weight", {4}, 0, 0);
  WriteBytes(file.path(), gguf.File(RawList<float>({1, 1, 4, 8})));
  const auto checkpoint = Checkpoint::Open(file.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  ConfigReader reader(**checkpoint);
  const RopeConfig rope = ReadRope(&reader, 8, 8, 256, 0);
  EXPECT_EQ(rope.scaling, RopeConfig::Scaling::kFactors);
  EXPECT_EQ(rope.divisors, (std::vector<double>{1, 1, 4, 8}));
}

json Latent() {
  return {{"num_attention_heads", 4}, {"kv_lora_rank", 32}, {"qk_rope_head_dim", 8},
          {"qk_nope_head_dim", 8},    {"v_head_dim", 12},   {"q_lora_rank", 24}};
}

// Heads of 16 elements: 1 / 4; YaRN's second scale of 1.2 enters squared.
TEST(ReadMla, YarnsScaleEntersTheSoftmaxSquared) {
  ModelDims dims;
  dims.hidden_size = 64;
  dims.max_position_embeddings = 4096;
  Configured plain(Latent());
  MlaConfig mla = ReadMla(plain.get(), dims, {});
  EXPECT_TRUE(plain->status().ok()) << plain->status();
  EXPECT_NEAR(mla.scale, 0.25, 1e-12);
  json scaled = Latent();
  scaled["rope_scaling"] = {{"type", "yarn"},
                            {"factor", kE},
                            {"mscale", 2.0},
                            {"mscale_all_dim", 2.0},
                            {"original_max_position_embeddings", 1024}};
  Configured yarn(scaled);
  mla = ReadMla(yarn.get(), dims, {});
  EXPECT_NEAR(mla.scale, 1.2 * 1.2 / 4.0, 1e-12);

  json stretched = Latent();
  stretched["rope_scaling"] = LongRope();
  for (const auto& [max_context, is_long] : {std::pair{0, true}, {16, false}, {17, true}}) {
    Configured c(stretched);
    ModelOptions options;
    options.max_context = max_context;
    EXPECT_EQ(ReadMla(c.get(), dims, options).rope.divisors,
              is_long ? (std::vector<double>{5, 6, 7, 8}) : (std::vector<double>{1, 2, 3, 4}));
  }
}

TEST(ReadMla, SizesAreTheFilesAndNotedForGguf) {
  ModelDims dims;
  dims.hidden_size = 64;
  dims.max_position_embeddings = 4096;
  Configured c(Latent());
  const MlaConfig mla = ReadMla(c.get(), dims, {.mla_form = MlaForm::kPlain});
  EXPECT_EQ(mla.form, MlaForm::kPlain);
  EXPECT_EQ(mla.hidden_size, 64);
  EXPECT_EQ(mla.num_heads, 4);
  EXPECT_EQ(mla.q_lora_rank, 24);
  EXPECT_EQ(mla.kv_lora_rank, 32);
  EXPECT_EQ(mla.rope_dim, 8);
  EXPECT_EQ(mla.nope_dim, 8);
  EXPECT_EQ(mla.value_dim, 12);
  EXPECT_TRUE(mla.rope.interleaved);
  EXPECT_FALSE(mla.legacy_kv_b);
  const auto number = [&](const char* key) { return std::get<int64_t>(c->recorded().at(key)); };
  EXPECT_EQ(number("attention.head_count_kv"), 1);
  EXPECT_EQ(number("attention.key_length"), 40);
  EXPECT_EQ(number("attention.value_length"), 32);
  EXPECT_EQ(number("attention.key_length_mla"), 16);
  EXPECT_EQ(number("attention.value_length_mla"), 12);
  // The cache holds a latent row a token, or keys and values of every head.
  EXPECT_EQ(MlaAttention(mla).memory().num_kv_heads, 4);
  EXPECT_EQ(MlaAttention(mla).memory().key_dim, 16);
  EXPECT_EQ(MlaAttention(mla).memory().value_dim, 12);
  EXPECT_FALSE(MlaAttention(mla).memory().latent);
  MlaConfig absorbed = mla;
  absorbed.form = MlaForm::kAbsorbed;
  EXPECT_EQ(MlaAttention(absorbed).memory().num_kv_heads, 1);
  EXPECT_EQ(MlaAttention(absorbed).memory().key_dim, 40);
  EXPECT_EQ(MlaAttention(absorbed).memory().value_dim, 32);
  EXPECT_TRUE(MlaAttention(absorbed).memory().latent);

  for (const auto& [key, min, max] :
       std::initializer_list<std::tuple<const char*, int, int>>{{"num_attention_heads", 1, 1 << 14},
                                                                {"q_lora_rank", 0, 1 << 16},
                                                                {"kv_lora_rank", 1, 1 << 16},
                                                                {"qk_rope_head_dim", 2, 1 << 12},
                                                                {"qk_nope_head_dim", 1, 1 << 12},
                                                                {"v_head_dim", 1, 1 << 12}}) {
    for (int value : {min - 1, min, max, max + 1}) {
      json config = Latent();
      config[key] = value;
      Configured read(config);
      (void)ReadMla(read.get(), dims, {});
      const std::string refusal = absl::StrCat(key, " = ", value, ", but ");
      EXPECT_EQ(read->status().message().find(refusal) != std::string::npos,
                value < min || value > max)
          << refusal;
    }
  }

  json halves = Latent();
  halves["rope_interleave"] = false;
  Configured refused(halves);
  (void)ReadMla(refused.get(), dims, {});
  EXPECT_NE(refused->status().message().find("rope_interleave"), std::string::npos);
}

TEST(ReadMla, GgufTellsKeysWithTheirRotatedPart) {
  ModelDims dims;
  dims.max_position_embeddings = 4096;
  Configured g(Metadata{{"x.attention.head_count", int64_t{4}},
                        {"x.attention.kv_lora_rank", int64_t{32}},
                        {"x.rope.dimension_count", int64_t{8}},
                        {"x.attention.key_length_mla", int64_t{24}},
                        {"x.attention.value_length_mla", int64_t{12}}});
  const MlaConfig mla = ReadMla(g.get(), dims, {});
  EXPECT_TRUE(g->status().ok()) << g->status();
  EXPECT_EQ(mla.nope_dim, 16);
  EXPECT_EQ(mla.value_dim, 12);
  EXPECT_EQ(mla.q_lora_rank, 0);
}

}  // namespace
}  // namespace thermocline
