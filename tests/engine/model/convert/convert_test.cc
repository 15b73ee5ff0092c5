// Hugging Face folder to GGUF: the converted file must answer like the folder.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "engine/formats/gguf_writer.h"
#include "engine/model/convert/convert.h"
#include "tests/support/golden_checks.h"
#include "tests/support/golden_folders.h"
#include "tests/support/temporary_file.h"
#include "tests/support/test_name.h"

namespace thermocline {
namespace {

class ConvertTest : public testing::TestWithParam<const char*> {};

TEST_P(ConvertTest, TheFileScoresLikeTheFolder) {
  const Golden golden = LoadGolden(GoldenPath(GetParam()));
  const TemporaryFile file(absl::StrCat(GetParam(), ".gguf"));
  ConvertOptions options;
  options.input = golden.path;
  options.output = file.path();
  const absl::Status converted = ConvertToGguf(options);
  ASSERT_TRUE(converted.ok()) << converted;
  const auto expected = MakeEngine(ExactOptions(golden.path, "reference")),
             actual = MakeEngine(ExactOptions(file.path(), "reference"));
  ASSERT_NE(expected, nullptr);
  ASSERT_NE(actual, nullptr);
  const ScoreOutput from_folder = Score(expected.get(), golden.prompt),
                    from_file = Score(actual.get(), golden.prompt);
  ASSERT_EQ(from_file.logits.size(), golden.prompt.size());
  const double largest = Largest(golden.logits.f32);
  for (size_t t = 0; t < golden.prompt.size(); ++t) {
    ASSERT_EQ(from_file.logits[t].size(), from_folder.logits[t].size());
    // Metadata are f32 where config.json has doubles; nothing else may differ.
    ASSERT_LE(MaxError(from_file.logits[t], from_folder.logits[t].data(), largest), 2e-6)
        << "token " << t;
  }
}

std::vector<const char*> ConvertibleFolders() {
  std::vector<const char*> folders;
  for (const char* folder : kGoldenFolders) {
    // GGUF does not know it.
    if (absl::string_view(folder) != "longcat_flash") folders.push_back(folder);
  }
  return folders;
}

INSTANTIATE_TEST_SUITE_P(All, ConvertTest, testing::ValuesIn(ConvertibleFolders()), kNamedByItself);

struct Recorded {
  const char *folder, *key;
  MetadataValue value;
};

// Some of it only other programs read: what our own reader takes from tensors, or knows.
TEST(Convert, WhatTheArchitectureFixesIsWrittenForOtherPrograms) {
  const Recorded all[] = {
      {"bailing_moe", "bailingmoe.expert_weights_scale", 1.0},
      {"bailing_moe", "bailingmoe.expert_shared_count", int64_t{2}},
      {"bailing_moe", "bailingmoe.expert_shared_feed_forward_length", int64_t{64}},
      {"bailing_moe", "bailingmoe.attention.key_length", int64_t{16}},
      {"bailing_moe", "bailingmoe.attention.value_length", int64_t{16}},
      {"bailing_moe_v2", "bailingmoe2.expert_gating_func", int64_t{2}},
      {"bailing_moe_v2", "bailingmoe2.expert_weights_norm", true},
      {"bailing_moe_v2", "bailingmoe2.expert_shared_feed_forward_length", int64_t{32}},
      {"deepseek_v2", "deepseek2.expert_gating_func", int64_t{1}},
      {"deepseek_v2", "deepseek2.expert_feed_forward_length", int64_t{32}},
      {"ernie4_5_moe", "ernie4_5-moe.interleave_moe_layer_step", int64_t{1}},
      // Not moe_intermediate_size: the reference takes the dense width.
      {"hunyuan_v1_moe", "hunyuan-moe.expert_feed_forward_length", int64_t{96}},
      {"hunyuan_v1_moe", "hunyuan-moe.expert_shared_feed_forward_length", int64_t{96}},
      {"lfm2_moe", "lfm2moe.attention.head_count_kv", std::vector<int64_t>{0, 0, 2, 0}},
      {"lfm2_moe", "lfm2moe.expert_gating_func", int64_t{2}},
      {"qwen2_moe", "qwen2moe.expert_weights_norm", false},
      {"qwen3_next", "qwen3next.ssm.inner_size", int64_t{64}},
      {"qwen3_next", "qwen3next.attention.recurrent_layers", std::vector<int64_t>{1, 1, 1, 0}},
  };
  for (const Recorded& recorded : all) {
    const TemporaryFile file("recorded.gguf");
    ConvertOptions options;
    options.input = GoldenPath(recorded.folder);
    options.output = file.path();
    ASSERT_TRUE(ConvertToGguf(options).ok()) << recorded.folder;
    const auto checkpoint = Checkpoint::Open(file.path());
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
    const auto found = (*checkpoint)->metadata().find(recorded.key);
    ASSERT_NE(found, (*checkpoint)->metadata().end()) << recorded.key;
    EXPECT_EQ(found->second, recorded.value) << recorded.key;
  }
}

TEST(Convert, RefusesWhatItCannotDoAndLeavesNothingBehind) {
  const std::string longcat = GoldenPath("longcat_flash"), llama = GoldenPath("llama3-rope");
  const TemporaryFile file("refused.gguf");
  ConvertOptions options;
  options.input = longcat;
  options.output = file.path();
  const absl::Status unknown = ConvertToGguf(options);
  EXPECT_EQ(unknown.code(), absl::StatusCode::kUnimplemented);
  EXPECT_NE(unknown.message().find("longcat_flash"), std::string::npos);
  EXPECT_FALSE(std::filesystem::exists(file.path()));
  EXPECT_FALSE(std::filesystem::exists(file.path() + ".partial"));

  options.input = llama;
  std::vector<std::string> warnings;
  options.warn = [&](const std::string& message) { warnings.push_back(message); };
  ASSERT_TRUE(ConvertToGguf(options).ok());
  EXPECT_EQ(warnings.size(), 1u);  // no tokenizer
  EXPECT_EQ(ConvertToGguf(options).code(), absl::StatusCode::kAlreadyExists);
  options.replace = true;
  EXPECT_TRUE(ConvertToGguf(options).ok());
  options.input = file.path();
  EXPECT_EQ(ConvertToGguf(options).code(), absl::StatusCode::kInvalidArgument);
}

// A folder of golden weights with one of the small tokenizers.
class ConvertTokenizerTest : public testing::TestWithParam<const char*> {};

TEST_P(ConvertTokenizerTest, TheFileCutsTextsLikeTheFolder) {
  const std::string tokenizer_folder =
      absl::StrCat(THERMOCLINE_SOURCE_DIR, "/tests/data/tokenizer/", GetParam());
  const TemporaryFile folder("folder"), file("tokenizer.gguf");
  std::filesystem::create_directory(folder.path());
  const std::string golden = GoldenPath("llama3-rope");
  for (const char* name : {"config.json", "model.safetensors"})
    std::filesystem::copy(golden + "/" + name, folder.path() + "/" + name);
  for (const char* name : {"tokenizer.json", "tokenizer_config.json"})
    std::filesystem::copy(tokenizer_folder + "/" + name, folder.path() + "/" + name);
  ConvertOptions options;
  options.input = folder.path();
  options.output = file.path();
  std::vector<std::string> warnings;
  options.warn = [&](const std::string& message) { warnings.push_back(message); };
  ASSERT_TRUE(ConvertToGguf(options).ok());
  const auto checkpoint = Checkpoint::Open(file.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const auto tokenizer = TokenizerOf(**checkpoint);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  // GGUF puts a space before every part of a text, Metaspace only before the first one and not
  // before another space: texts where that shows differ, and the conversion warns.
  const bool metaspace = std::string(GetParam()) == "bpe-metaspace";
  EXPECT_EQ(warnings.size(), metaspace ? 1u : 0u);
  int count = 0;
  for (const auto& line : ReadLines(tokenizer_folder + "/expected.jsonl")) {
    const std::string text = line["text"];
    const bool shows = text.find("<s>") == 0 || text.find("<extra>") != std::string::npos ||
                       text.find(' ') == 0 || text.find("\u2581") == 0;
    if (metaspace && shows) continue;
    const auto ids = (*tokenizer)->Encode(text, true);
    ASSERT_TRUE(ids.ok());
    EXPECT_EQ(*ids, line["ids"].get<std::vector<int32_t>>()) << text;
    ++count;
  }
  EXPECT_GT(count, 30);
  EXPECT_TRUE((*tokenizer)->special().add_bos);
}

INSTANTIATE_TEST_SUITE_P(All, ConvertTokenizerTest,
                         testing::Values("bpe-normalizer", "bpe-metaspace"), kNamedByItself);

TEST(GgufWriter, WhatIsWrittenIsReadBackWithItsTypes) {
  const TemporaryFile file("types.gguf");
  auto writer = GgufWriter::Create(file.path(), false);
  ASSERT_TRUE(writer.ok()) << writer.status();
  (*writer)->Add("a.int", int64_t{7});
  (*writer)->Add("a.negative", int64_t{-7});
  (*writer)->Add("a.float", 0.5);
  (*writer)->Add("a.flag", true);
  (*writer)->Add("a.text", std::string("x"));
  (*writer)->Add("a.numbers", std::vector<int64_t>{1, -2});
  (*writer)->Add("a.flags", std::vector<int64_t>{1, 0}, {9, 7});
  (*writer)->Add("a.wide", int64_t{-1}, {11, 0});
  (*writer)->AddTensor("t", DType::kF32, {2, 3});
  (*writer)->AddTensor("u", DType::kF32, {1});
  ASSERT_TRUE((*writer)->WriteHeader().ok());
  const float values[7] = {1, 2, 3, 4, 5, 6, 7};
  ASSERT_TRUE((*writer)->Write(values, 8).ok());
  ASSERT_TRUE((*writer)->Write(values + 2, 16).ok());
  ASSERT_TRUE((*writer)->Write(values + 6, 4).ok());
  EXPECT_FALSE(std::filesystem::exists(file.path()));
  ASSERT_TRUE((*writer)->Finish().ok());

  const auto checkpoint = Checkpoint::Open(file.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const Metadata& metadata = (*checkpoint)->metadata();
  EXPECT_EQ(std::get<int64_t>(metadata.at("a.negative")), -7);
  EXPECT_EQ(std::get<int64_t>(metadata.at("a.wide")), -1);
  EXPECT_EQ(std::get<std::vector<int64_t>>(metadata.at("a.flags")), (std::vector<int64_t>{1, 0}));
  const MetadataTypes& types = (*checkpoint)->metadata_types();
  EXPECT_EQ(types.at("a.int").type, 4u);
  EXPECT_EQ(types.at("a.negative").type, 5u);
  EXPECT_EQ(types.at("a.wide").type, 11u);
  EXPECT_EQ(types.at("a.flags").elem_type, 7u);
  float read[7] = {};
  ASSERT_TRUE((*checkpoint)->Read(*(*checkpoint)->Find("t"), 0, 24, read).ok());
  ASSERT_TRUE((*checkpoint)->Read(*(*checkpoint)->Find("u"), 0, 4, read + 6).ok());
  for (int i = 0; i < 7; ++i) EXPECT_EQ(read[i], values[i]);
}

}  // namespace
}  // namespace thermocline
