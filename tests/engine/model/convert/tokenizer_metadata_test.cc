// A folder's tokenizer as GGUF metadata: every key by value, and what is lost is said.
#include "engine/model/convert/tokenizer_metadata.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "engine/formats/checkpoint.h"
#include "tests/support/model_bytes.h"
#include "tests/support/temporary_file.h"

namespace thermocline {
namespace {

using nlohmann::json;
using Texts = std::vector<std::string>;
using Ints = std::vector<int64_t>;

class TokenizerMetadataTest : public testing::Test {
 protected:
  // Byte-level pairs.
  TokenizerMetadataTest() {
    tokenizer_ = json::parse(R"({"added_tokens": [],
        "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "x"}, "behavior": "Isolated"},
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}})");
    tokenizer_["pre_tokenizer"] = {{"type", "ByteLevel"}, {"add_prefix_space", false}};
  }
  static json Added(int id, const char* text, bool special = false) {
    return {{"id", id}, {"content", text}, {"special", special}};
  }
  Metadata Written() {
    WriteBytes(folder_.path() + "/tokenizer.json", tokenizer_.dump());
    if (!tokenizer_config_.is_null())
      WriteBytes(folder_.path() + "/tokenizer_config.json", tokenizer_config_.dump());
    if (!generation_.is_null())
      WriteBytes(folder_.path() + "/generation_config.json", generation_.dump());
    auto writer = GgufWriter::Create(file_.path(), true);
    EXPECT_TRUE(writer.ok()) << writer.status();
    warnings_.clear();
    const absl::Status added = AddTokenizerMetadata(
        folder_.path(), config_,
        [this](const std::string& message) { warnings_.push_back(message); }, writer->get());
    EXPECT_TRUE(added.ok()) << added;
    EXPECT_TRUE((*writer)->WriteHeader().ok());
    EXPECT_TRUE((*writer)->Finish().ok());
    const auto checkpoint = Checkpoint::Open(file_.path());
    EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
    return checkpoint.ok() ? (*checkpoint)->metadata() : Metadata();
  }
  void ExpectWarning(const std::string& part) {
    ASSERT_EQ(warnings_.size(), 1u) << part;
    EXPECT_NE(warnings_[0].find(part), std::string::npos) << warnings_[0];
  }
  // A model of pieces with a normalizer that writes spaces as U+2581.
  void MakePieces() {
    tokenizer_["model"] = json::parse(
        R"({"type": "BPE", "byte_fallback": true, "unk_token": "<unk>",
            "vocab": {"<unk>": 0, "<0x0A>": 1, "\u2581": 2, "a": 3, "b": 4, "ab": 5, "\u2581ab": 6},
            "merges": ["a b", "\u2581 ab"]})");
    tokenizer_["pre_tokenizer"] = nullptr;
    tokenizer_["normalizer"] = json::parse(
        R"({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "\u2581"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}]})");
  }

  TemporaryFile folder_{"tokenizer-folder"}, file_{"tokenizer.gguf"};
  json tokenizer_, tokenizer_config_, generation_, config_ = json::object();
  std::vector<std::string> warnings_;
};

TEST_F(TokenizerMetadataTest, ByteLevelPairs) {
  EXPECT_EQ(Written(), (Metadata{{"tokenizer.ggml.model", std::string("gpt2")},
                                 {"tokenizer.ggml.pre", std::string("gpt-2")},
                                 {"tokenizer.ggml.tokens", Texts{"a", "b", "ab"}},
                                 {"tokenizer.ggml.token_type", Ints{1, 1, 1}},
                                 {"tokenizer.ggml.merges", Texts{"a b"}},
                                 {"tokenizer.ggml.add_bos_token", false}}));
  EXPECT_TRUE(warnings_.empty());
}

TEST_F(TokenizerMetadataTest, SpacesInMergesAreWrittenInTheAlphabet) {
  tokenizer_["model"]["vocab"] = {{" ", 0}, {"a", 1}, {" a", 2}};
  tokenizer_["model"]["merges"] = json::array({json::array({" ", "a"})});
  EXPECT_EQ(Written().at("tokenizer.ggml.merges"), MetadataValue(Texts{"\u0120 a"}));
}

TEST_F(TokenizerMetadataTest, TokensFillTheEmbeddingAndHavePlaceholders) {
  tokenizer_["added_tokens"] = json::array({Added(4, "<x>", true)});
  config_["vocab_size"] = 7;
  const Metadata metadata = Written();
  EXPECT_EQ(metadata.at("tokenizer.ggml.tokens"),
            MetadataValue(Texts{"a", "b", "ab", "[PAD3]", "<x>", "[PAD5]", "[PAD6]"}));
  EXPECT_EQ(metadata.at("tokenizer.ggml.token_type"), MetadataValue(Ints{1, 1, 1, 5, 3, 5, 5}));
  // Fewer rows than tokens change nothing, nor does what is no number or too large.
  for (const json& size : {json(2), json("7"), json((1 << 24) + 1)}) {
    config_["vocab_size"] = size;
    EXPECT_EQ(std::get<Texts>(Written().at("tokenizer.ggml.tokens")).size(), 5u) << size;
  }
}

