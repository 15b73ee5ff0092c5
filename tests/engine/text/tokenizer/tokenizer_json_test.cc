// tokenizer.json and its companions, key by key.
#include "engine/text/tokenizer/tokenizer_json.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/support/model_bytes.h"
#include "tests/support/temporary_file.h"

namespace thermocline {
namespace {

using nlohmann::json;

class TokenizerJsonTest : public testing::Test {
 protected:
  TokenizerJsonTest() {
    file_ = json::parse(R"({"added_tokens": [{"id": 4, "content": "<s>", "special": true}],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false},
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}})");
  }
  void Write(const std::string& name, const std::string& text) {
    WriteBytes(folder_.path() + "/" + name, text);
  }
  absl::StatusOr<AnyTokenizerOptions> Read() {
    Write("tokenizer.json", file_.dump());
    return ReadTokenizerFolder(folder_.path());
  }
  BpeOptions Bpe() {
    auto options = Read();
    EXPECT_TRUE(options.ok()) << options.status();
    if (!options.ok() || !std::holds_alternative<BpeOptions>(*options)) {
      ADD_FAILURE() << "no byte-level pairs";
      return {};
    }
    return std::get<BpeOptions>(*options);
  }
  SentencePieceOptions Pieces() {
    auto options = Read();
    EXPECT_TRUE(options.ok()) << options.status();
    if (!options.ok() || !std::holds_alternative<SentencePieceOptions>(*options)) {
      ADD_FAILURE() << "no pieces";
      return {};
    }
    return std::get<SentencePieceOptions>(*options);
  }
  void ExpectRefused(absl::StatusCode code, const std::string& part) {
    const absl::Status status = Read().status();
    EXPECT_EQ(status.code(), code) << part;
    EXPECT_NE(status.message().find(part), std::string::npos) << status;
  }
  static constexpr absl::StatusCode kInvalid = absl::StatusCode::kInvalidArgument,
                                    kUnsupported = absl::StatusCode::kUnimplemented;

  TemporaryFile folder_{"tokenizer-json"};
  json file_;
};

TEST_F(TokenizerJsonTest, FilesThatAreNotThereOrNoJson) {
  std::filesystem::create_directories(folder_.path());
  EXPECT_EQ(ReadTokenizerFolder(folder_.path()).status().code(), absl::StatusCode::kNotFound);
  Write("tokenizer.json", "{");
  const absl::Status status = ReadTokenizerFolder(folder_.path()).status();
  EXPECT_EQ(status.code(), kInvalid);
  EXPECT_NE(status.message().find("tokenizer.json\": "), std::string::npos) << status;
}

TEST_F(TokenizerJsonTest, VocabularyMergesAndAddedTokens) {
  file_["added_tokens"][0]["lstrip"] = true;
  file_["added_tokens"].push_back({{"id", 6}, {"content", "<x>"}, {"rstrip", true}});
  const BpeOptions options = Bpe();
  EXPECT_EQ(options.tokens, (std::vector<std::string>{"a", "b", "ab", "", "<s>", "", "<x>"}));
  EXPECT_EQ(options.merges, (std::vector<std::pair<std::string, std::string>>{{"a", "b"}}));
  ASSERT_EQ(options.added.size(), 2u);
  EXPECT_EQ(options.added[0].id, 4);
  EXPECT_EQ(options.added[0].text, "<s>");
  EXPECT_TRUE(options.added[0].special);
  EXPECT_TRUE(options.added[0].lstrip);
  EXPECT_FALSE(options.added[0].rstrip);
  EXPECT_FALSE(options.added[1].special);
  EXPECT_FALSE(options.added[1].lstrip);
  EXPECT_TRUE(options.added[1].rstrip);
  file_["added_tokens"] = nullptr;
  EXPECT_TRUE(Bpe().added.empty());
}

