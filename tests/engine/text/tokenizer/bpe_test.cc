// Byte-level pairs: the alphabet, priorities, and what is made of bytes and ids.
#include "engine/text/tokenizer/bpe_tokenizer.h"

#include <gtest/gtest.h>

#include "engine/text/tokenizer/merge_pairs.h"

namespace thermocline {
namespace {

using Ids = std::vector<int32_t>;

// GPT-2: '!' to '~', U+00A1 to U+00AC and U+00AE to U+00FF stand for themselves; the 68 other
// bytes, in order, for U+0100 on.
TEST(PrintableBytes, FollowGpt2sAlphabet) {
  int next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    const bool itself =
        (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
    const int code_point = itself ? byte : next++;
    std::string text;
    if (code_point < 0x80) {
      text = {static_cast<char>(code_point)};
    } else {
      text = {static_cast<char>(0xC0 + code_point / 64), static_cast<char>(0x80 + code_point % 64)};
    }
    const std::string bytes(1, static_cast<char>(byte));
    EXPECT_EQ(PrintableOfBytes(bytes), text) << byte;
    EXPECT_EQ(BytesOfPrintable(text), bytes) << byte;
  }
  EXPECT_EQ(next, 0x100 + 68);
  EXPECT_EQ(PrintableOfBytes(" \n"), "\u0120\u010A");
}

TEST(PrintableBytes, WhatIsOutsideTheAlphabetStandsForItsUtf8) {
  EXPECT_EQ(BytesOfPrintable("\u4E2D"), "\u4E2D");
  EXPECT_EQ(BytesOfPrintable("a\u4E2D\u0120"), "a\u4E2D ");
  EXPECT_EQ(BytesOfPrintable("\u0144"), "\u0144");  // one behind the last of the 68
  EXPECT_EQ(BytesOfPrintable("\u0143"), "\xAD");
  EXPECT_EQ(BytesOfPrintable("\xC4"), "\xC4");  // half a character
  EXPECT_EQ(BytesOfPrintable(""), "");
}

BpeOptions Options(std::vector<std::string> tokens,
                   std::vector<std::pair<std::string, std::string>> merges) {
  BpeOptions options;
  options.tokens = std::move(tokens);
  options.merges = std::move(merges);
  options.split_rules = {{kGpt2Pattern}};
  return options;
}

Ids Encode(const BpeOptions& options, const std::string& text) {
  const auto tokenizer = BpeTokenizer::Create(options);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return *(*tokenizer)->Encode(text, true);
}

TEST(BpeTokenizer, PairsMergeInOrderOfPriorityThenFromTheLeft) {
  // a b c ab bc abc.
  const std::vector<std::string> tokens = {"a", "b", "c", "ab", "bc", "abc"};
  EXPECT_EQ(Encode(Options(tokens, {{"a", "b"}, {"b", "c"}}), "abc"), (Ids{3, 2}));
  EXPECT_EQ(Encode(Options(tokens, {{"b", "c"}, {"a", "b"}}), "abc"), (Ids{0, 4}));
  EXPECT_EQ(Encode(Options(tokens, {{"b", "c"}, {"a", "bc"}}), "abc"), Ids{5});
  EXPECT_EQ(Encode(Options(tokens, {{"ab", "c"}, {"a", "b"}}), "abc"), Ids{5});
  EXPECT_EQ(Encode(Options({"a", "aa"}, {{"a", "a"}}), "aaa"), (Ids{1, 0}));
  EXPECT_EQ(Encode(Options({"a", "aa", "aaaa"}, {{"a", "a"}, {"aa", "aa"}}), "aaaaaaa"),
            (Ids{2, 1, 0}));
  // Of two merges of one pair the first counts: they make the same token, at the better rank.
  EXPECT_EQ(Encode(Options(tokens, {{"a", "b"}, {"b", "c"}, {"a", "b"}}), "abc"), (Ids{3, 2}));
}

// What merges make is the vocabulary's own token, not an added one of the same text.
TEST(BpeTokenizer, MergesMakeTokensOfTheVocabulary) {
  BpeOptions options = Options({"a", "b", "ab", "ab"}, {{"a", "b"}});
  options.added = {{.id = 3, .text = "ab", .special = true}};
  const auto tokenizer = BpeTokenizer::Create(options);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ(*(*tokenizer)->Encode("ab", /*parse_special=*/false), Ids{2});
  EXPECT_EQ(*(*tokenizer)->Encode("ab", /*parse_special=*/true), Ids{3});
}

TEST(BpeTokenizer, PiecesAreMergedEachByItself) {
  const BpeOptions options =
      Options({"a", "\u0120", "a\u0120", "\u0120a"}, {{"a", "\u0120"}, {"\u0120", "a"}});
  EXPECT_EQ(Encode(options, "a a a"), (Ids{0, 3, 3}));
  EXPECT_EQ(Encode(options, ""), Ids{});
}

TEST(BpeTokenizer, TheFirstOfEqualTokensWins) {
  EXPECT_EQ(Encode(Options({"a", "a", "b", "b"}, {}), "ab"), (Ids{0, 2}));
}

TEST(BpeTokenizer, AWholePieceNeedsNoMergesWhereTheyAreIgnored) {
  BpeOptions options = Options({"a", "b", "ab", "\u0120ab", "\u0120"}, {});
  EXPECT_EQ(Encode(options, "ab ab"), (Ids{0, 1, 4, 0, 1}));
  options.ignore_merges = true;
  EXPECT_EQ(Encode(options, "ab ab"), (Ids{2, 3}));
  EXPECT_EQ(Encode(options, "aba"), (Ids{0, 1, 0}));
}

// Pieces that repeat, and pieces of more than 64 bytes, which are not remembered.
TEST(BpeTokenizer, RepeatedPiecesGetTheSameIds) {
  BpeOptions options = Options({"a", "b", "\u0120", "ab"}, {{"a", "b"}});
  for (size_t length : {1, 63, 64, 65, 66, 200}) {
    std::string word, text;
    for (size_t i = 0; i < length; ++i) word += i % 3 == 2 ? "b" : "a";
    Ids once;
    for (size_t i = 0; i < length; ++i) {
      const bool pair = i + 1 < length && word[i] == 'a' && word[i + 1] == 'b';
      once.push_back(pair ? 3 : word[i] == 'a' ? 0 : 1);
      i += pair;
    }
    Ids expected = once;
    text = word;
    for (int n = 0; n < 3; ++n) {
      // A space before it makes another piece; the same three times.
      text += " " + word;
      expected.push_back(2);
      expected.insert(expected.end(), once.begin(), once.end());
    }
    EXPECT_EQ(Encode(options, text), expected) << length;
  }
}

TEST(Tokenizer, AddedTokensLieInsideTheVocabularyAndHaveTexts) {
  for (const auto& [id, text] : {std::pair{-1, "x"}, std::pair{2, "x"}, std::pair{0, ""}}) {
    BpeOptions options = Options({"a", "b"}, {});
    options.added = {{.id = id, .text = text}};
    const absl::Status status = BpeTokenizer::Create(options).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << id;
    EXPECT_NE(status.message().find("but the vocabulary has 2"), std::string::npos) << status;
  }
  BpeOptions options = Options({"a", "b"}, {});
  options.added = {{.id = 1, .text = "<x>"}};
  EXPECT_EQ(Encode(options, "a<x>a"), (Ids{0, 1, 0}));
}

TEST(Tokenizer, TokensAndTextsThere) {
  BpeOptions options = Options({"a", "\u0120b", "\u00C3", "", "<s>"}, {});
  options.added = {{.id = 4, .text = "<s>", .special = true}};
  options.special = {.bos = 4, .eos = 0, .pad = 1, .unk = 2, .add_bos = true};
  options.end_tokens = {0, 4};
  options.chat_template = "T";
  auto tokenizer = *BpeTokenizer::Create(options);
  EXPECT_EQ(tokenizer->vocab_size(), 5);
  EXPECT_EQ(tokenizer->TokenBytes(1, false), " b");
  EXPECT_EQ(tokenizer->TokenBytes(2, false), "\xC3");
  EXPECT_EQ(tokenizer->TokenBytes(3, true), "");
  EXPECT_EQ(tokenizer->TokenBytes(4, true), "<s>");
  EXPECT_EQ(tokenizer->TokenBytes(4, false), "");
  EXPECT_EQ(tokenizer->TokenBytes(5, true), "");
  EXPECT_EQ(tokenizer->TokenBytes(-1, true), "");
  EXPECT_TRUE(tokenizer->IsSpecial(4));
  for (int32_t id : {-1, 0, 3, 5}) EXPECT_FALSE(tokenizer->IsSpecial(id)) << id;
  EXPECT_EQ(tokenizer->Decode({1, 4, 0}, true), " b<s>a");
  EXPECT_EQ(tokenizer->Decode({1, 4, 0}, false), " ba");
  EXPECT_EQ(tokenizer->Decode({2}, true), "\uFFFD");
  EXPECT_EQ(tokenizer->special().bos, 4);
  EXPECT_EQ(tokenizer->special().add_bos, true);
  EXPECT_EQ(tokenizer->end_tokens(), (Ids{0, 4}));
  EXPECT_EQ(tokenizer->chat_template(), "T");
  options.decode_strips_space = true;
  tokenizer = *BpeTokenizer::Create(options);
  EXPECT_EQ(tokenizer->Decode({1, 1}, true), "b b");
  EXPECT_EQ(tokenizer->Decode({0, 1}, true), "a b");
  EXPECT_EQ(tokenizer->Decode({}, true), "");
}

TEST(Tokenizer, TextsHaveAtMost64MiB) {
  const auto tokenizer = *BpeTokenizer::Create(Options({"a"}, {}));
  const std::string text(static_cast<size_t>(Tokenizer::kMaxTextBytes) + 1, '\n');
  const absl::Status status = tokenizer->Encode(text, true).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find("67108865 bytes"), std::string::npos) << status;
}

TEST(Tokenizer, IllFormedTextIsMadeValidAndNormalisedBetweenTokens) {
  BpeOptions options = Options({"a", "A", "<A>", "\u00EF", "\u00BF", "\u00BD"}, {});
  options.added = {{.id = 2, .text = "<A>"}};
  options.normalizer = {{.kind = NormalizerStep::Kind::kLowercase}};
  EXPECT_EQ(Encode(options, "A<A>A"), (Ids{0, 2, 0}));
  EXPECT_EQ(Encode(options, "a\xFF"), (Ids{0, 3, 4, 5}));  // U+FFFD
}

// Symbols 0 to 9 with a table of merges: rank, left, right, result.
TEST(MergePairs, StaleMergesAreSkipped) {
  MergeTable table;
  table.Add(1, 2, 10);   // rank 0
  table.Add(2, 3, 11);   // rank 1: its left side is gone once 1 2 merged
  table.Add(10, 3, 12);  // rank 2
  table.Add(3, 4, 13);   // rank 3
  Ids out;
  MergePairs(LinkSymbols({1, 2, 3, 4}), table, &out);
  EXPECT_EQ(out, (Ids{12, 4}));
  out.clear();
  MergePairs(LinkSymbols({2, 3, 4}), table, &out);
  EXPECT_EQ(out, (Ids{11, 4}));
  out.clear();
  MergePairs(LinkSymbols({3, 4, 1, 2}), table, &out);
  EXPECT_EQ(out, (Ids{13, 10}));
  out = {7};
  MergePairs(LinkSymbols({}), table, &out);
  EXPECT_EQ(out, Ids{7});
  MergePairs(LinkSymbols({5}), table, &out);
  EXPECT_EQ(out, (Ids{7, 5}));
}

// What a merge makes may merge with what is on its left.
TEST(MergePairs, NewPairsAreFoundOnEitherSide) {
  MergeTable table;
  table.Add(3, 4, 10);
  table.Add(2, 10, 11);
  table.Add(1, 11, 12);
  table.Add(12, 5, 13);
  Ids out;
  MergePairs(LinkSymbols({1, 2, 3, 4, 5}), table, &out);
  EXPECT_EQ(out, Ids{13});
}

TEST(MergeTable, TheFirstOfTwoForAPairCounts) {
  MergeTable table;
  table.Add(1, 2, 10);
  table.Add(1, 2, 11);
  table.Add(2, 1, 12);
  double rank = -1;
  int32_t result = 0;
  EXPECT_TRUE(table(1, 2, &rank, &result));
  EXPECT_EQ(rank, 0);
  EXPECT_EQ(result, 10);
  EXPECT_TRUE(table(2, 1, &rank, &result));
  EXPECT_EQ(rank, 2);
  EXPECT_EQ(result, 12);
  EXPECT_FALSE(table(2, 2, &rank, &result));
}

}  // namespace
}  // namespace thermocline
