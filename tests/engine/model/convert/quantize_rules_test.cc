// What quantising a file keeps, replaces, warns of and reports.
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "engine/formats/checkpoint.h"
#include "engine/formats/float_tensor.h"
#include "engine/model/convert/quantize_model.h"
#include "tests/support/model_bytes.h"
#include "tests/support/temporary_file.h"

namespace thermocline {
namespace {

class QuantizeRulesTest : public testing::Test {
 protected:
  QuantizeRulesTest() {
    options_.input = input_.path();
    options_.output = output_.path();
    options_.type = DType::kQ8_0;
    options_.replace = true;
    options_.num_threads = 2;
    options_.warn = [this](const std::string& message) { warnings_.push_back(message); };
  }
  // An embedding, a matrix of 96 columns, one of 256, a norm, and numbers that are no weights.
  void WriteInput(GgufBytes gguf = {}) {
    gguf.Tensor("token_embd.weight", {256, 4}, 0, 0);
    gguf.Tensor("blk.0.attn_q.weight", {96, 2}, 0, 4096);
    gguf.Tensor("blk.0.attn_k.weight", {256, 2}, 0, 4864);
    gguf.Tensor("blk.0.attn_norm.weight", {256}, 0, 6912);
    gguf.Tensor("ids", {4}, 26, 7936);
    gguf.Tensor("output.weight", {256, 4}, 0, 7968);
    std::vector<float> values(7936 / 4);
    for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 17) - 8.0f;
    std::string data = RawList(values) + RawList<int32_t>({1, 2, 3, 4});
    data.resize(7968, '\0');
    WriteBytes(input_.path(), gguf.File(data + RawList(std::vector<float>(1024, 0.5f))));
  }
  std::map<std::string, DType> Types() {
    std::map<std::string, DType> types;
    const auto checkpoint = Checkpoint::Open(output_.path());
    EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
    if (checkpoint.ok()) {
      for (const auto& [name, tensor] : (*checkpoint)->tensors()) types[name] = tensor.dtype;
    }
    return types;
  }
  void ExpectError(const std::string& part) {
    const absl::Status status = QuantizeModel(options_).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << part;
    EXPECT_NE(status.message().find(part), std::string::npos) << status;
  }

