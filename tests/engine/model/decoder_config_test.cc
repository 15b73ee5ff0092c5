// What ReadDecoderConfig and its relatives make of a configuration: names, defaults, ranges, and
// which layers have experts, windows or a state.
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "engine/model/architectures/architectures.h"
#include "tests/support/config.h"

namespace thermocline {
namespace {

using nlohmann::json;

json Small() {
  return {{"hidden_size", 64},
          {"num_hidden_layers", 4},
          {"max_position_embeddings", 128},
          {"vocab_size", 100},
          {"num_attention_heads", 4},
          {"rms_norm_eps", 1e-5},
          {"num_experts", 8},
          {"num_experts_per_tok", 2},
          {"moe_intermediate_size", 32},
          {"n_group", 4},
          {"topk_group", 2},
          {"sliding_window", 7},
          {"num_key_value_heads", 2}};
}
json With(const json& more) {
  json config = Small();
  config.update(more);
  return config;
}
json Without(const char* key) {
  json config = Small();
  config.erase(key);
  return config;
}

DecoderConfig Read(Configured* configured) {
  DecoderConfig config = ReadDecoderConfig("x", configured->get(), {});
  ReadExperts(configured->get(), &config);
  return config;
}
DecoderConfig Read(const json& config) {
  Configured configured(config);
  const DecoderConfig read = Read(&configured);
  EXPECT_TRUE(configured->status().ok()) << configured->status();
  return read;
}
std::string ErrorOf(const json& config) {
  Configured configured(config);
  DecoderConfig read = Read(&configured);
  ReadRouteGroups(configured.get(), &read);
  return std::string(configured->status().message());
}
void ExpectError(const json& config, const std::string& part) {
  EXPECT_NE(ErrorOf(config).find(part), std::string::npos) << part << ": " << ErrorOf(config);
}

TEST(DecoderConfig, SizesAreTheFiles) {
  const DecoderConfig c = Read(Small());
  EXPECT_EQ(c.dims.architecture, "x");
  EXPECT_EQ(c.dims.hidden_size, 64);
  EXPECT_EQ(c.dims.num_hidden_layers, 4);
  EXPECT_EQ(c.dims.max_position_embeddings, 128);
  EXPECT_EQ(c.dims.vocab_size, 100);
  EXPECT_EQ(c.dims.num_experts, 8);
  EXPECT_EQ(c.dims.num_experts_per_tok, 2);
  EXPECT_EQ(c.norm_eps, 1e-5);
  EXPECT_EQ(c.attention.hidden_size, 64);
  EXPECT_EQ(c.attention.norm_eps, 1e-5);
  EXPECT_EQ(c.attention.num_heads, 4);
  EXPECT_EQ(c.attention.num_kv_heads, 2);
  EXPECT_EQ(c.moe.num_experts, 8);
  EXPECT_EQ(c.moe.route.top_k, 2);
  EXPECT_EQ(c.moe.intermediate_size, 32);
  EXPECT_EQ(c.layer_has_experts, std::vector<bool>(4, true));
}

TEST(DecoderConfig, WhatTheFileLeavesOutHasADefault) {
  const DecoderConfig c = Read(Without("num_key_value_heads"));
  EXPECT_EQ(c.attention.num_kv_heads, 4);  // one for each query head
  EXPECT_EQ(c.attention.head_dim, 16);     // hidden_size / heads
  EXPECT_EQ(c.attention.scale, 0.25);      // 1 / sqrt(head_dim)
  EXPECT_EQ(c.attention.rope.dim, 16);     // all of it turns
  EXPECT_EQ(c.intermediate_size, 1);
  EXPECT_TRUE(c.tie_word_embeddings);  // there is no head
  json config = Without("moe_intermediate_size");
  config["intermediate_size"] = 48;
  EXPECT_EQ(Read(config).moe.intermediate_size, 48);
  Configured narrow(With({{"hidden_size", 2}}));  // nothing of it could turn
  EXPECT_EQ(Read(&narrow).attention.head_dim, 1);
}

TEST(DecoderConfig, OtherNamesForTheSame) {
  const struct {
    const char *key, *other;
  } names[] = {{"num_hidden_layers", "num_layers"},
               {"max_position_embeddings", "model_max_length"},
               {"rms_norm_eps", "norm_eps"},
               {"rms_norm_eps", "layer_norm_eps"},
               {"num_experts", "num_local_experts"},
               {"num_experts", "n_routed_experts"},
               {"num_experts", "moe_num_experts"},
               {"num_experts_per_tok", "num_experts_per_token"},
               {"num_experts_per_tok", "moe_topk"},
               {"num_experts_per_tok", "moe_k"},
               {"moe_intermediate_size", "expert_ffn_hidden_size"}};
  for (const auto& name : names) {
    json config = Without(name.key);
    config[name.other] = Small()[name.key];
    EXPECT_EQ(ErrorOf(config), "") << name.other;
    EXPECT_EQ(Read(config).moe.intermediate_size, 32);
  }
  EXPECT_EQ(Read(With({{"head_dim", 8}})).attention.head_dim, 8);
  EXPECT_EQ(Read(With({{"attention_head_dim", 8}})).attention.scale, 1.0 / std::sqrt(8.0));
  EXPECT_EQ(Read(With({{"ffn_hidden_size", 9}})).intermediate_size, 9);
}

TEST(DecoderConfig, NumbersHaveTheirRange) {
  const struct {
    const char* key;
    int64_t min, max;
  } ranges[] = {{"hidden_size", 2, 1 << 24},
                {"num_hidden_layers", 1, 4096},
                {"max_position_embeddings", 1, int64_t{1} << 30},
                {"vocab_size", 1, 1 << 24},
                {"intermediate_size", 1, 1 << 24},
                {"num_attention_heads", 1, 1 << 14},
                {"num_key_value_heads", 1, 1 << 14},
                {"head_dim", 1, 1 << 12},
                {"rotary_dim", 2, 1 << 12},
                {"num_experts", 1, 1 << 14},
                {"num_experts_per_tok", 1, 1 << 14},
                {"moe_intermediate_size", 2, 1 << 24},
                {"n_group", 0, 8},
                {"topk_group", 1, 4}};
  for (const auto& range : ranges) {
    // Whether the number by itself is refused; other rules may speak of it too.
    const auto is_outside = [&](int64_t value) {
      const std::string error = ErrorOf(With({{range.key, value}}));
      const bool is_range = error.find("are allowed") != std::string::npos ||
                            error.find("or more is expected") != std::string::npos;
      return is_range && error.find(range.key) != std::string::npos &&
             error.find(absl::StrCat(" = ", value, ", but ")) != std::string::npos;
    };
    EXPECT_FALSE(is_outside(range.min)) << range.key;
    EXPECT_FALSE(is_outside(range.max)) << range.key;
    EXPECT_TRUE(is_outside(range.min - 1)) << range.key;
    EXPECT_TRUE(is_outside(range.max + 1)) << range.key;
  }
  for (const char* key :
       {"hidden_size", "num_hidden_layers", "max_position_embeddings", "vocab_size",
        "num_attention_heads", "rms_norm_eps", "num_experts", "num_experts_per_tok"}) {
    ExpectError(Without(key), "the model's configuration lacks ");
  }
}

TEST(DecoderConfig, SizesFitEachOther) {
  ExpectError(With({{"num_key_value_heads", 3}}), "is not a multiple of num_key_value_heads = 3");
  ExpectError(With({{"num_experts_per_tok", 9}}),
              "num_experts_per_tok = 9, but the model has num_experts = 8");
  EXPECT_EQ(ErrorOf(With({{"num_experts_per_tok", 8}, {"n_group", 1}})), "");
  // 4 groups of 2, of which 2 are used: 4 experts may be chosen.
  EXPECT_EQ(ErrorOf(With({{"num_experts_per_tok", 4}})), "");
  ExpectError(With({{"num_experts_per_tok", 5}}), "do not fit 8 experts of which 5 are chosen");
  ExpectError(With({{"n_group", 3}, {"topk_group", 3}}), "n_group = 3");
}

TEST(DecoderConfig, APartOfAHeadMayTurn) {
  EXPECT_EQ(Read(With({{"partial_rotary_factor", 0.5}})).attention.rope.dim, 8);
  EXPECT_EQ(Read(With({{"rope_parameters", {{"partial_rotary_factor", 0.25}}}})).attention.rope.dim,
            4);
  EXPECT_EQ(Read(With({{"rotary_dim", 6}})).attention.rope.dim, 6);
}

TEST(DecoderConfig, GroupsOfExperts) {
  const auto route = [](const json& config) {
    Configured configured(config);
    DecoderConfig read = Read(&configured);
    ReadRouteGroups(configured.get(), &read);
    EXPECT_TRUE(configured->status().ok());
    return read.moe.route;
  };
  EXPECT_EQ(route(Small()).num_groups, 4);
  EXPECT_EQ(route(Small()).top_k_groups, 2);
  EXPECT_EQ(route(Without("topk_group")).top_k_groups, 1);
  for (int n : {0, 1}) {
    EXPECT_EQ(route(With({{"n_group", n}})).num_groups, 1);
    EXPECT_EQ(route(With({{"n_group", n}})).top_k_groups, 1);
  }
  EXPECT_EQ(route(Without("n_group")).num_groups, 1);
  EXPECT_EQ(route(With({{"n_group", 8}})).num_groups, 8);
}

TEST(DecoderConfig, SigmoidRoutingByValue) {
  const auto route = [](const json& config, bool normalize) {
    Configured configured(config);
    DecoderConfig read = Read(&configured);
    ReadSigmoidRouting(configured.get(), normalize, &read);
    return read.moe.route;
  };
  const RouteArgs r = route(With({{"routed_scaling_factor", 2.5}}), true);
  EXPECT_EQ(r.score, RouteArgs::Score::kSigmoid);
  EXPECT_TRUE(r.normalize);
  EXPECT_TRUE(r.group_by_best_two);
  EXPECT_EQ(r.scale, 2.5f);
  EXPECT_EQ(r.normalize_eps, 1e-20f);
  EXPECT_EQ(route(Small(), false).scale, 1.0f);
  EXPECT_FALSE(route(Small(), false).normalize);
  EXPECT_FALSE(route(With({{"norm_topk_prob", false}}), true).normalize);
}

TEST(DecoderConfig, SharedExpertsAreAsWideAsTheirNumberSays) {
  const auto width = [](const json& config) {
    Configured configured(config);
    DecoderConfig read = Read(&configured);
    ReadSharedExperts(configured.get(), "n_shared_experts", &read);
    return configured->status().ok() ? read.moe.shared_intermediate_size : -1;
  };
  EXPECT_EQ(width(Small()), 0);
  EXPECT_EQ(width(With({{"n_shared_experts", 3}})), 96);
  EXPECT_EQ(width(With({{"n_shared_experts", 1024}})), 1024 * 32);
  EXPECT_EQ(width(With({{"n_shared_experts", 1025}})), -1);
  EXPECT_EQ(width(With({{"n_shared_experts", 1024}, {"moe_intermediate_size", 1 << 14}})), 1 << 24);
  EXPECT_EQ(width(With({{"n_shared_experts", 1024}, {"moe_intermediate_size", (1 << 14) + 1}})),
            -1);
}

TEST(DecoderConfig, LayersWithExperts) {
  const auto dense = [](const json& config) {
    Configured configured(config);
    DecoderConfig read = ReadDecoderConfig("x", configured.get(), {});
    ReadExperts(configured.get(), &read, AfterFirstDense(configured.get()));
    return read.layer_has_experts;
  };
  EXPECT_EQ(dense(Small()), (std::vector<bool>{true, true, true, true}));
  for (const char* key : {"first_k_dense_replace", "num_dense_layers", "moe_layer_start_index"})
    EXPECT_EQ(dense(With({{key, 3}})), (std::vector<bool>{false, false, false, true}));
  const auto steps = [](const json& config) {
    Configured configured(config);
    DecoderConfig read = ReadDecoderConfig("x", configured.get(), {});
    ReadExperts(configured.get(), &read, SparseSteps(configured.get()));
    return read.layer_has_experts;
  };
  EXPECT_EQ(steps(Small()), (std::vector<bool>{true, true, true, true}));
  EXPECT_EQ(steps(With({{"decoder_sparse_step", 2}})),
            (std::vector<bool>{false, true, false, true}));
  EXPECT_EQ(steps(With({{"decoder_sparse_step", 2}, {"mlp_only_layers", {1}}})),
            (std::vector<bool>{false, false, false, true}));
}

TEST(DecoderConfig, WindowsOfLayers) {
  const auto windows = [](const json& config, std::vector<int64_t> sliding) {
    Configured configured(config);
    const std::vector<int64_t> read = ReadWindows(configured.get(), 4, std::move(sliding));
    const auto recorded = configured->recorded().find("attention.sliding_window_pattern");
    // Noted for GGUF only where it is not what the architecture has anyway.
    EXPECT_EQ(recorded != configured->recorded().end(), config.count("layer_types") == 1);
    return read;
  };
  EXPECT_EQ(windows(Small(), {}), (std::vector<int64_t>{0, 0, 0, 0}));
  EXPECT_EQ(windows(Small(), {1, 0, 1, 0}), (std::vector<int64_t>{7, 0, 7, 0}));
  const json typed =
      With({{"layer_types", {"sliding_attention", "full_attention", "sliding_attention"}}});
  EXPECT_EQ(windows(typed, {0, 0, 0, 1}), (std::vector<int64_t>{7, 0, 7, 7}));
  EXPECT_EQ(windows(Without("sliding_window"), {1, 1, 1, 1}), (std::vector<int64_t>{0, 0, 0, 0}));
  Configured configured(typed);
  ReadWindows(configured.get(), 4, {});
  EXPECT_EQ(
      std::get<std::vector<int64_t>>(configured->recorded().at("attention.sliding_window_pattern")),
      (std::vector<int64_t>{1, 0, 1, 0}));
}

// Which layers keep a state of fixed size rather than keys and values.
std::vector<bool> HasState(const Model& model) {
  std::vector<bool> has;
  for (const MixerMemory& memory : model.dims().mixers) has.push_back(memory.state_elems > 0);
  return has;
}

json Qwen3Next(const json& more) {
  json config = With({{"linear_num_key_heads", 2},
                      {"linear_num_value_heads", 4},
                      {"linear_key_head_dim", 8},
                      {"linear_conv_kernel_dim", 4}});
  config.update(more);
  return config;
}

TEST(Qwen3NextConfig, EveryFourthLayerAttendsUnlessToldOtherwise) {
  const auto layers = [](const json& config) {
    Configured configured(config);
    const auto model = MakeQwen3Next(configured.get(), {});
    EXPECT_TRUE(configured->status().ok()) << configured->status();
    return HasState(*model);
  };
  EXPECT_EQ(layers(Qwen3Next(json::object())), (std::vector<bool>{true, true, true, false}));
  EXPECT_EQ(layers(Qwen3Next({{"full_attention_interval", 2}})),
            (std::vector<bool>{true, false, true, false}));
  EXPECT_EQ(layers(Qwen3Next({{"full_attention_interval", 1}})),
            (std::vector<bool>{false, false, false, false}));
  EXPECT_EQ(layers(Qwen3Next({{"layer_types", {"full_attention", "linear_attention"}}})),
            (std::vector<bool>{false, true, true, false}));
}

TEST(Qwen3NextConfig, HeadsOfTheDeltaNetFitEachOther) {
  const auto error = [](const json& config) {
    Configured configured(config);
    MakeQwen3Next(configured.get(), {});
    return std::string(configured->status().message());
  };
  EXPECT_EQ(error(Qwen3Next({{"linear_value_head_dim", 1}})), "");
  EXPECT_NE(error(Qwen3Next({{"linear_num_key_heads", 3}}))
                .find("is not a multiple of linear_num_key_heads = 3"),
            std::string::npos);
  EXPECT_NE(error(Qwen3Next({{"attention_bias", true}})).find("attention_bias"), std::string::npos);
  for (const auto& [key, min, max] : std::initializer_list<std::tuple<const char*, int, int>>{
           {"linear_num_key_heads", 1, 1 << 12},
           {"linear_num_value_heads", 1, 1 << 12},
           {"linear_key_head_dim", 1, 1 << 12},
           {"linear_value_head_dim", 1, 1 << 12},
           {"linear_conv_kernel_dim", 2, 64},
           {"full_attention_interval", 1, 1 << 12}}) {
    for (int value : {min - 1, max + 1})
      EXPECT_NE(error(Qwen3Next({{key, value}})).find(absl::StrCat(key, " = ", value, ", but ")),
                std::string::npos);
    for (int value : {min, max})
      EXPECT_EQ(error(Qwen3Next({{key, value}})).find(absl::StrCat(key, " = ", value, ", but ")),
                std::string::npos);
  }
}

TEST(Lfm2MoeConfig, LayerTypesSayWhereTheConvolutionsAre) {
  const auto make = [](const json& types, const json& more = json::object()) {
    json config = With({{"layer_types", types}, {"conv_L_cache", 3}});
    config.update(more);
    return config;
  };
  Configured configured(make({"conv", "full_attention", "conv", "conv"}));
  const auto model = MakeLfm2Moe(configured.get(), {});
  EXPECT_TRUE(configured->status().ok()) << configured->status();
  EXPECT_EQ(HasState(*model), (std::vector<bool>{true, false, true, true}));
  EXPECT_EQ(model->dims().mixers[0].state_elems, 2 * 64);  // the inputs before the kernel's last
  EXPECT_EQ(std::get<std::vector<int64_t>>(configured->recorded().at("attention.head_count_kv")),
            (std::vector<int64_t>{0, 2, 0, 0}));
  for (const auto& [config, part] : std::initializer_list<std::pair<json, const char*>>{
           {make({"conv"}), "layer_types has 1 entries, but the model has 4"},
           {make({"conv", "conv", "conv", "conv"}, {{"conv_bias", true}}), "conv_bias = true"},
           {make({"conv", "conv", "conv", "conv"}, {{"conv_L_cache", 1}}), "conv_L_cache = 1"},
           {make({"conv", "conv", "conv", "conv"}, {{"conv_L_cache", 1025}}),
            "conv_L_cache = 1025"}}) {
    Configured bad(config);
    MakeLfm2Moe(bad.get(), {});
    EXPECT_NE(bad->status().message().find(part), std::string::npos) << bad->status();
  }
}

// The shape in which a model declares the tensor of this name; empty without one.
std::vector<int64_t> DeclaredShape(Model* model, const std::string& hf_name) {
  TensorTable table;
  model->DeclareTensors(&table);
  for (const DenseTensor& tensor : table.dense) {
    if (tensor.name.hf.name == hf_name) return tensor.shape;
  }
  return {};
}

// Sizes that differ, where the reference checkpoints have equal ones.
TEST(DeclaredTensors, AreRowsByColumns) {
  Configured qwen(Qwen3Next({{"tie_word_embeddings", false}, {"linear_value_head_dim", 5}}));
  const auto next = MakeQwen3Next(qwen.get(), {});
  EXPECT_EQ(DeclaredShape(next.get(), "model.embed_tokens.weight"),
            (std::vector<int64_t>{100, 64}));
  EXPECT_EQ(DeclaredShape(next.get(), "model.layers.0.linear_attn.out_proj.weight"),
            (std::vector<int64_t>{64, 4 * 5}));
  EXPECT_EQ(DeclaredShape(next.get(), "model.layers.3.self_attn.o_proj.weight"),
            (std::vector<int64_t>{64, 64}));
  Configured latent(With({{"num_layers", 2},
                          {"kv_lora_rank", 24},
                          {"q_lora_rank", 20},
                          {"qk_rope_head_dim", 8},
                          {"qk_nope_head_dim", 8},
                          {"v_head_dim", 12},
                          {"intermediate_size", 48}}));
  const auto longcat = MakeLongcatFlash(latent.get(), {});
  ASSERT_TRUE(latent->status().ok()) << latent->status();
  for (const char* name : {"model.embed_tokens.weight", "lm_head.weight"}) {
    EXPECT_EQ(DeclaredShape(longcat.get(), name), (std::vector<int64_t>{100, 64})) << name;
  }
  EXPECT_EQ(DeclaredShape(longcat.get(), "model.layers.0.mlps.1.down_proj.weight"),
            (std::vector<int64_t>{64, 48}));
  EXPECT_EQ(DeclaredShape(longcat.get(), "model.layers.1.self_attn.0.o_proj.weight"),
            (std::vector<int64_t>{64, 4 * 12}));
}

// The layers whose experts' routers a model declares.
std::vector<bool> HasRouter(Model* model) {
  TensorTable table;
  model->DeclareTensors(&table);
  std::vector<bool> has(static_cast<size_t>(model->dims().num_hidden_layers), false);
  for (size_t l = 0; l < has.size(); ++l) {
    for (const DenseTensor& tensor : table.dense) {
      has[l] = has[l] || tensor.name.gguf.name == absl::StrCat("blk.", l, ".ffn_gate_inp.weight");
    }
  }
  return has;
}

TEST(Ernie45MoeConfig, ExpertsFromALayerToALayerAtAnInterval) {
  const auto layers = [](const json& more) {
    Configured configured(With(more));
    const auto model = MakeErnie45Moe(configured.get(), {});
    EXPECT_TRUE(configured->status().ok()) << configured->status();
    return HasRouter(model.get());
  };
  EXPECT_EQ(layers(json::object()), (std::vector<bool>{true, true, true, true}));
  EXPECT_EQ(layers({{"moe_layer_interval", 2}}), (std::vector<bool>{false, true, false, true}));
  EXPECT_EQ(layers({{"moe_layer_start_index", 1}, {"moe_layer_end_index", 2}}),
            (std::vector<bool>{false, true, true, false}));
  EXPECT_EQ(layers({{"moe_layer_end_index", 0}}), (std::vector<bool>{true, false, false, false}));
  EXPECT_EQ(layers({{"moe_layer_end_index", -1}}), (std::vector<bool>{true, true, true, true}));
}

}  // namespace
}  // namespace thermocline