TEST_F(TokenizerMetadataTest, AddedTokensAreControlByMarkOrBySpelling) {
  const std::pair<const char*, int64_t> cases[] = {
      {"plain", 4},           {"<|x|>", 3}, {"<|x", 4},     {"x|>", 4},
      {"<\uFF5Cx\uFF5C>", 3}, {"<pad>", 3}, {"<mask>", 3},  {"[@BOS@]", 3},
      {"<unused7>", 3},       {"<use>", 4}, {"<\uFF5Cx", 4}};
  tokenizer_["added_tokens"] = json::array({Added(3, "marked", true)});
  Ints types = {1, 1, 1, 3};
  int id = 4;
  for (const auto& [text, type] : cases) {
    tokenizer_["added_tokens"].push_back(Added(id++, text));
    types.push_back(type);
  }
  EXPECT_EQ(Written().at("tokenizer.ggml.token_type"), MetadataValue(types));
}

TEST_F(TokenizerMetadataTest, UserDefinedTokensAreWrittenWithSpaces) {
  tokenizer_["added_tokens"] = json::array({Added(3, "\u2581x\u2581"), Added(4, "\u2581y", true)});
  const Texts tokens = std::get<Texts>(Written().at("tokenizer.ggml.tokens"));
  EXPECT_EQ(tokens[3], " x ");
  EXPECT_EQ(tokens[4], "\u2581y");
}

TEST_F(TokenizerMetadataTest, SpecialTokensEndsAndTheTemplate) {
  tokenizer_["added_tokens"] =
      json::array({Added(3, "<s>", true), Added(4, "</s>", true), Added(5, "<e1>", true),
                   Added(6, "<e2>", true), Added(7, "<e3>", true), Added(8, "<p>", true),
                   Added(9, "<u>", true)});
  tokenizer_config_ = {{"bos_token", "<s>"},    {"eos_token", {{"content", "</s>"}}},
                       {"pad_token", "<p>"},    {"unk_token", "<u>"},
                       {"add_bos_token", true}, {"chat_template", "T"}};
  generation_ = {{"eos_token_id", {4, 10, 5, 6, 6, 99}}};
  const Metadata metadata = Written();
  const auto id = [&](const char* key) {
    return std::get<int64_t>(metadata.at(std::string("tokenizer.ggml.") + key));
  };
  EXPECT_EQ(id("bos_token_id"), 3);
  EXPECT_EQ(id("eos_token_id"), 4);
  EXPECT_EQ(id("padding_token_id"), 8);
  EXPECT_EQ(id("unknown_token_id"), 9);
  EXPECT_EQ(id("eot_token_id"), 5);
  EXPECT_EQ(id("eom_token_id"), 6);
  EXPECT_EQ(std::get<bool>(metadata.at("tokenizer.ggml.add_bos_token")), true);
  EXPECT_EQ(std::get<std::string>(metadata.at("tokenizer.chat_template")), "T");
  EXPECT_TRUE(warnings_.empty());  // what is outside the vocabulary is no end
  generation_ = {{"eos_token_id", {4, 5, 6, 7}}};
  (void)Written();
  ExpectWarning("the end of generation at token 7");
}

TEST_F(TokenizerMetadataTest, RulesWithoutANameAreWarnedOf) {
  tokenizer_["pre_tokenizer"] = {
      {"type", "Split"}, {"pattern", {{"Regex", "qq+"}}}, {"behavior", "Isolated"}};
  EXPECT_EQ(std::get<std::string>(Written().at("tokenizer.ggml.pre")), "default");
  ExpectWarning("no name for this tokenizer's split rules");
}

TEST_F(TokenizerMetadataTest, WhatTheNameMeansOtherwiseIsWarnedOf) {
  // gpt-2 means neither NFC nor ignored merges.
  tokenizer_["normalizer"] = {{"type", "NFC"}};
  EXPECT_EQ(std::get<std::string>(Written().at("tokenizer.ggml.pre")), "gpt-2");
  ExpectWarning("normalises texts to NFC");
  tokenizer_["normalizer"] = nullptr;
  tokenizer_["model"]["ignore_merges"] = true;
  (void)Written();
  ExpectWarning("ignore_merges = 1");
  tokenizer_["model"]["ignore_merges"] = false;
  tokenizer_["normalizer"] = {{"type", "Lowercase"}};
  (void)Written();
  ExpectWarning("no place for a normalizer");
}

