// Split rules: the pieces that each named family makes of one text, and how rules are applied.
#include "engine/text/tokenizer/pre_tokenizer.h"

#include <gtest/gtest.h>

#include "absl/strings/str_join.h"

namespace thermocline {
namespace {

std::string Pieces(const std::vector<SplitRule>& rules, absl::string_view text) {
  const auto pre_tokenizer = PreTokenizer::Create(rules);
  EXPECT_TRUE(pre_tokenizer.ok()) << pre_tokenizer.status();
  return pre_tokenizer.ok() ? absl::StrJoin((*pre_tokenizer)->Split(text), "|") : "";
}

// By Python's regex module.
TEST(PreTokenizerByName, EveryFamilyCutsInItsOwnWay) {
  const char kText[] =
      "Hello WORLDwide's I'LL 1234567 3.14\u00E9\u4E2D\u6587abc\uAC00\u3042 x=y;\n\n  <|a|> "
      "\t(ok)!\n12a "
      "O\u0301k'd ";
  const std::pair<const char*, const char*> cases[] = {
      {"gpt-2",
       "Hello| WORLDwide|'s| I|'|LL| 1234567| 3|.|14|\u00E9\u4E2D\u6587abc\uAC00\u3042| "
       "x|=|y|;|\n\n | <||a||>| |\t|(|ok|)!|\n|12|a| O|\u0301|k|'d| "},
      {"default",
       "Hello| WORLDwide|'|s| I|'|LL| |123|456|7| |3|.|14|\u00E9\u4E2D\u6587abc\uAC00\u3042| "
       "x|=|y|;|\n\n  |<||a||>| \t|(|ok|)!|\n|12|a| O|\u0301|k|'|d| "},
      {"falcon",
       "Hello| WORLDwide|'|s| I|'|LL| |123|456|7| 3|.|14|\u00E9\u4E2D\u6587abc\uAC00\u3042| "
       "x|=|y|;|\n\n  |<||a||>| \t|(|ok|)!|\n|12|a| O|\u0301|k|'|d| "},
      {"smollm",
       "Hello| WORLDwide|'s| I|'|LL| |1|2|3|4|5|6|7| |3|.|1|4|\u00E9\u4E2D\u6587abc\uAC00\u3042| "
       "x|=|y|;|\n\n | <||a||>| |\t|(|ok|)!|\n|1|2|a| O|\u0301|k|'d| "},
      {"llama-bpe",
       "Hello| WORLDwide|'s| I|'LL| |123|456|7| |3|.|14|\u00E9\u4E2D\u6587abc\uAC00\u3042| "
       "x|=y|;\n\n| | <||a||>| |\t|(ok|)!\n|12|a| O|\u0301k|'d| "},
      {"glm4",
       "Hello| WORLDwide|'s| I|'LL| |123|456|7| |3|.|14|\u00E9\u4E2D\u6587abc\uAC00\u3042| "
       "x|=y|;\n\n| | <||a||>| |\t|(ok|)!\n|12|a| O|\u0301k|'d| "},
      {"dbrx",
       "Hello| WORLDwide|'s| I|'LL| |123|456|7| |3|.|14|\u00E9\u4E2D\u6587abc\uAC00\u3042| "
       "x|=y|;\n\n| | <||a||>| |\t|(ok|)!\n|12|a| O|\u0301k|'d| "},
      {"qwen2",
       "Hello| WORLDwide|'s| I|'LL| |1|2|3|4|5|6|7| |3|.|1|4|\u00E9\u4E2D\u6587abc\uAC00\u3042| "
       "x|=y|;\n\n| | <||a||>| |\t|(ok|)!\n|1|2|a| O|\u0301k|'d| "},
      {"stablelm2",
       "Hello| WORLDwide|'s| I|'LL| |1|2|3|4|5|6|7| |3|.|1|4|\u00E9\u4E2D\u6587abc\uAC00\u3042| "
       "x|=y|;\n\n| | <||a||>| |\t|(ok|)!\n|1|2|a| O|\u0301k|'d| "},
      {"qwen35",
       "Hello| WORLDwide|'s| I|'LL| |1|2|3|4|5|6|7| |3|.|1|4|\u00E9\u4E2D\u6587abc\uAC00\u3042| "
       "x|=y|;\n\n| | <||a||>| |\t|(ok|)!\n|1|2|a| O\u0301k|'d| "},
      {"laguna",
       "Hello| WORLDwide|'s| I|'LL| |1|2|3|4|5|6|7| |3|.|1|4|\u00E9\u4E2D\u6587abc\uAC00\u3042| "
       "x|=y|;|\n\n| | <||a||>| |\t|(ok|)!|\n|1|2|a| O|\u0301k|'d| "},
      {"ufakzeka",
       "Hello| WORLDwide|'s| I|'LL| |1|2|3|4|5|6|7| |3|.|1|4|\u00E9\u4E2D\u6587abc\uAC00\u3042| "
       "x|=y|;\n\n| | <||a||>| |\t|(ok|)!\n|1|2|a| O|\u0301k|'d| "},
      {"minicpm5",
       "Hello| WORLDwide|'s| I|'LL| |123|456|7| |3|.|14|\u00E9\u4E2D\u6587abc\uAC00\u3042| "
       "x|=y|;\n\n| | <||a||>| |\t|(ok|)!\n|12|a| O|\u0301k|'d| "},
      {"bailingmoe",
       "Hello| WORLDwide|'s| I|'LL| |1|2|3|4|5|6|7| |3|.|1|4|\u00E9\u4E2D\u6587abc\uAC00\u3042| "
       "x|=y|;\n\n| | <||a||>| |\t|(ok|)!\n|1|2|a| O|\u0301k|'d| "},
      {"seed-coder",
       "Hello| WORLDwide|'s| I|'LL| |1|2|3|4|5|6|7| |3|.|1|4|\u00E9\u4E2D\u6587abc\uAC00\u3042| "
       "x|=y|;|\n\n| | <||a||>| |\t|(ok|)!|\n|1|2|a| O|\u0301k|'d| "},
      {"exaone-moe",
       "Hello WORLDwide|'s| I|'LL| |1|2|3|4|5|6|7| |3|.|1|4|\u00E9\u4E2D\u6587abc\uAC00\u3042 "
       "x|=y|;\n|\n| | <||a||>| |\t|(ok|)!\n|1|2|a O\u0301k|'d| "},
      {"tekken",
       "Hello| WORLDwide|'s| I|'LL| |1|2|3|4|5|6|7| |3|.|1|4|\u00E9\u4E2D\u6587abc\uAC00\u3042| "
       "x|=y|;\n\n| | <||a||>| |\t|(ok|)!\n|1|2|a| O\u0301k|'d| "},
      {"gpt-4o",
       "Hello| WORLDwide's| I'LL| |123|456|7| |3|.|14|\u00E9\u4E2D\u6587abc\uAC00\u3042| "
       "x|=y|;\n\n| | <||a||>| |\t|(ok|)!\n|12|a| O\u0301k'd| "},
      {"minimax-m2",
       "Hello| WORLDwide's| I'LL| |123|456|7| |3|.|14|\u00E9\u4E2D\u6587abc\uAC00\u3042| "
       "x|=y|;\n\n| | <||a||>| |\t|(ok|)!\n|12|a| O\u0301k'd| "},
      {"tiny_aya",
       "Hello| WORLDwide's| I'LL| |1|234|567| |3|.|14|\u00E9\u4E2D\u6587abc\uAC00\u3042| "
       "x|=y|;\n\n| | <||a||>| |\t|(ok|)!\n|12|a| O\u0301k'd| "},
      {"youtu",
       "Hello| WORLDwide's| I'LL| |1|2|3|4|5|6|7| |3|.|1|4|\u00E9|\u4E2D\u6587|abc|\uAC00|\u3042| "
       "x|=y|;\n\n| | <||a||>| |\t|(ok|)!\n|1|2|a| O\u0301k'd| "},
      {"kimi-k2",
       "Hello| WORLDwide's| I'LL| |123|456|7| |3|.|14|\u00E9|\u4E2D\u6587|abc\uAC00\u3042| "
       "x|=y|;\n\n| | <||a||>| |\t|(ok|)!\n|12|a| O\u0301k'd| "},
      {"poro-chat",
       "Hello| WORLDwide's| I'LL| 1234567| 3|.|14\u00E9\u4E2D\u6587abc\uAC00\u3042| x=y;|\n\n | "
       "<|||a|||>| \t(|ok|)!\n|12a| O\u0301k'd| "},
      {"viking",
       "Hello| WORLDwide's| I'LL| |1|2|3|4|5|6|7| |3|.|1|4|\u00E9\u4E2D\u6587abc\uAC00\u3042| "
       "x=y;|\n\n | <|||a|||>| \t(|ok|)!\n|1|2|a| O\u0301k'd| "},
      {"deepseek-llm",
       "Hello| WORLDwide|'|s| I|'|LL| |1234567| |3|.|14|\u00E9|\u4E2D\u6587|abc|\uAC00\u3042| "
       "x|=|y|;|\n|\n| | <||a||>| |\t(|ok|)!|\n|12|a| O|\u0301|k|'|d| "},
      {"deepseek-coder",
       "Hello| WORLDwide|'|s| I|'|LL| |1|2|3|4|5|6|7| "
       "|3|.|1|4|\u00E9|\u4E2D\u6587|abc|\uAC00\u3042| x|=|y|;|\n|\n|  <||a||> "
       "|\t(|ok|)!|\n|1|2|a| O|\u0301|k|'|d| "},
      {"deepseek-v3",
       "Hello| WORLDwide|'s| I|'LL| |123|456|7| |3|.|14|\u00E9|\u4E2D\u6587|abc\uAC00|\u3042| "
       "x|=y|;\n\n| | <||a||>| |\t|(ok|)!\n|12|a| O\u0301k|'d| "}};
  for (const auto& [name, pieces] : cases) {
    const auto named = PreTokenizerByName(name);
    ASSERT_TRUE(named.ok()) << named.status();
    EXPECT_EQ(Pieces(named->split_rules, kText), pieces) << name;
  }
}

// As the models' own tokenizer.json have it.
TEST(PreTokenizerByName, FamiliesMayIgnoreMergesNormaliseAndAddBos) {
  struct Family {
    std::vector<const char*> names;
    bool ignore_merges, nfc, add_bos;
  };
  const Family families[] = {
      {{"gpt-2",       "phi-2",           "olmo",         "dolma",       "mpt",     "jais",
        "trillion",    "granite-docling", "gigachat",     "jina-es",     "jina-de", "jina-v1-en",
        "jina-v2-es",  "jina-v2-de",      "jina-v2-code", "roberta-bpe", "a.x-4.0", "mellum",
        "modern-bert", "exaone4"},
       false,
       false,
       false},
      {{"default"}, false, false, false},
      {{"falcon"}, false, false, false},
      {{"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b",
        "mellum2"},
       false,
       false,
       false},
      {{"llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2",
        "jina-v5-nano"},
       true,
       false,
       true},
      {{"glm4", "glm5"}, true, false, false},
      {{"dbrx", "smaug-bpe", "chatglm-bpe"}, false, false, false},
      {{"qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2", "megrez"}, false, true, false},
      {{"stablelm2", "hunyuan", "solar-open", "grok-2"}, false, false, false},
      {{"qwen35"}, false, true, false},
      {{"laguna"}, false, false, false},
      {{"ufakzeka"}, false, false, false},
      {{"minicpm5"}, true, false, false},
      {{"bailingmoe", "bailingmoe2", "llada-moe"}, false, false, false},
      {{"seed-coder"}, false, false, false},
      {{"exaone-moe"}, false, false, false},
      {{"tekken"}, true, false, true},
      {{"gpt-4o", "llama4", "kanana2"}, true, false, false},
      {{"minimax-m2"}, false, false, false},
      {{"tiny_aya", "cohere2moe"}, false, false, false},
      {{"youtu"}, true, false, false},
      {{"kimi-k2"}, false, false, false},
      {{"poro-chat", "bloom", "gpt3-finnish"}, false, false, false},
      {{"viking"}, false, false, false},
      {{"deepseek-llm"}, false, false, false},
      {{"deepseek-coder"}, false, false, false},
      {{"deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"}, false, false, false}};
  for (const Family& family : families) {
    const auto first = PreTokenizerByName(family.names[0]);
    ASSERT_TRUE(first.ok()) << first.status();
    for (const char* name : family.names) {
      const auto named = PreTokenizerByName(name);
      ASSERT_TRUE(named.ok()) << named.status();
      EXPECT_EQ(named->ignore_merges, family.ignore_merges) << name;
      EXPECT_EQ(named->nfc, family.nfc) << name;
      EXPECT_EQ(named->add_bos, family.add_bos) << name;
      ASSERT_EQ(named->split_rules.size(), first->split_rules.size()) << name;
      for (size_t i = 0; i < first->split_rules.size(); ++i) {
        EXPECT_EQ(named->split_rules[i].pattern, first->split_rules[i].pattern) << name;
        EXPECT_FALSE(named->split_rules[i].removed);
        EXPECT_FALSE(named->split_rules[i].oniguruma);
      }
    }
  }
  const absl::Status unknown = PreTokenizerByName("abacus").status();
  EXPECT_EQ(unknown.code(), absl::StatusCode::kUnimplemented);
  EXPECT_NE(unknown.message().find("supported are gpt-2, phi-2"), std::string::npos) << unknown;
  EXPECT_NE(unknown.message().find("joyai-llm, hy_v4"), std::string::npos) << unknown;
}

TEST(PreTokenizer, MatchesAndWhatLiesBetweenArePieces) {
  EXPECT_EQ(Pieces({{"b+"}}, "abbcb"), "a|bb|c|b");
  EXPECT_EQ(Pieces({{"b+"}}, "bb"), "bb");
  EXPECT_EQ(Pieces({{"b+"}}, "ac"), "ac");
  EXPECT_EQ(Pieces({{"b+"}}, ""), "");
  EXPECT_EQ(Pieces({}, "abc"), "abc");
  EXPECT_EQ(Pieces({}, ""), "");
}

TEST(PreTokenizer, RulesCutThePiecesOfTheRulesBeforeThem) {
  EXPECT_EQ(Pieces({{"b"}, {"c"}}, "abcca"), "a|b|c|c|a");
  EXPECT_EQ(Pieces({{"a.c"}, {"b"}}, "xabcb"), "x|a|b|c|b");
  // A match does not go beyond the piece that the first rule made.
  EXPECT_EQ(Pieces({{"b"}, {"ab"}}, "ab"), "a|b");
}

TEST(PreTokenizer, RemovedMatchesVanish) {
  EXPECT_EQ(Pieces({{"b+", /*removed=*/true}}, "abbcb"), "a|c");
  EXPECT_EQ(Pieces({{"b", true}}, "b"), "");
}

TEST(PreTokenizer, EmptyMatchesCutNothing) {
  EXPECT_EQ(Pieces({{"x*"}}, "axxb"), "a|xx|b");
  EXPECT_EQ(Pieces({{"x*"}}, "\u00E4x\u4E2D\U0001F600x"), "\u00E4|x|\u4E2D\U0001F600|x");
}

TEST(PreTokenizer, PatternsAreUnicodes) {
  EXPECT_EQ(Pieces({{R"(\p{L}+)"}}, "1\u00E4\u4E2D2"), "1|\u00E4\u4E2D|2");
  EXPECT_EQ(Pieces({{R"(\s+)"}}, "a\u3000b"), "a|\u3000|b");
  EXPECT_EQ(Pieces({{"."}}, "\U0001F600\u00E4"), "\U0001F600|\u00E4");
}

TEST(PreTokenizer, APatternThatDoesNotCompileSaysWhere) {
  const absl::Status status = PreTokenizer::Create({{"ab(c"}}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find("fails at offset 4: missing closing parenthesis"),
            std::string::npos)
      << status;
}

TEST(PreTokenizer, WhatOnigurumaReadsOtherwiseIsRefusedThereAlone) {
  for (const char* pattern :
       {"[a&&b]", R"(\p{N}{1,3}+)", "a{2}+", "a{,2}+", "(x){3}+y", "}+a{1}+"}) {
    EXPECT_EQ(PreTokenizer::Create({{pattern, false, /*oniguruma=*/true}}).status().code(),
              absl::StatusCode::kUnimplemented)
        << pattern;
  }
  for (const char* pattern : {R"(\p{L}+)", "a{2}", "[a}]+", "}+", "a{b}+", "[a&b]"}) {
    EXPECT_TRUE(PreTokenizer::Create({{pattern, false, true}}).ok()) << pattern;
  }
  EXPECT_TRUE(PreTokenizer::Create({{R"(\p{N}{1,3}+)"}}).ok());
}

TEST(NameOfSplitRules, EveryFamilyHasItsNameBack) {
  for (const char* name :
       {"gpt-2",        "default",        "falcon",     "smollm",     "llama-bpe", "glm4",
        "dbrx",         "qwen2",          "stablelm2",  "qwen35",     "laguna",    "ufakzeka",
        "minicpm5",     "bailingmoe",     "seed-coder", "exaone-moe", "tekken",    "gpt-4o",
        "minimax-m2",   "tiny_aya",       "youtu",      "kimi-k2",    "poro-chat", "viking",
        "deepseek-llm", "deepseek-coder", "deepseek-v3"}) {
    const auto named = PreTokenizerByName(name);
    ASSERT_TRUE(named.ok());
    const std::string back = NameOfSplitRules(named->split_rules, named->ignore_merges, named->nfc);
    // llama-bpe and glm4 differ only in what a file says anyway.
    EXPECT_EQ(back, std::string(name) == "glm4" ? "llama-bpe" : name);
  }
}

// Of rules that differ only in what they mean besides, the one that agrees in more; then the first.
TEST(NameOfSplitRules, TheNearestOfSeveralCounts) {
  const auto llama = PreTokenizerByName("llama-bpe"), qwen = PreTokenizerByName("qwen2");
  EXPECT_EQ(NameOfSplitRules(llama->split_rules, true, false), "llama-bpe");
  EXPECT_EQ(NameOfSplitRules(llama->split_rules, false, false), "dbrx");
  EXPECT_EQ(NameOfSplitRules(llama->split_rules, true, true), "llama-bpe");
  EXPECT_EQ(NameOfSplitRules(llama->split_rules, false, true), "dbrx");
  // One that agrees in nothing is still the name of the rules.
  EXPECT_EQ(NameOfSplitRules(PreTokenizerByName("tekken")->split_rules, false, true), "tekken");
  EXPECT_EQ(NameOfSplitRules(qwen->split_rules, true, true), "qwen2");
  EXPECT_EQ(NameOfSplitRules(qwen->split_rules, true, false), "stablelm2");
  EXPECT_EQ(NameOfSplitRules({}, false, false), "");
  std::vector<SplitRule> more = qwen->split_rules;
  more.push_back({"x"});
  EXPECT_EQ(NameOfSplitRules(more, false, true), "");
}

TEST(NameOfSplitRules, SpellingsOfTheSamePatternAgree) {
  // Line ends and code points written out or escaped, quantifiers possessive or not.
  std::string gpt2 = kGpt2Pattern;
  EXPECT_EQ(NameOfSplitRules({{gpt2}}, false, false), "gpt-2");
  for (size_t at = gpt2.find("]+"); at != std::string::npos; at = gpt2.find("]+", at + 3))
    gpt2.replace(at, 2, "]++");
  EXPECT_NE(gpt2, kGpt2Pattern);
  EXPECT_EQ(NameOfSplitRules({{gpt2}}, false, false), "gpt-2");
  EXPECT_EQ(NameOfSplitRules({{"[\r\n]"},
                              {R"(\s?\p{L}+)"},
                              {R"(\s?\p{P}+)"},
                              {R"([\x{4e00}-\x{9FA5}\x{0800}-\x{4E00}\x{AC00}-\x{D7FF}]+)"},
                              {R"(\p{N})"}},
                             false, false),
            "deepseek-coder");
  EXPECT_EQ(NameOfSplitRules({{gpt2 + "|x"}}, false, false), "");
}

}  // namespace
}  // namespace thermocline