TEST_F(TokenizerJsonTest, IdsAreWholeNumbersBelowTheLimit) {
  for (const json& id : {json(-1), json("3"), json(1.5), json(1 << 24), json(nullptr)}) {
    file_["model"]["vocab"]["x"] = id;
    ExpectRefused(kInvalid, "token \"x\" has no proper id");
  }
  file_["model"]["vocab"]["x"] = (1 << 24) - 1;
  EXPECT_EQ(Bpe().tokens.size(), size_t{1} << 24);
  file_["model"]["vocab"].erase("x");
  file_["added_tokens"][0].erase("id");
  ExpectRefused(kInvalid, "token \"<s>\" has no proper id");
}

TEST_F(TokenizerJsonTest, MergesArePairsOrTextsWithASpace) {
  file_["model"]["merges"] = {json::array({"a", "b"}), "b a", "  a"};
  EXPECT_EQ(Bpe().merges,
            (std::vector<std::pair<std::string, std::string>>{{"a", "b"}, {"b", "a"}, {" ", "a"}}));
  for (const json& merge :
       {json("ab"), json(" a"), json::array({"a"}), json::array({"a", "b", "c"}),
        json::array({"a", 1}), json::array({1, "a"}), json(3), json("")}) {
    file_["model"]["merges"] = json::array({merge});
    ExpectRefused(kInvalid, "a merge is not a pair");
  }
  file_["model"].erase("merges");
  ExpectRefused(kInvalid, "no merges");
}

TEST_F(TokenizerJsonTest, ModelsOfOtherKindsAreRefused) {
  file_["model"]["type"] = "WordPiece";
  ExpectRefused(kUnsupported, "a model of type WordPiece");
  file_["model"].erase("type");
  EXPECT_EQ(Bpe().merges.size(), 1u);  // pairs where nothing is said
  file_["model"]["vocab"] = nullptr;
  ExpectRefused(kInvalid, "the model has no vocab");
  file_.erase("model");
  ExpectRefused(kInvalid, "the model has no vocab");
}

TEST_F(TokenizerJsonTest, NormalizersOfEveryKindInOrder) {
  using Kind = NormalizerStep::Kind;
  file_["normalizer"] = json::parse(R"({"type": "Sequence", "normalizers": [
      {"type": "NFC"}, {"type": "NFKC"}, {"type": "NFD"}, {"type": "NFKD"}, {"type": "Lowercase"},
      {"type": "Prepend", "prepend": "p"},
      {"type": "Sequence", "normalizers": [
        {"type": "Replace", "pattern": {"String": "x"}, "content": "y"}]},
      {"type": "Strip"}, {"type": "Strip", "strip_left": false, "strip_right": true},
      {"type": "Strip", "strip_left": true, "strip_right": false}]})");
  const std::vector<NormalizerStep> steps = Bpe().normalizer;
  ASSERT_EQ(steps.size(), 10u);
  const Kind kinds[] = {Kind::kNfc,       Kind::kNfkc,    Kind::kNfd,     Kind::kNfkd,
                        Kind::kLowercase, Kind::kPrepend, Kind::kReplace, Kind::kStrip,
                        Kind::kStrip,     Kind::kStrip};
  for (size_t i = 0; i < 10; ++i) EXPECT_EQ(steps[i].kind, kinds[i]) << i;
  EXPECT_EQ(steps[5].content, "p");
  EXPECT_EQ(steps[6].pattern, "x");
  EXPECT_EQ(steps[6].content, "y");
  EXPECT_TRUE(steps[7].left && steps[7].right);
  EXPECT_TRUE(!steps[8].left && steps[8].right);
  EXPECT_TRUE(steps[9].left && !steps[9].right);
  for (const char* wrong :
       {R"({"type": "Abacus"})", R"({"type": "Replace", "pattern": {"Regex": "x"}})",
        R"({"type": "Replace", "pattern": {"String": ""}, "content": "y"})", "3",
        R"({"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Abacus"}]})",
        R"({"type": "Sequence"})", R"({"type": "Abacus", "normalizers": []})"}) {
    file_["normalizer"] = json::parse(wrong);
    ExpectRefused(kUnsupported, "normalizer");
  }
}