  TemporaryFile input_{"rules-in.gguf"}, output_{"rules-out.gguf"};
  QuantizeOptions options_;
  std::vector<std::string> warnings_;
};

TEST_F(QuantizeRulesTest, EveryTensorGetsItsTypeAndWhatIsNoWeightIsCopied) {
  WriteInput();
  options_.type = DType::kQ4_K;
  const auto result = QuantizeModel(options_);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(Types(), (std::map<std::string, DType>{{"token_embd.weight", DType::kQ4_K},
                                                   {"blk.0.attn_q.weight", DType::kIQ4_NL},
                                                   {"blk.0.attn_k.weight", DType::kQ4_K},
                                                   {"blk.0.attn_norm.weight", DType::kF32},
                                                   {"ids", DType::kI32},
                                                   {"output.weight", DType::kQ6_K}}));
  ASSERT_EQ(warnings_.size(), 1u);
  EXPECT_NE(warnings_[0].find("the rows of 1 tensors are not whole blocks of Q4_K"),
            std::string::npos);
  // 144 bytes for 256 weights of Q4_K, 18 for 32 of IQ4_NL, 210 for 256 of Q6_K.
  EXPECT_EQ(
      result->bytes_by_type,
      (std::map<std::string, int64_t>{
          {"Q4_K", 6 * 144}, {"IQ4_NL", 6 * 18}, {"F32", 1024}, {"I32", 16}, {"Q6_K", 4 * 210}}));
  EXPECT_EQ(result->output_bytes, 6 * 144 + 6 * 18 + 1024 + 16 + 4 * 210);
  EXPECT_EQ(result->input_bytes, 4096 + 768 + 2048 + 1024 + 16 + 4096);
  const auto in = Checkpoint::Open(input_.path()), out = Checkpoint::Open(output_.path());
  int32_t ids[4] = {};
  ASSERT_TRUE((*out)->Read(*(*out)->Find("ids"), 0, 16, ids).ok());
  EXPECT_EQ(ids[3], 4);
}

TEST_F(QuantizeRulesTest, WithoutAHeadTheEmbeddingIsTheOutput) {
  GgufBytes gguf;
  uint64_t offset = 0;
  for (const char* name :
       {"token_embd.weight", "blk.12.attn_v.weight", "blk.2.attn_v.weight", "blkx.attn_v.weight"}) {
    gguf.Tensor(name, {256, 2}, 0, offset);
    offset += 2048;
  }
  WriteBytes(input_.path(), gguf.File(RawList(std::vector<float>(2048, 0.5f))));
  options_.type = DType::kQ4_K;
  ASSERT_TRUE(QuantizeModel(options_).ok());
  // Thirteen layers: an eighth is 1, the last from 91 / 8 = 11 on; (2 - 1) % 3 is not 2. What is in
  // no layer counts as before the first.
  EXPECT_EQ(Types(), (std::map<std::string, DType>{{"token_embd.weight", DType::kQ6_K},
                                                   {"blk.12.attn_v.weight", DType::kQ6_K},
                                                   {"blk.2.attn_v.weight", DType::kQ4_K},
                                                   {"blkx.attn_v.weight", DType::kQ6_K}}));
}

TEST_F(QuantizeRulesTest, MetadataStayButForThoseOfTheFileItself) {
  GgufBytes gguf;
  gguf.alignment = 64;
  gguf.U32("general.alignment", 64).U32("general.file_type", 0);
  gguf.U32("general.quantization_version", 1).Value("split.no", 2, Raw<uint16_t>(0));
  gguf.Value("split.count", 2, Raw<uint16_t>(1)).String("quantize.imatrix.file", "old");
  gguf.Value("x.small", 0, Raw<uint8_t>(9)).String("general.name", "n");
  gguf.Tensor("t", {32}, 0, 0);
  WriteBytes(input_.path(), gguf.File(std::string(128, '\0')));
  ASSERT_TRUE(QuantizeModel(options_).ok()) << QuantizeModel(options_).status();
  const auto out = Checkpoint::Open(output_.path());
  ASSERT_TRUE(out.ok()) << out.status();
  EXPECT_EQ((*out)->metadata(), (Metadata{{"general.file_type", int64_t{7}},
                                          {"general.quantization_version", int64_t{2}},
                                          {"general.name", std::string("n")},
                                          {"x.small", int64_t{9}}}));
  EXPECT_EQ((*out)->metadata_types().at("x.small").type, 0u);
}

TEST_F(QuantizeRulesTest, TheFirstRuleThatMatchesDecides) {
  WriteInput();
  options_.rules = {{"blk\\.0\\.attn_k\\.weight", DType::kF16},
                    {"blk.*", DType::kBF16},
                    {"output.weight", DType::kF32}};
  ASSERT_TRUE(QuantizeModel(options_).ok()) << QuantizeModel(options_).status();
  const std::map<std::string, DType> types = Types();
  EXPECT_EQ(types.at("blk.0.attn_k.weight"), DType::kF16);
  EXPECT_EQ(types.at("blk.0.attn_q.weight"), DType::kBF16);
  EXPECT_EQ(types.at("blk.0.attn_norm.weight"), DType::kBF16);  // before all else
  EXPECT_EQ(types.at("output.weight"), DType::kF32);
  EXPECT_EQ(types.at("token_embd.weight"), DType::kQ8_0);
  EXPECT_TRUE(warnings_.empty());
  options_.rules = {{"nothing", DType::kF16}, {"ou.*", DType::kF16}};
  ASSERT_TRUE(QuantizeModel(options_).ok());
  EXPECT_EQ(warnings_, std::vector<std::string>{"rule \"nothing\" decides no tensor"});
}

TEST_F(QuantizeRulesTest, RulesThatDoNotFitNameRuleTensorAndReason) {
  WriteInput();
  options_.rules = {{"ids", DType::kQ8_0}};
  ExpectError("rule \"ids\": tensor \"ids\" has type I32, which is no weight format");
  options_.rules = {{".*attn_q.*", DType::kQ6_K}};
  ExpectError(
      "rule \".*attn_q.*\": rows of 96 weights of tensor \"blk.0.attn_q.weight\" are not whole "
      "blocks of Q6_K");
}

TEST_F(QuantizeRulesTest, QuantisedTensorsStayUnlessAskedOrAlreadyOfTheType) {
  WriteInput();
  options_.type = DType::kQ8_0;
  ASSERT_TRUE(QuantizeModel(options_).ok());
  // The file of Q8_0 again, as Q4_0.
  TemporaryFile second("rules-second.gguf");
  options_.input = output_.path();
  options_.output = second.path();
  options_.type = DType::kQ4_0;
  warnings_.clear();
  const auto kept = QuantizeModel(options_);
  ASSERT_TRUE(kept.ok()) << kept.status();
  EXPECT_EQ(kept->bytes_by_type.count("Q4_0"), 0u);
  ASSERT_EQ(warnings_.size(), 1u);
  EXPECT_NE(warnings_[0].find("4 tensors are quantised already"), std::string::npos)
      << warnings_[0];
  options_.requantize = true;
  warnings_.clear();
  const auto again = QuantizeModel(options_);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->bytes_by_type.at("Q4_0"), (4 * 8 + 2 * 3 + 2 * 8) * 18);
  EXPECT_TRUE(warnings_.empty());
  options_.type = DType::kQ8_0;
  options_.requantize = false;
  ASSERT_TRUE(QuantizeModel(options_).ok());
  EXPECT_TRUE(warnings_.empty());  // they are what they should be
}

TEST_F(QuantizeRulesTest, ThreadsAreZeroTo1024) {
  WriteInput();
  for (int threads : {0, 1, 256}) {
    options_.num_threads = threads;
    EXPECT_TRUE(QuantizeModel(options_).ok()) << threads;
  }
  options_.num_threads = 1025;
  ExpectError("threads = 1025");
  options_.num_threads = -1;
  ExpectError("threads = -1");
}

TEST_F(QuantizeRulesTest, ProgressEndsAtTheInputsBytes) {
  WriteInput();
  std::vector<std::pair<int64_t, int64_t>> seen;
  options_.progress = [&](int64_t done, int64_t total) { seen.emplace_back(done, total); };
  const auto result = QuantizeModel(options_);
  ASSERT_TRUE(result.ok());
  ASSERT_EQ(seen.size(), 6u);
  int64_t before = 0;
  for (const auto& [done, total] : seen) {
    EXPECT_GT(done, before);
    EXPECT_EQ(total, result->input_bytes);
    before = done;
  }
  EXPECT_EQ(before, result->input_bytes);
}

TEST_F(QuantizeRulesTest, TheInputIsNeverTheOutput) {
  WriteInput();
  options_.output = options_.input;
  ExpectError("is the input");
  options_.output = output_.path();
  ASSERT_TRUE(QuantizeModel(options_).ok());
  options_.replace = false;
  EXPECT_EQ(QuantizeModel(options_).status().code(), absl::StatusCode::kAlreadyExists);
}

}  // namespace
}  // namespace thermocline
