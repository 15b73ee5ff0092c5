// Tokenizers from GGUF metadata: what each key means, and what holds where there is none.
#include <gtest/gtest.h>

#include "engine/text/tokenizer/tokenizer.h"

namespace thermocline {
namespace {

using Texts = std::vector<std::string>;
using Ints = std::vector<int64_t>;
using Ids = std::vector<int32_t>;

Metadata Bpe() {
  return {{"tokenizer.ggml.model", std::string("gpt2")},
          {"tokenizer.ggml.pre", std::string("gpt-2")},
          {"tokenizer.ggml.tokens", Texts{"a", "b", "ab", "\u0120", "\u0120a", "<s>", "</s>"}},
          {"tokenizer.ggml.token_type", Ints{1, 1, 1, 1, 1, 3, 3}},
          {"tokenizer.ggml.merges", Texts{"a b", "\u0120 a"}}};
}

Metadata Pieces(const char* model = "llama") {
  return {{"tokenizer.ggml.model", std::string(model)},
          {"tokenizer.ggml.tokens",
           Texts{"<unk>", "<s>", "</s>", "\u2581", "a", "b", "ab", "\u2581ab"}},
          {"tokenizer.ggml.token_type", Ints{2, 3, 3, 1, 1, 1, 1, 1}},
          {"tokenizer.ggml.scores", std::vector<double>{0, 0, 0, -5, -6, -7, -1, -2}}};
}

std::unique_ptr<Tokenizer> Make(const Metadata& metadata) {
  auto tokenizer = TokenizerFromGguf(metadata);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return tokenizer.ok() ? *std::move(tokenizer) : nullptr;
}

void ExpectRefused(const Metadata& metadata, absl::StatusCode code, const std::string& part) {
  const absl::Status status = TokenizerFromGguf(metadata).status();
  EXPECT_EQ(status.code(), code) << part;
  EXPECT_NE(status.message().find(part), std::string::npos) << status;
}

TEST(TokenizerFromGguf, TheModelSaysTheKind) {
  EXPECT_EQ(*Make(Bpe())->Encode("ab a", true), (Ids{2, 4}));
  EXPECT_EQ(*Make(Pieces())->Encode("ab", true), Ids{7});
  EXPECT_EQ(*Make(Pieces("t5"))->Encode("ab", true), Ids{7});
  for (const char* model : {"none", "no_vocab"}) {
    Metadata metadata = Bpe();
    metadata["tokenizer.ggml.model"] = std::string(model);
    ExpectRefused(metadata, absl::StatusCode::kNotFound, "no tokenizer");
  }
  ExpectRefused({}, absl::StatusCode::kNotFound, "no tokenizer");
  Metadata metadata = Bpe();
  metadata["tokenizer.ggml.model"] = std::string("abacus");
  ExpectRefused(metadata, absl::StatusCode::kUnimplemented, "\"abacus\"");
}

TEST(TokenizerFromGguf, WhatIsMissingOrDoesNotAgreeIsRefused) {
  for (const char* key : {"tokens", "merges"}) {
    Metadata metadata = Bpe();
    metadata.erase(std::string("tokenizer.ggml.") + key);
    ExpectRefused(metadata, absl::StatusCode::kInvalidArgument, key);
  }
  Metadata metadata = Pieces();
  metadata.erase("tokenizer.ggml.scores");
  ExpectRefused(metadata, absl::StatusCode::kInvalidArgument, "scores is missing");
  metadata = Pieces();
  metadata["tokenizer.ggml.scores"] = std::vector<double>{0};
  ExpectRefused(metadata, absl::StatusCode::kInvalidArgument, "8 tokens, but 1 scores");
  for (const Ints& types : {Ints{1}, Ints{1, 1, 1, 1, 1, 3, 3, 1}}) {
    metadata = Bpe();
    metadata["tokenizer.ggml.token_type"] = types;
    ExpectRefused(metadata, absl::StatusCode::kInvalidArgument, "do not agree");
  }
  metadata = Bpe();
  metadata["tokenizer.ggml.merges"] = Texts{"ab"};
  ExpectRefused(metadata, absl::StatusCode::kInvalidArgument, "merge \"ab\" has no space");
  metadata = Bpe();
  metadata["tokenizer.ggml.merges"] = Texts{" a"};  // the first character is the left side's
  ExpectRefused(metadata, absl::StatusCode::kInvalidArgument, "has no space");
  metadata = Bpe();
  metadata["tokenizer.ggml.pre"] = std::string("abacus");
  ExpectRefused(metadata, absl::StatusCode::kUnimplemented, "\"abacus\"");
}

TEST(TokenizerFromGguf, TypesSayWhichTokensAreControl) {
  // 1 normal, 2 unknown, 3 control, 4 user defined, 5 unused, 6 byte.
  Metadata metadata = Bpe();
  metadata["tokenizer.ggml.tokens"] = Texts{"a", "un", "co", "us", "no", "by", ""};
  metadata["tokenizer.ggml.token_type"] = Ints{1, 2, 3, 4, 5, 6, 3};
  metadata["tokenizer.ggml.merges"] = Texts{};
  const auto tokenizer = Make(metadata);
  EXPECT_EQ(tokenizer->vocab_size(), 7);
  for (int32_t id = 0; id < 7; ++id) EXPECT_EQ(tokenizer->IsSpecial(id), id == 1 || id == 2) << id;
  // Those that are found in texts: unknown and control on request, user defined always.
  EXPECT_EQ(*tokenizer->Encode("a un co us a", true), (Ids{0, 1, 2, 3, 0}));
  EXPECT_EQ(*tokenizer->Encode("uscous", false), (Ids{3, 3}));
  // Without types all are normal.
  metadata = Bpe();
  metadata.erase("tokenizer.ggml.token_type");
  EXPECT_FALSE(Make(metadata)->IsSpecial(5));
}

TEST(TokenizerFromGguf, SpecialTokensAreInsideTheVocabulary) {
  Metadata metadata = Bpe();
  for (const char* key : {"bos", "eos", "padding", "unknown"})
    metadata[std::string("tokenizer.ggml.") + key + "_token_id"] = int64_t{6};
  SpecialTokens special = Make(metadata)->special();
  EXPECT_EQ(special.bos, 6);
  EXPECT_EQ(special.eos, 6);
  EXPECT_EQ(special.pad, 6);
  EXPECT_EQ(special.unk, 6);
  for (int64_t outside : {-1, 7}) {
    metadata["tokenizer.ggml.bos_token_id"] = outside;
    EXPECT_EQ(Make(metadata)->special().bos, -1) << outside;
  }
  special = Make(Bpe())->special();
  EXPECT_EQ(special.bos, -1);
  EXPECT_EQ(special.eos, -1);
  EXPECT_EQ(special.pad, -1);
  EXPECT_EQ(special.unk, -1);
  EXPECT_FALSE(special.add_bos);
}

TEST(TokenizerFromGguf, BosComesFirstWhereTheFileOrItsRulesSaySo) {
  Metadata metadata = Bpe();
  for (bool add : {true, false}) {
    metadata["tokenizer.ggml.add_bos_token"] = add;
    EXPECT_EQ(Make(metadata)->special().add_bos, add);
  }
  metadata = Bpe();
  metadata["tokenizer.ggml.pre"] = std::string("llama-bpe");
  EXPECT_TRUE(Make(metadata)->special().add_bos);
  metadata["tokenizer.ggml.add_bos_token"] = false;
  EXPECT_FALSE(Make(metadata)->special().add_bos);
  EXPECT_TRUE(Make(Pieces())->special().add_bos);
  EXPECT_FALSE(Make(Pieces("t5"))->special().add_bos);
  metadata = Pieces();
  metadata["tokenizer.ggml.add_bos_token"] = false;
  EXPECT_FALSE(Make(metadata)->special().add_bos);
}

TEST(TokenizerFromGguf, SentencePieceHasItsOwnDefaults) {
  auto tokenizer = Make(Pieces());
  EXPECT_EQ(tokenizer->special().unk, 0);
  EXPECT_EQ(tokenizer->special().bos, 1);
  EXPECT_EQ(tokenizer->special().eos, 2);
  EXPECT_EQ(tokenizer->end_tokens()[0], 2);
  Metadata metadata = Pieces();
  metadata["tokenizer.ggml.bos_token_id"] = int64_t{4};
  metadata["tokenizer.ggml.eos_token_id"] = int64_t{5};
  metadata["tokenizer.ggml.unknown_token_id"] = int64_t{6};
  tokenizer = Make(metadata);
  EXPECT_EQ(tokenizer->special().bos, 4);
  EXPECT_EQ(tokenizer->special().eos, 5);
  EXPECT_EQ(tokenizer->special().unk, 6);
  EXPECT_EQ(Make(Pieces("t5"))->special().bos, -1);
  // A vocabulary that has no room for them has none.
  for (size_t vocab : {2, 3}) {
    metadata = {{"tokenizer.ggml.model", std::string("llama")},
                {"tokenizer.ggml.tokens", Texts(vocab, "a")},
                {"tokenizer.ggml.scores", std::vector<double>(vocab, 0.0)}};
    EXPECT_EQ(Make(metadata)->special().eos, vocab == 3 ? 2 : -1);
  }
}

TEST(TokenizerFromGguf, ASpaceIsPutInFrontUnlessTheFileSaysNo) {
  Metadata metadata = Pieces();
  EXPECT_EQ(*Make(metadata)->Encode("ab<s>ab", true), (Ids{7, 1, 7}));
  metadata["tokenizer.ggml.add_space_prefix"] = true;
  EXPECT_EQ(*Make(metadata)->Encode("ab", true), Ids{7});
  metadata["tokenizer.ggml.add_space_prefix"] = false;
  EXPECT_EQ(*Make(metadata)->Encode("ab<s>ab", true), (Ids{6, 1, 6}));
}

TEST(TokenizerFromGguf, GenerationEndsAtWhatIsNamedAndAtKnownNames) {
  const char* const known[] = {"<|endoftext|>",        "<|im_end|>", "<|eot_id|>",
                               "<|end_of_text|>",      "<|end|>",    "<end_of_turn>",
                               "<|eom_id|>",           "<|return|>", "</s>",
                               "<|end_of_role|>",      "<|call|>",   "[e~[",
                               "<｜end▁of▁sentence｜>"};
  for (const char* name : known) {
    for (int64_t type : {3, 4}) {
      Metadata metadata = Bpe();
      metadata["tokenizer.ggml.tokens"] = Texts{"a", "b", "ab", "\u0120", "\u0120a", "x", name};
      metadata["tokenizer.ggml.token_type"] = Ints{1, 1, 1, 1, 1, 3, type};
      EXPECT_EQ(Make(metadata)->end_tokens(), type == 3 ? Ids{6} : Ids{}) << name;
    }
  }
  Metadata metadata = Bpe();
  metadata["tokenizer.ggml.eos_token_id"] = int64_t{0};
  metadata["tokenizer.ggml.eot_token_id"] = int64_t{1};
  metadata["tokenizer.ggml.eom_token_id"] = int64_t{2};
  EXPECT_EQ(Make(metadata)->end_tokens(), (Ids{0, 1, 2, 6}));
}

// gpt-oss: <|end|> ends a message, not the turn.
TEST(TokenizerFromGguf, AMessagesEndIsNoEndBesideReturnAndCall) {
  const auto ends = [](const Texts& names) {
    Metadata metadata = Bpe();
    Texts tokens = {"a", "b", "ab", "\u0120", "\u0120a"};
    Ints types = {1, 1, 1, 1, 1};
    for (const std::string& name : names) {
      tokens.push_back(name);
      types.push_back(3);
    }
    metadata["tokenizer.ggml.tokens"] = tokens;
    metadata["tokenizer.ggml.token_type"] = types;
    return Make(metadata)->end_tokens();
  };
  EXPECT_EQ(ends({"<|end|>", "<|return|>", "<|call|>"}), (Ids{6, 7}));
  EXPECT_EQ(ends({"<|end|>", "<|return|>"}), (Ids{5, 6}));
  EXPECT_EQ(ends({"<|end|>", "<|call|>"}), (Ids{5, 6}));
  EXPECT_EQ(ends({"<|return|>", "<|call|>"}), (Ids{5, 6}));
}

TEST(TokenizerFromGguf, Phi3sControlTokensSwallowWhatIsBehindThem) {
  for (const auto& [architecture, strips] :
       {std::pair{"phi3", true}, std::pair{"phimoe", true}, std::pair{"llama", false}}) {
    Metadata metadata = Pieces();
    metadata["general.architecture"] = std::string(architecture);
    metadata["tokenizer.ggml.add_space_prefix"] = false;
    metadata["tokenizer.ggml.tokens"] =
        Texts{"<unk>", "<s>", "<|endoftext|>", "\u2581", "a", "<|user|>", "<x>", "</s>"};
    metadata["tokenizer.ggml.token_type"] = Ints{2, 3, 3, 1, 1, 3, 4, 3};
    const auto tokenizer = Make(metadata);
    const auto behind = [&](const char* token) {
      return tokenizer->Encode(std::string(token) + " \n a", true)->size() == 2;
    };
    EXPECT_EQ(behind("<|user|>"), strips) << architecture;
    EXPECT_EQ(behind("</s>"), strips);
    for (const char* token : {"<unk>", "<s>", "<|endoftext|>", "<x>"})
      EXPECT_FALSE(behind(token)) << token;
  }
}

TEST(TokenizerFromGguf, RulesNormaliseAndIgnoreMergesAsTheirNamesSay) {
  // A with a ring, composed, is the token; decomposed it becomes that with qwen2's NFC alone.
  Metadata metadata = Bpe();
  metadata["tokenizer.ggml.tokens"] = Texts{"\u00C3", "\u0127", "\u00C3\u0127"};  // the bytes of it
  metadata.erase("tokenizer.ggml.token_type");
  metadata["tokenizer.ggml.merges"] = Texts{"\u00C3 \u0127"};
  metadata["tokenizer.ggml.pre"] = std::string("qwen2");
  EXPECT_EQ(*Make(metadata)->Encode("A\u030A", true), Ids{2});
  metadata["tokenizer.ggml.pre"] = std::string("gpt-2");
  EXPECT_TRUE(Make(metadata)->Encode("A\u030A", true)->empty());
  // A whole piece that is a token, without merges that make it.
  metadata = Bpe();
  metadata["tokenizer.ggml.merges"] = Texts{};
  EXPECT_EQ(*Make(metadata)->Encode("ab", true), (Ids{0, 1}));
  metadata["tokenizer.ggml.pre"] = std::string("llama-bpe");
  EXPECT_EQ(*Make(metadata)->Encode("ab", true), Ids{2});
}

TEST(TokenizerFromGguf, TheChatTemplateComesAlong) {
  EXPECT_EQ(Make(Bpe())->chat_template(), "");
  Metadata metadata = Bpe();
  metadata["tokenizer.chat_template"] = std::string("{{ x }}");
  EXPECT_EQ(Make(metadata)->chat_template(), "{{ x }}");
}

}  // namespace
}  // namespace thermocline