TEST_F(TokenizerJsonTest, PreTokenizersBecomeRules) {
  file_["pre_tokenizer"] = json::parse(R"({"type": "Sequence", "pretokenizers": [
      {"type": "Split", "pattern": {"Regex": "r+"}, "behavior": "Isolated", "invert": false},
      {"type": "Split", "pattern": {"String": "a\\Eb"}, "behavior": "Removed"},
      {"type": "Split", "pattern": {"Regex": "i"}, "behavior": "Removed", "invert": true},
      {"type": "Split", "pattern": {"Regex": "d"}},
      {"type": "Digits", "individual_digits": true}, {"type": "Digits"},
      {"type": "Sequence", "pretokenizers": [{"type": "ByteLevel", "use_regex": false}]},
      {"type": "ByteLevel", "add_prefix_space": false}]})");
  const std::vector<SplitRule> rules = Bpe().split_rules;
  ASSERT_EQ(rules.size(), 7u);
  EXPECT_EQ(rules[0].pattern, "r+");
  EXPECT_TRUE(rules[0].oniguruma);
  EXPECT_FALSE(rules[0].removed);
  EXPECT_EQ(rules[1].pattern, "\\Qa\\E\\\\E\\Qb\\E");  // a literal, its own \E escaped
  EXPECT_FALSE(rules[1].oniguruma);
  EXPECT_TRUE(rules[1].removed);
  EXPECT_EQ(rules[3].pattern, "d");
  EXPECT_FALSE(rules[3].removed);
  EXPECT_EQ(rules[4].pattern, R"(\p{N})");
  EXPECT_EQ(rules[5].pattern, R"(\p{N}+)");
  EXPECT_EQ(rules[6].pattern, kGpt2Pattern);
  file_["pre_tokenizer"] = nullptr;
  EXPECT_TRUE(Bpe().split_rules.empty());
  file_["pre_tokenizer"] = json::parse(
      R"({"type": "Sequence", "pretokenizers": [{"type": "Abacus"}, {"type": "Digits"}]})");
  ExpectRefused(kUnsupported, "pre_tokenizer");
  file_["pre_tokenizer"] =
      json::parse(R"({"type": "Split", "pattern": {}, "behavior": "Isolated"})");
  ExpectRefused(kUnsupported, "pattern");
}

TEST_F(TokenizerJsonTest, MetaspaceOrByteFallbackMakePieces) {
  using Prefix = SentencePieceOptions::Prefix;
  struct Case {
    json metaspace;
    Prefix prefix;
    bool split;
  };
  for (const Case& c :
       {Case{json::object(), Prefix::kEvery, true},
        Case{{{"add_prefix_space", false}}, Prefix::kNever, true},
        Case{{{"add_prefix_space", true}}, Prefix::kEvery, true},
        Case{{{"prepend_scheme", "always"}, {"split", false}}, Prefix::kEvery, false},
        Case{{{"prepend_scheme", "first"}}, Prefix::kFirst, true},
        Case{{{"prepend_scheme", "never"}, {"split", true}}, Prefix::kNever, true}}) {
    file_["pre_tokenizer"] = c.metaspace;
    file_["pre_tokenizer"]["type"] = "Metaspace";
    const SentencePieceOptions options = Pieces();
    EXPECT_EQ(options.prefix, c.prefix) << c.metaspace;
    EXPECT_EQ(options.split_spaces, c.split) << c.metaspace;
    EXPECT_FALSE(options.prefix_even_before_space);
    EXPECT_FALSE(options.byte_fallback);
    EXPECT_EQ(options.model, SentencePieceOptions::Model::kRankedMerges);
    EXPECT_EQ(options.merges.size(), 1u);
    EXPECT_EQ(options.tokens.size(), 5u);
  }
  file_["pre_tokenizer"]["replacement"] = "_";
  ExpectRefused(kUnsupported, "metaspace replacement");
  file_["pre_tokenizer"] = nullptr;
  file_["model"]["byte_fallback"] = true;
  EXPECT_TRUE(Pieces().byte_fallback);
  EXPECT_EQ(Pieces().prefix, Prefix::kNever);
  file_["model"]["byte_fallback"] = false;
  file_["normalizer"] =
      json::parse(R"({"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"})");
  EXPECT_FALSE(Pieces().byte_fallback);
  // Another replacement is none of spaces.
  file_["normalizer"]["content"] = "_";
  (void)Bpe();
  file_["normalizer"]["content"] = "\u2581";
  file_["normalizer"]["pattern"]["String"] = "x";
  (void)Bpe();
  file_["model"]["byte_fallback"] = true;
  file_["pre_tokenizer"] = {{"type", "Digits"}};
  ExpectRefused(kUnsupported, "split rules together with SentencePiece's spaces");
}