TEST_F(TokenizerMetadataTest, StrippingTokensAreWarnedOfButForPhi3s) {
  json token = Added(3, "<x>", true);
  token["rstrip"] = true;
  json both = Added(4, "<y>", true);
  both["lstrip"] = both["rstrip"] = true;
  tokenizer_["added_tokens"] = json::array({token, both});
  (void)Written();
  ExpectWarning("lstrip and rstrip of 2 added tokens");
  for (const char* model : {"phi3", "phimoe"}) {
    config_["model_type"] = model;
    (void)Written();
    ExpectWarning("lstrip and rstrip of 1 added tokens");
  }
}

TEST_F(TokenizerMetadataTest, PiecesScoreByTheRankOfTheFirstPairThatMakesThem) {
  MakePieces();
  tokenizer_["model"]["merges"].push_back("\u2581a b");  // makes the same piece, later
  tokenizer_["model"]["vocab"]["\u2581a"] = 7;
  EXPECT_EQ(Written(),
            (Metadata{{"tokenizer.ggml.model", std::string("llama")},
                      {"tokenizer.ggml.pre", std::string("default")},
                      {"tokenizer.ggml.tokens",
                       Texts{"<unk>", "<0x0A>", "\u2581", "a", "b", "ab", "\u2581ab", "\u2581a"}},
                      {"tokenizer.ggml.scores", std::vector<double>{0, 0, 0, 0, 0, -1, -2, 0}},
                      {"tokenizer.ggml.token_type", Ints{2, 6, 1, 1, 1, 1, 1, 1}},
                      {"tokenizer.ggml.unknown_token_id", int64_t{0}},
                      {"tokenizer.ggml.add_space_prefix", true},
                      {"tokenizer.ggml.add_bos_token", false}}));
  EXPECT_TRUE(warnings_.empty());
}

TEST_F(TokenizerMetadataTest, AByteIsSpelledInSixCharacters) {
  MakePieces();
  json& vocab = tokenizer_["model"]["vocab"];
  vocab["<0x0>"] = 7;
  vocab["<0x00a"] = 8;
  vocab["x0x00>"] = 9;
  EXPECT_EQ(Written().at("tokenizer.ggml.token_type"),
            MetadataValue(Ints{2, 6, 1, 1, 1, 1, 1, 1, 1, 1}));
}

TEST_F(TokenizerMetadataTest, WithoutThePrefixNoSpaceIsAdded) {
  MakePieces();
  tokenizer_["normalizer"] =
      json::parse(R"({"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"})");
  EXPECT_EQ(std::get<bool>(Written().at("tokenizer.ggml.add_space_prefix")), false);
  EXPECT_TRUE(warnings_.empty());
  tokenizer_["normalizer"] = nullptr;
  tokenizer_["pre_tokenizer"] = {
      {"type", "Metaspace"}, {"prepend_scheme", "first"}, {"split", false}};
  EXPECT_EQ(std::get<bool>(Written().at("tokenizer.ggml.add_space_prefix")), true);
  ExpectWarning("GGUF puts a space before every part of a text");
  tokenizer_["pre_tokenizer"]["prepend_scheme"] = "never";
  EXPECT_EQ(std::get<bool>(Written().at("tokenizer.ggml.add_space_prefix")), false);
  EXPECT_TRUE(warnings_.empty());
}

TEST_F(TokenizerMetadataTest, UnigramsKeepTheirScores) {
  tokenizer_["model"] = json::parse(
      R"({"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", -3.0], ["a", -1.5], ["<0x41>", -2.0]]})");
  tokenizer_["pre_tokenizer"] = {
      {"type", "Metaspace"}, {"prepend_scheme", "never"}, {"split", false}};
  const Metadata metadata = Written();
  EXPECT_EQ(std::get<std::string>(metadata.at("tokenizer.ggml.model")), "t5");
  EXPECT_EQ(metadata.at("tokenizer.ggml.scores"), MetadataValue(std::vector<double>{-3, -1.5, -2}));
  // Without byte fallback it is a token like others.
  EXPECT_EQ(metadata.at("tokenizer.ggml.token_type"), MetadataValue(Ints{2, 1, 1}));
}

TEST_F(TokenizerMetadataTest, AFolderWithoutATokenizerTakesIds) {
  std::filesystem::create_directories(folder_.path());
  auto writer = GgufWriter::Create(file_.path(), true);
  ASSERT_TRUE(writer.ok());
  // Nobody need listen to the warning.
  ASSERT_TRUE(AddTokenizerMetadata(folder_.path(), config_, nullptr, writer->get()).ok());
  WriteBytes(folder_.path() + "/tokenizer.json", "{");
  EXPECT_FALSE(AddTokenizerMetadata(folder_.path(), config_, nullptr, writer->get()).ok());
}

}  // namespace
}  // namespace thermocline
