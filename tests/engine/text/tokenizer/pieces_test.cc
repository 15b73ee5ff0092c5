// SentencePiece's models by hand: scores, ranks, the most probable segmentation, spaces, bytes.
#include <gtest/gtest.h>

#include "engine/text/tokenizer/sentencepiece_tokenizer.h"

namespace thermocline {
namespace {

using Ids = std::vector<int32_t>;
using Model = SentencePieceOptions::Model;
using Prefix = SentencePieceOptions::Prefix;

SentencePieceOptions Options(Model model, std::vector<std::string> tokens,
                             std::vector<float> scores = {}) {
  SentencePieceOptions options;
  options.model = model;
  options.tokens = std::move(tokens);
  options.scores = std::move(scores);
  options.prefix = Prefix::kNever;
  options.special.unk = 0;
  return options;
}

Ids Encode(const SentencePieceOptions& options, const std::string& text) {
  const auto tokenizer = SentencePieceTokenizer::Create(options);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return *(*tokenizer)->Encode(text, true);
}

TEST(ScoredMerges, TheBestUnionFirstThenTheLeftmost) {
  const std::vector<std::string> tokens = {"<unk>", "a", "b", "c", "ab", "bc"};
  EXPECT_EQ(Encode(Options(Model::kScoredMerges, tokens, {0, 0, 0, 0, -1, -2}), "abc"),
            (Ids{4, 3}));
  EXPECT_EQ(Encode(Options(Model::kScoredMerges, tokens, {0, 0, 0, 0, -2, -1}), "abc"),
            (Ids{1, 5}));
  EXPECT_EQ(Encode(Options(Model::kScoredMerges, tokens, {0, 0, 0, 0, -1, -1}), "abc"),
            (Ids{4, 3}));
  EXPECT_EQ(Encode(Options(Model::kScoredMerges, {"<unk>", "a", "aa"}, {0, 0, -1}), "aaa"),
            (Ids{2, 1}));
}

TEST(ScoredMerges, ACharacterThatIsNoTokenCanBePartOfOne) {
  // "x" and "y" are no tokens, "xy" is.
  const SentencePieceOptions options =
      Options(Model::kScoredMerges, {"<unk>", "a", "xy", "axy"}, {0, 0, -1, -2});
  EXPECT_EQ(Encode(options, "xy"), Ids{2});
  EXPECT_EQ(Encode(options, "axy"), Ids{3});
  EXPECT_EQ(Encode(options, "x"), Ids{0});
  EXPECT_EQ(Encode(options, "xax"), (Ids{0, 1, 0}));
}

TEST(RankedMerges, PairsInTheirOrder) {
  SentencePieceOptions options =
      Options(Model::kRankedMerges, {"<unk>", "a", "b", "c", "ab", "bc"});
  options.merges = {{"a", "b"}, {"b", "c"}};
  EXPECT_EQ(Encode(options, "abc"), (Ids{4, 3}));
  options.merges = {{"b", "c"}, {"a", "b"}};
  EXPECT_EQ(Encode(options, "abc"), (Ids{1, 5}));
}

TEST(Unigram, TheMostProbableSegmentationWins) {
  const std::vector<std::string> tokens = {"<unk>", "a", "b", "ab", "ba", "aba"};
  // a + b = -4 against ab = -3.
  EXPECT_EQ(Encode(Options(Model::kUnigram, tokens, {0, -2, -2, -3, -9, -9}), "ab"), Ids{3});
  EXPECT_EQ(Encode(Options(Model::kUnigram, tokens, {0, -1, -1, -3, -9, -9}), "ab"), (Ids{1, 2}));
  // ab + a = -5, a + ba = -4, aba = -4.5.
  EXPECT_EQ(Encode(Options(Model::kUnigram, tokens, {0, -2, -9, -3, -2, -4.5f}), "aba"),
            (Ids{1, 4}));
  EXPECT_EQ(Encode(Options(Model::kUnigram, tokens, {0, -2, -9, -3, -2, -3.5f}), "aba"), Ids{5});
  // Of equal ones the first found, whose last piece begins earliest.
  EXPECT_EQ(Encode(Options(Model::kUnigram, tokens, {0, -2, -2, -4, -9, -9}), "ab"), Ids{3});
}

// An unknown character costs 10 more than the least probable token.
TEST(Unigram, UnknownCharactersAreOneUnknownToken) {
  const SentencePieceOptions options = Options(Model::kUnigram, {"<unk>", "a", "xyz"}, {0, -1, -3});
  EXPECT_EQ(Encode(options, "x"), Ids{0});
  EXPECT_EQ(Encode(options, "xx"), Ids{0});
  EXPECT_EQ(Encode(options, "xxaxa"), (Ids{0, 1, 0, 1}));
  EXPECT_EQ(Encode(options, "xyzx"), (Ids{2, 0}));
  SentencePieceOptions without = options;
  without.special.unk = -1;
  EXPECT_EQ(Encode(without, "xa"), Ids{1});
}

TEST(Pieces, CharactersOfAnyLengthAreWhole) {
  for (Model model : {Model::kScoredMerges, Model::kUnigram}) {
    const SentencePieceOptions options =
        Options(model, {"<unk>", "\u00E4", "\u4E2D", "\U0001F600", "a", "\u00E4\u4E2D\U0001F600a"},
                {0, -1, -1, -1, -1, -20});
    EXPECT_EQ(Encode(options, "\u00E4\u4E2D\U0001F600a"), (Ids{1, 2, 3, 4}));
  }
}

TEST(Pieces, BytesStandForWhatNoTokenCovers) {
  for (Model model : {Model::kScoredMerges, Model::kRankedMerges, Model::kUnigram}) {
    SentencePieceOptions options =
        Options(model, {"<unk>", "<0xC3>", "<0xA4>", "a", "<0x0A>"}, std::vector<float>(5, -1));
    if (model == Model::kRankedMerges) options.scores.clear();
    EXPECT_EQ(Encode(options, "\u00E4a\n"), (Ids{1, 2, 3, 4}));
    // A byte that is missing makes the whole character unknown.
    EXPECT_EQ(Encode(options, "\u00E5"), Ids{0});
    // Without fallback they are texts like others.
    options.byte_fallback = false;
    EXPECT_EQ(Encode(options, "\u00E4"), Ids{0});
  }
  SentencePieceOptions options = Options(Model::kScoredMerges, {"<unk>", "<0x41>"}, {0, 0});
  const auto tokenizer = *SentencePieceTokenizer::Create(options);
  EXPECT_EQ(tokenizer->TokenBytes(1, true), "A");
  options.byte_fallback = false;
  EXPECT_EQ((*SentencePieceTokenizer::Create(options))->TokenBytes(1, true), "<0x41>");
}

TEST(Pieces, OnlyTheExactSpellingIsAByte) {
  const char* const texts[] = {"<0x4>", "<0x041>", "<0xG1>", "<0x41", "0x41>", "<0x41)", "<1x41>"};
  for (const char* text : texts) {
    const auto tokenizer =
        *SentencePieceTokenizer::Create(Options(Model::kScoredMerges, {"<unk>", text}, {0, 0}));
    EXPECT_EQ(tokenizer->TokenBytes(1, true), text);
  }
}

TEST(Pieces, SpacesAreWrittenAsTheirSign) {
  const SentencePieceOptions options =
      Options(Model::kScoredMerges, {"<unk>", "\u2581", "a", "\u2581a"}, {0, 0, 0, -1});
  EXPECT_EQ(Encode(options, "a a"), (Ids{2, 3}));
  EXPECT_EQ(Encode(options, "a\u2581a"), (Ids{2, 3}));
  const auto tokenizer = *SentencePieceTokenizer::Create(options);
  EXPECT_EQ(tokenizer->Decode({2, 3}, true), "a a");
}

TEST(Pieces, ASpaceGoesInFrontOfTheTextOrOfEveryPart) {
  SentencePieceOptions options =
      Options(Model::kScoredMerges, {"<unk>", "\u2581", "a", "<x>"}, {0, 0, 0, 0});
  options.added = {{.id = 3, .text = "<x>"}};
  struct Case {
    Prefix prefix;
    bool even;
    const char* text;
    Ids ids;
  };
  const Case cases[] = {{Prefix::kNever, true, "a<x>a", {2, 3, 2}},
                        {Prefix::kFirst, true, "a<x>a", {1, 2, 3, 2}},
                        {Prefix::kEvery, true, "a<x>a", {1, 2, 3, 1, 2}},
                        {Prefix::kFirst, true, "<x>a", {3, 2}},
                        {Prefix::kEvery, true, "<x>a", {3, 1, 2}},
                        {Prefix::kEvery, true, " a", {1, 1, 2}},
                        {Prefix::kEvery, false, " a", {1, 2}},
                        {Prefix::kEvery, false, "a", {1, 2}},
                        {Prefix::kFirst, false, " a", {1, 2}},
                        {Prefix::kEvery, true, "", {}}};
  for (const Case& c : cases) {
    options.prefix = c.prefix;
    options.prefix_even_before_space = c.even;
    EXPECT_EQ(Encode(options, c.text), c.ids) << static_cast<int>(c.prefix) << " " << c.text;
  }
}

// A token that goes over a space is found only where words are not apart.
TEST(Pieces, WordsAreApartUnlessATokenJoinsThem) {
  for (Model model : {Model::kScoredMerges, Model::kUnigram}) {
    SentencePieceOptions options = Options(
        model, {"<unk>", "\u2581", "a", "\u2581a", "a\u2581", "a\u2581a"}, {0, -9, -9, -9, -9, -1});
    EXPECT_EQ(Encode(options, "a a"), Ids{5});
    options.split_spaces = true;
    EXPECT_EQ(Encode(options, "a a"), (Ids{2, 3}));
    // Runs of spaces: each alone where they split, together where they do not.
    SentencePieceOptions runs =
        Options(model, {"<unk>", "\u2581", "a", "\u2581\u2581"}, {0, -2, -2, -1});
    EXPECT_EQ(Encode(runs, "a  a"), (Ids{2, 3, 2}));
    runs.split_spaces = true;
    EXPECT_EQ(Encode(runs, "a  a"), (Ids{2, 1, 1, 2}));
    EXPECT_EQ(Encode(runs, "  a"), (Ids{1, 1, 2}));
  }
}

TEST(Pieces, TheFirstOfEqualTokensWinsAndAddedOnesMayBeMerged) {
  EXPECT_EQ(Encode(Options(Model::kScoredMerges, {"<unk>", "a", "a"}, {0, 0, 0}), "a"), Ids{1});
  SentencePieceOptions options = Options(Model::kRankedMerges, {"<unk>", "a", "b", "ab", "abb"});
  options.added = {{.id = 3, .text = "ab"}};
  options.merges = {{"a", "b"}, {"ab", "b"}};
  EXPECT_EQ(Encode(options, "abb"), (Ids{3, 2}));  // it is found before anything else
}

TEST(Pieces, RepeatedWordsGetTheSameIds) {
  const SentencePieceOptions options =
      Options(Model::kScoredMerges, {"<unk>", "\u2581", "a", "b", "ab"}, {0, -1, -1, -1, 0});
  std::string word(70, 'a');
  word += "b";
  for (const std::string& text : {std::string("ab"), word}) {
    Ids once = Encode(options, text), expected = once;
    for (int n = 0; n < 2; ++n) {
      expected.push_back(1);
      expected.insert(expected.end(), once.begin(), once.end());
    }
    EXPECT_EQ(Encode(options, text + " " + text + " " + text), expected);
  }
}

}  // namespace
}  // namespace thermocline