TEST_F(TokenizerJsonTest, IgnoreMergesIsForByteLevelPairs) {
  EXPECT_FALSE(Bpe().ignore_merges);
  file_["model"]["ignore_merges"] = true;
  EXPECT_TRUE(Bpe().ignore_merges);
}

TEST_F(TokenizerJsonTest, UnigramsAreTokensWithScores) {
  file_["model"] = json::parse(R"({"vocab": [["<unk>", 0], ["a", -1.5]], "unk_id": 0})");
  file_["pre_tokenizer"] = nullptr;
  const SentencePieceOptions options = Pieces();
  EXPECT_EQ(options.model, SentencePieceOptions::Model::kUnigram);
  // The added token 4 makes room for itself.
  EXPECT_EQ(options.tokens, (std::vector<std::string>{"<unk>", "a", "", "", "<s>"}));
  EXPECT_EQ(options.scores, (std::vector<float>{0, -1.5f, 0, 0, 0}));
  EXPECT_EQ(options.special.unk, 0);
  for (const json& unk : {json(9), json(-1), json("0"), json(nullptr)}) {
    file_["model"]["unk_id"] = unk;
    EXPECT_EQ(Pieces().special.unk, -1) << unk;
  }
  for (const char* entry : {R"(["a"])", R"(["a", "b"])", R"([1, 2])", R"("a")", R"(["a", 1, 2])"}) {
    file_["model"]["vocab"] = json::array({json::parse(entry)});
    ExpectRefused(kInvalid, "a unigram entry");
  }
  file_["model"]["type"] = "Unigram";
  file_["model"]["vocab"] = json::object();
  ExpectRefused(kInvalid, "the unigram vocabulary is no list");
}

TEST_F(TokenizerJsonTest, TheConfigurationNamesSpecialTokens) {
  Write("tokenizer_config.json",
        R"({"bos_token": "<s>", "eos_token": {"content": "ab"}, "pad_token": "missing",
            "unk_token": null, "add_bos_token": true})");
  BpeOptions options = Bpe();
  EXPECT_EQ(options.special.bos, 4);
  EXPECT_EQ(options.special.eos, 2);
  EXPECT_EQ(options.special.pad, -1);
  EXPECT_EQ(options.special.unk, -1);
  EXPECT_TRUE(options.special.add_bos);
  EXPECT_EQ(options.end_tokens, std::vector<int32_t>{2});
  file_["model"]["unk_token"] = "b";
  EXPECT_EQ(Bpe().special.unk, 1);
  Write("tokenizer_config.json", R"({"unk_token": "a", "pad_token": ""})");
  options = Bpe();
  EXPECT_EQ(options.special.unk, 0);  // the configuration's goes before the model's
  EXPECT_EQ(options.special.bos, -1);
  EXPECT_TRUE(options.end_tokens.empty());
  // A broken configuration is none.
  Write("tokenizer_config.json", "{");
  EXPECT_EQ(Bpe().special.unk, 1);
  std::filesystem::remove(folder_.path() + "/tokenizer_config.json");
  EXPECT_FALSE(Bpe().special.add_bos);
}

