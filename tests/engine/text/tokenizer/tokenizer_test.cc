// Tokenizers against the programs they come from.
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "absl/strings/str_cat.h"
#include "engine/text/tokenizer/bpe_tokenizer.h"
#include "engine/text/tokenizer/sentencepiece_tokenizer.h"
#include "tests/support/golden.h"
#include "tests/support/test_name.h"

namespace thermocline {
namespace {

// `decoded_differs`: texts whose ids agree but which the reference does not give back.
void ExpectTokenizer(const Tokenizer& tokenizer, const std::string& reference,
                     const std::set<std::string>& decoded_differs = {}) {
  int count = 0;
  for (const auto& line : ReadLines(reference)) {
    const std::string text = line["text"];
    const auto ids = tokenizer.Encode(text, /*parse_special=*/true);
    ASSERT_TRUE(ids.ok()) << ids.status();
    ASSERT_EQ(*ids, line["ids"].get<std::vector<int32_t>>()) << text;
    const std::string decoded = tokenizer.Decode(*ids, /*with_special=*/true);
    if (decoded_differs.count(text) > 0) {
      ASSERT_EQ(decoded, text);
    } else {
      ASSERT_EQ(decoded, line["decoded"].get<std::string>()) << text;
    }
    ++count;
  }
  EXPECT_GT(count, 50);
}

TEST(BpeTokenizer, TheDemoModelReproducesEveryReferenceLine) {
  const auto checkpoint = Checkpoint::Open(DemoPath());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const auto tokenizer = TokenizerOf(**checkpoint);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  ExpectTokenizer(**tokenizer, std::string(THERMOCLINE_SOURCE_DIR) +
                                   "/tests/data/golden/tokenizer/smollm2.jsonl");
}

TEST(BpeTokenizer, HuggingFaceTokenizersAreReproduced) {
  for (const char* name : {"qwen3", "deepseek_v3", "gptoss"}) {
    const std::string folder = SharedPath(absl::StrCat("tokenizers/", name));
    if (folder.empty())
      GTEST_SKIP() << "../shared/tokenizers is not there: tokenizers of 0.7 to 28 MB";
    const auto tokenizer = TokenizerFromFolder(folder);
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    ExpectTokenizer(**tokenizer, SharedPath(absl::StrCat("golden/tokenizer/", name, ".jsonl")));
  }
}

TEST(Tokenizer, LlamaCppVocabulariesAreReproduced) {
  for (const char* name : {"deepseek-llm", "gpt-2", "llama-spm"}) {
    const std::string path = SharedPath(absl::StrCat("tokenizers/ggml-vocab-", name, ".gguf"));
    if (path.empty())
      GTEST_SKIP() << "../shared/tokenizers is not there: tokenizers of 0.7 to 28 MB";
    const auto checkpoint = Checkpoint::Open(path);
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
    const auto tokenizer = TokenizerOf(**checkpoint);
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    // The one exception: llama.cpp's detokeniser gives one space for the first token's forty; its
    // ids are ours, and the bytes of the tokens are the text.
    const std::string spaces = std::string(40, ' ') + "x" + std::string(17, ' ');
    ExpectTokenizer(**tokenizer,
                    SharedPath(absl::StrCat("golden/tokenizer/ggml-vocab-", name, ".jsonl")),
                    std::string(name) == "deepseek-llm" ? std::set<std::string>{spaces}
                                                        : std::set<std::string>{});
  }
}

// Small tokenizers of Hugging Face's library (0.23): byte fallback by normalizer and by Metaspace,
// unigram with NFKC.
class SentencePieceTest : public testing::TestWithParam<const char*> {};

TEST_P(SentencePieceTest, EveryReferenceLineIsReproduced) {
  const std::string folder =
      absl::StrCat(THERMOCLINE_SOURCE_DIR, "/tests/data/tokenizer/", GetParam());
  const auto tokenizer = TokenizerFromFolder(folder);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  ExpectTokenizer(**tokenizer, folder + "/expected.jsonl");
  EXPECT_TRUE((*tokenizer)->special().add_bos);
}

INSTANTIATE_TEST_SUITE_P(All, SentencePieceTest,
                         testing::Values("bpe-normalizer", "bpe-metaspace", "unigram"),
                         kNamedByItself);

SentencePieceOptions ScoredPieces() {
  SentencePieceOptions options;
  options.tokens = {"<unk>", "\u2581", "a", "b", "ab", "\u2581a", "<0xE2>", "<0x98>", "<0x83>"};
  options.scores = {0, 0, 0, 0, -2, -1, 0, 0, 0};
  options.special.unk = 0;
  options.prefix = SentencePieceOptions::Prefix::kNever;
  return options;
}

TEST(SentencePieceTokenizer, TheHighestScoreMergesFirst) {
  const auto tokenizer = SentencePieceTokenizer::Create(ScoredPieces());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ(*(*tokenizer)->Encode(" ab", true), (std::vector<int32_t>{5, 3}));
  EXPECT_EQ(*(*tokenizer)->Encode("ab", true), (std::vector<int32_t>{4}));
}

TEST(SentencePieceTokenizer, WhatNoTokenCoversBecomesBytesOrTheUnknownToken) {
  const auto tokenizer = SentencePieceTokenizer::Create(ScoredPieces());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ(*(*tokenizer)->Encode("\u2603", true), (std::vector<int32_t>{6, 7, 8}));
  EXPECT_EQ((*tokenizer)->Decode({6, 7, 8}, true), "\u2603");
  EXPECT_EQ((*tokenizer)->Decode({6, 7}, true), "\uFFFD");
  EXPECT_EQ(*(*tokenizer)->Encode("c", true), (std::vector<int32_t>{0}));
}

TEST(SentencePieceTokenizer, RefusesScoresAndMergesThatDoNotFit) {
  SentencePieceOptions options = ScoredPieces();
  options.scores.pop_back();
  EXPECT_EQ(SentencePieceTokenizer::Create(std::move(options)).status().code(),
            absl::StatusCode::kInvalidArgument);
  options = ScoredPieces();
  options.model = SentencePieceOptions::Model::kRankedMerges;
  options.merges = {{"a", "z"}};
  EXPECT_EQ(SentencePieceTokenizer::Create(std::move(options)).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(PreTokenizer, EveryNamedRuleCompilesAndKeepsEveryByte) {
  const std::string text = "Hello WORLD's \u4E2D\u6587  12345\t\n  x\u0301 \U0001F600!!! ";
  for (const char* name :
       {"default",        "falcon",      "gpt-2",      "smollm",    "llama-bpe", "dbrx",
        "qwen2",          "hunyuan",     "qwen35",     "laguna",    "ufakzeka",  "minicpm5",
        "bailingmoe2",    "seed-coder",  "exaone-moe", "tekken",    "gpt-4o",    "minimax-m2",
        "tiny_aya",       "youtu",       "kimi-k2",    "poro-chat", "viking",    "deepseek-llm",
        "deepseek-coder", "deepseek-v3", "glm4",       "lfm2"}) {
    const auto named = PreTokenizerByName(name);
    ASSERT_TRUE(named.ok()) << named.status();
    const auto pre_tokenizer = PreTokenizer::Create(named->split_rules);
    ASSERT_TRUE(pre_tokenizer.ok()) << name << ": " << pre_tokenizer.status();
    std::string joined;
    for (absl::string_view piece : (*pre_tokenizer)->Split(text)) joined += std::string(piece);
    EXPECT_EQ(joined, text) << name;
  }
  EXPECT_EQ(PreTokenizerByName("abacus").status().code(), absl::StatusCode::kUnimplemented);
}

TEST(PreTokenizer, KimiKeepsChineseApart) {
  const auto named = PreTokenizerByName("kimi-k2");
  const auto pre_tokenizer = PreTokenizer::Create(named->split_rules);
  EXPECT_EQ((*pre_tokenizer)->Split("abc\u4E2D\u6587def"),
            (std::vector<absl::string_view>{"abc", "\u4E2D\u6587", "def"}));
}

std::unique_ptr<Tokenizer> SmallTokenizer() {
  BpeOptions options;
  options.tokens = {"a", "b", "ab", "", "Ġ"};
  options.merges = {{"a", "b"}};
  options.added = {{.id = 3, .text = "<end>", .special = true}};
  options.split_rules = {{kGpt2Pattern}};
  auto tokenizer = BpeTokenizer::Create(std::move(options));
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return *std::move(tokenizer);
}

TEST(BpeTokenizer, ControlTokensInTextAreOnlyRecognisedOnRequest) {
  const auto tokenizer = SmallTokenizer();
  EXPECT_EQ(*tokenizer->Encode("ab<end>", true), (std::vector<int32_t>{2, 3}));
  EXPECT_EQ(*tokenizer->Encode("ab<end>", false),
            (std::vector<int32_t>{2}));  // bytes without a token vanish
  EXPECT_EQ(tokenizer->TokenBytes(3, false), "");
  EXPECT_EQ(tokenizer->TokenBytes(3, true), "<end>");
  EXPECT_EQ(tokenizer->TokenBytes(-1, true), "");
  EXPECT_EQ(tokenizer->TokenBytes(99, true), "");
}

TEST(BpeTokenizer, AMegabyteOfOneLetterIsFast) {
  const auto checkpoint = Checkpoint::Open(DemoPath());
  const auto tokenizer = TokenizerOf(**checkpoint);
  for (const char* unit : {"a", " ", "\n", "\xF0\x9F\x98\x80", "ab", "  x", "'", "<|"}) {
    std::string text;
    while (text.size() < (1 << 20)) text += unit;
    const auto ids = (*tokenizer)->Encode(text, true);
    ASSERT_TRUE(ids.ok());
    EXPECT_EQ((*tokenizer)->Decode(*ids, true), text);
  }
}

std::string Joined(const std::vector<absl::string_view>& pieces) {
  std::string text;
  for (absl::string_view piece : pieces) text += std::string(piece) + "|";
  return text;
}

TEST(PreTokenizer, AWordWithoutEndIsOnePieceAndTheRestIsCutAsEver) {
  for (const char* name : {"kimi-k2", "exaone-moe", "gpt-4o", "tekken"}) {
    const auto named = PreTokenizerByName(name);
    ASSERT_TRUE(named.ok());
    const auto pre = PreTokenizer::Create(named->split_rules);
    ASSERT_TRUE(pre.ok());
    const std::string word(1 << 20, 'a'), text = word + "\n b, c";
    EXPECT_EQ(Joined((*pre)->Split(text)), word + "|\n| b|,| c|") << name;
  }
}

TEST(PreTokenizer, OnigurumasLineEndsAndWhatItReadsOtherwise) {
  const auto pre = PreTokenizer::Create({{R"(\s+$)", false, /*oniguruma=*/true}});
  ASSERT_TRUE(pre.ok());
  EXPECT_EQ(Joined((*pre)->Split("a  \n b")), "a|  |\n b|");
  for (const char* pattern : {R"([\p{L}&&[^\p{Han}]]+)", R"(\p{N}{1,3}+)"}) {
    EXPECT_EQ(PreTokenizer::Create({{pattern, false, true}}).status().code(),
              absl::StatusCode::kUnimplemented);
  }
  EXPECT_TRUE(PreTokenizer::Create({{R"(\p{L}+|\p{N}{1,3})", false, true}}).ok());
}

TEST(NameOfSplitRules, KnowsThePublishedSpellings) {
  // Ling's tokenizer.json, with possessive quantifiers.
  EXPECT_EQ(NameOfSplitRules({{R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?)"
                               R"([^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+)"}},
                             false, false),
            "bailingmoe");
  EXPECT_EQ(NameOfSplitRules({{R"([\r\n])"},
                              {R"(\s?\p{L}+)"},
                              {R"(\s?\p{P}+)"},
                              {"[一-龥ࠀ-一가-\xED\x9F\xBF]+"},
                              {R"(\p{N})"}},
                             false, false),
            "deepseek-coder");
  EXPECT_EQ(NameOfSplitRules({{"x"}}, false, false), "");
  const auto qwen = PreTokenizerByName("qwen2");
  EXPECT_EQ(NameOfSplitRules(qwen->split_rules, false, true), "qwen2");
  EXPECT_EQ(NameOfSplitRules(qwen->split_rules, false, false), "stablelm2");
}

TEST(BpeTokenizer, AnAddedTokenMayBePartOfMerges) {
  BpeOptions options;
  options.tokens = {"a", "b", "c", "ab", "abc"};
  options.added = {{.id = 3, .text = "ab"}};
  options.merges = {{"a", "b"}, {"ab", "c"}};
  options.split_rules = {{kGpt2Pattern}};
  const auto tokenizer = BpeTokenizer::Create(options);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ(*(*tokenizer)->Encode("cabc", true), (std::vector<int32_t>{2, 3, 2}));
}

TEST(AddedTokens, SwallowWhiteSpaceOfAnyKind) {
  const AddedTokens tokens({{.id = 1, .text = "<x>", .lstrip = true, .rstrip = true}});
  std::string seen;
  tokens.Split(
      "a\u3000 <x>\u00A0\tb", true,
      [&](absl::string_view text, bool) { seen += std::string(text) + "|"; },
      [&](int32_t id) { seen += std::to_string(id) + "|"; });
  EXPECT_EQ(seen, "a|1|b|");
}

TEST(SentencePieceTokenizer, SplitSpacesStandAlone) {
  SentencePieceOptions options;
  options.tokens = {"<unk>", "\u2581", "a", "\u2581\u2581", "\u2581a"};
  options.model = SentencePieceOptions::Model::kRankedMerges;
  options.merges = {{"\u2581", "\u2581"}, {"\u2581", "a"}};
  options.prefix = SentencePieceOptions::Prefix::kNever;
  options.special.unk = 0;
  for (bool split : {false, true}) {
    options.split_spaces = split;
    const auto tokenizer = SentencePieceTokenizer::Create(options);
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    EXPECT_EQ(*(*tokenizer)->Encode("a   a", true),
              split ? (std::vector<int32_t>{2, 1, 1, 4}) : (std::vector<int32_t>{2, 3, 4}));
  }
}

TEST(BpeTokenizer, RefusesMergesOfUnknownTokens) {
  BpeOptions options;
  options.tokens = {"a"};
  options.merges = {{"a", "z"}};
  EXPECT_EQ(BpeTokenizer::Create(std::move(options)).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace thermocline