TEST_F(TokenizerJsonTest, ThePostProcessorPutsBosInFrontUnlessTheConfigurationSaysOtherwise) {
  Write("tokenizer_config.json", R"({"bos_token": "<s>"})");
  const char* const front = R"({"type": "TemplateProcessing",
      "single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}]})";
  const std::pair<json, bool> processors[] = {
      {json::parse(front), true},
      {{{"processors", {json{{"type", "ByteLevel"}}, json::parse(front)}}}, true},
      {json::parse(R"({"single": [{"SpecialToken": {"id": "other"}}]})"), false},
      {json::parse(R"({"single": [{"Sequence": {}}, {"SpecialToken": {"id": "<s>"}}]})"), false},
      {json::parse(R"({"single": []})"), false},
      {json::parse(R"({"single": 3})"), false},
      {nullptr, false}};
  for (const auto& [processor, in_front] : processors) {
    file_["post_processor"] = processor;
    EXPECT_EQ(Bpe().special.add_bos, in_front) << processor;
  }
  file_["post_processor"] = json::parse(front);
  Write("tokenizer_config.json", R"({"bos_token": "<s>", "add_bos_token": false})");
  EXPECT_FALSE(Bpe().special.add_bos);
  Write("tokenizer_config.json", "{}");
  EXPECT_FALSE(Bpe().special.add_bos);  // there is no such token
}

TEST_F(TokenizerJsonTest, TheGenerationConfigurationAddsEnds) {
  Write("tokenizer_config.json", R"({"eos_token": "a"})");
  for (const auto& [eos, ends] :
       {std::pair{"1", std::vector<int32_t>{0, 1}},
        std::pair{"[1, 2]", std::vector<int32_t>{0, 1, 2}},
        std::pair{"[-1, 16777216, \"x\", 16777215]", std::vector<int32_t>{0, 16777215}},
        std::pair{"null", std::vector<int32_t>{0}}}) {
    Write("generation_config.json", std::string(R"({"eos_token_id": )") + eos + "}");
    EXPECT_EQ(Bpe().end_tokens, ends) << eos;
  }
}

TEST_F(TokenizerJsonTest, TheChatTemplateIsAFileATextOrTheDefaultOfSeveral) {
  EXPECT_EQ(Bpe().chat_template, "");
  Write("tokenizer_config.json", R"({"chat_template": "T"})");
  EXPECT_EQ(Bpe().chat_template, "T");
  Write("tokenizer_config.json", R"({"chat_template": [{"name": "rag", "template": "R"},
                                                       {"name": "default", "template": "D"}]})");
  EXPECT_EQ(Bpe().chat_template, "D");
  Write("tokenizer_config.json", R"({"chat_template": [{"name": "rag", "template": "R"}]})");
  EXPECT_EQ(Bpe().chat_template, "");
  Write("chat_template.jinja", "F");
  EXPECT_EQ(Bpe().chat_template, "F");
}

TEST_F(TokenizerJsonTest, DecodersMayTakeOneSpaceAway) {
  const std::pair<const char*, bool> decoders[] = {
      {R"({"type": "Strip", "content": " ", "start": 1, "stop": 0})", true},
      {R"({"type": "Strip", "content": " ", "start": 0})", false},
      {R"({"type": "Strip", "content": "x", "start": 1})", false},
      {R"({"type": "Strip", "content": " "})", false},
      {R"({"type": "Metaspace"})", true},
      {R"({"type": "Metaspace", "prepend_scheme": "first"})", true},
      {R"({"type": "Metaspace", "prepend_scheme": "never"})", false},
      {R"({"type": "Metaspace", "add_prefix_space": false})", false},
      {R"({"type": "ByteLevel"})", false},
      {R"({"type": "Sequence", "decoders": [{"type": "ByteLevel"}, {"type": "Metaspace"}]})", true},
      {R"({"type": "Sequence", "decoders": [{"type": "ByteLevel"}]})", false},
      {"null", false}};
  for (const auto& [decoder, strips] : decoders) {
    file_["decoder"] = json::parse(decoder);
    EXPECT_EQ(Bpe().decode_strips_space, strips) << decoder;
  }
}

}  // namespace
}  // namespace thermocline
