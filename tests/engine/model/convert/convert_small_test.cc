// What convert writes for a small folder: metadata, types and values, tensor by tensor.
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "engine/formats/checkpoint.h"
#include "engine/model/convert/convert.h"
#include "tests/support/hf_folder.h"
#include "tests/support/temporary_file.h"

namespace thermocline {
namespace {

class ConvertSmallTest : public testing::Test {
 protected:
  absl::Status Convert(const HfFolder& folder, std::optional<DType> type = std::nullopt) {
    folder.Write(folder_.path());
    ConvertOptions options;
    options.input = folder_.path();
    options.output = file_.path();
    options.replace = true;
    options.type = type;
    options.warn = [this](const std::string& message) { warnings_.push_back(message); };
    options.progress = [this](int64_t done, int64_t total) { progress_.emplace_back(done, total); };
    const absl::Status status = ConvertToGguf(options);
    if (!status.ok()) return status;
    auto opened = Checkpoint::Open(file_.path());
    if (opened.ok()) checkpoint_ = *std::move(opened);
    return opened.status();
  }
  std::vector<float> Values(const std::string& name) {
    const TensorInfo* tensor = checkpoint_->Find(name);
    EXPECT_NE(tensor, nullptr) << name;
    if (tensor == nullptr) return {};
    std::vector<uint8_t> bytes(static_cast<size_t>(tensor->bytes));
    EXPECT_TRUE(checkpoint_->Read(*tensor, 0, tensor->bytes, bytes.data()).ok());
    return ToFloats(tensor->dtype, bytes.data(), tensor->num_elems());
  }
  static std::vector<float> Count(int n, float first = 1.0f) {
    std::vector<float> values;
    for (int i = 0; i < n; ++i) values.push_back(first + static_cast<float>(i));
    return values;
  }

  TemporaryFile folder_{"convert-folder"}, file_{"converted.gguf"};
  std::vector<std::string> warnings_;
  std::vector<std::pair<int64_t, int64_t>> progress_;
  std::unique_ptr<Checkpoint> checkpoint_;
};

TEST_F(ConvertSmallTest, MetadataAreThoseThatLlamaCppExpects) {
  ASSERT_TRUE(Convert(HfFolder::Llama()).ok());
  const std::string name = std::filesystem::path(folder_.path()).filename().string();
  Metadata expected = {{"general.architecture", std::string("llama")},
                       {"general.type", std::string("model")},
                       {"general.name", name},
                       {"general.file_type", int64_t{0}},
                       {"general.quantization_version", int64_t{2}},
                       {"llama.attention.head_count", int64_t{2}},
                       {"llama.attention.key_length", int64_t{4}},
                       {"llama.attention.value_length", int64_t{4}},
                       {"llama.attention.layer_norm_rms_epsilon", static_cast<double>(1e-6f)},
                       {"llama.block_count", int64_t{1}},
                       {"llama.context_length", int64_t{64}},
                       {"llama.embedding_length", int64_t{8}},
                       {"llama.feed_forward_length", int64_t{12}},
                       {"llama.rope.dimension_count", int64_t{4}},
                       {"llama.vocab_size", int64_t{4}},
                       {"tokenizer.ggml.model", std::string("none")}};
  for (const auto& [key, value] : checkpoint_->metadata()) {
    EXPECT_EQ(expected.count(key), 1u) << key;
    if (expected.count(key) == 1) {
      EXPECT_EQ(value, expected.at(key)) << key;
    }
    expected.erase(key);
  }
  EXPECT_TRUE(expected.empty()) << expected.begin()->first;
  ASSERT_EQ(warnings_.size(), 1u);
  EXPECT_NE(warnings_[0].find("no tokenizer.json"), std::string::npos);
}

TEST_F(ConvertSmallTest, MatricesGetTheTypeAskedForVectorsF32) {
  for (const std::optional<DType> type :
       {std::optional<DType>(), std::optional(DType::kF16), std::optional(DType::kBF16)}) {
    ASSERT_TRUE(Convert(HfFolder::Llama(), type).ok());
    const DType matrix = type.value_or(DType::kF32);
    for (const auto& [name, tensor] : checkpoint_->tensors())
      EXPECT_EQ(tensor.dtype, tensor.shape.size() == 1 ? DType::kF32 : matrix) << name;
    EXPECT_EQ(std::get<int64_t>(checkpoint_->metadata().at("general.file_type")),
              matrix == DType::kF32   ? 0
              : matrix == DType::kF16 ? 1
                                      : 32);
    EXPECT_EQ(checkpoint_->tensors().size(), 11u);
    EXPECT_EQ(Values("token_embd.weight"), Count(32));
    EXPECT_EQ(Values("blk.0.ffn_down.weight"), Count(96));
    EXPECT_EQ(Values("output_norm.weight"), Count(8));
  }
}

// Without a type, the embedding's stands for all matrices.
TEST_F(ConvertSmallTest, TheEmbeddingsTypeStandsForTheOthers) {
  HfFolder folder = HfFolder::Llama();
  folder.Count("model.embed_tokens.weight", {4, 8}, 1.0f, DType::kBF16);
  folder.Count("model.norm.weight", {8}, 1.0f, DType::kF16);
  ASSERT_TRUE(Convert(folder).ok());
  EXPECT_EQ(checkpoint_->Find("blk.0.attn_k.weight")->dtype, DType::kBF16);
  EXPECT_EQ(checkpoint_->Find("output_norm.weight")->dtype, DType::kF32);
  EXPECT_EQ(Values("output_norm.weight"), Count(8));
}

TEST_F(ConvertSmallTest, ProgressEndsAtTheBytesThatAreWritten) {
  ASSERT_TRUE(Convert(HfFolder::Llama(), DType::kF16).ok());
  // Three vectors of 8 in F32, matrices of 32, 4 * 64 and 3 * 96 in F16.
  const int64_t total = 3 * 32 + 2 * (32 + 4 * 64 + 3 * 96);
  ASSERT_EQ(progress_.size(), 11u);
  int64_t before = 0;
  for (const auto& [done, of] : progress_) {
    EXPECT_GT(done, before);
    EXPECT_EQ(of, total);
    before = done;
  }
  EXPECT_EQ(before, total);
  EXPECT_EQ(checkpoint_->total_bytes(), total);
}

// Llama's queries and keys: the halves of each head become pairs.
TEST_F(ConvertSmallTest, RowsGoWhereGgufKeepsThem) {
  ASSERT_TRUE(Convert(HfFolder::Llama()).ok());
  const std::vector<float> q = Values("blk.0.attn_q.weight"), v = Values("blk.0.attn_v.weight");
  // Row r of the folder begins with 8r + 1; head of 4: rows 0, 2, 1, 3.
  const int rows[] = {0, 2, 1, 3, 4, 6, 5, 7};
  for (size_t r = 0; r < 8; ++r) {
    EXPECT_EQ(q[8 * r], static_cast<float>(8 * rows[r] + 1)) << r;
    EXPECT_EQ(v[8 * r], static_cast<float>(8 * r + 1)) << r;
  }
}

// Their biases have rows of one number.
TEST_F(ConvertSmallTest, BiasesGoWithTheirRows) {
  HfFolder folder = HfFolder::Llama();
  folder.Count("model.layers.0.self_attn.q_proj.bias", {8});
  folder.Count("model.layers.0.self_attn.v_proj.bias", {8});
  ASSERT_TRUE(Convert(folder).ok());
  EXPECT_EQ(Values("blk.0.attn_q.bias"), (std::vector<float>{1, 3, 2, 4, 5, 7, 6, 8}));
  EXPECT_EQ(Values("blk.0.attn_v.bias"), Count(8));
}

HfFolder Mixtral() {
  HfFolder folder = HfFolder::Llama();
  folder.config["model_type"] = "mixtral";
  folder.config["num_local_experts"] = 3;
  folder.config["num_experts_per_tok"] = 2;
  const std::string moe = "model.layers.0.block_sparse_moe.";
  folder.Count(moe + "gate.weight", {3, 8});
  for (int e = 0; e < 3; ++e) {
    const float scale = static_cast<float>(1 << (2 * e));
    const std::string expert = absl::StrCat(moe, "experts.", e, ".");
    folder.Count(expert + "w1.weight", {12, 8}, scale);
    folder.Count(expert + "w3.weight", {12, 8}, 2 * scale);
    folder.Count(expert + "w2.weight", {8, 12}, scale);
  }
  for (const char* name : {"gate", "up", "down"})
    folder.Remove(absl::StrCat("model.layers.0.mlp.", name, "_proj.weight"));
  return folder;
}

TEST_F(ConvertSmallTest, ExpertsAreStackedAndTheRouterStaysF32) {
  for (const DType type : {DType::kF32, DType::kF16}) {
    ASSERT_TRUE(Convert(Mixtral(), type).ok());
    const TensorInfo* gate = checkpoint_->Find("blk.0.ffn_gate_exps.weight");
    ASSERT_NE(gate, nullptr);
    EXPECT_EQ(gate->shape, (std::vector<int64_t>{3, 12, 8}));
    EXPECT_EQ(gate->dtype, type);
    EXPECT_EQ(checkpoint_->Find("blk.0.ffn_down_exps.weight")->shape,
              (std::vector<int64_t>{3, 8, 12}));
    EXPECT_EQ(checkpoint_->Find("blk.0.ffn_gate_inp.weight")->dtype, DType::kF32);
    const std::vector<float> up = Values("blk.0.ffn_up_exps.weight");
    for (size_t e = 0; e < 3; ++e) {
      EXPECT_EQ(up[e * 96], static_cast<float>(2 << (2 * e))) << e;
      EXPECT_EQ(up[e * 96 + 95], static_cast<float>(96 * (2 << (2 * e)))) << e;
    }
    const Metadata& metadata = checkpoint_->metadata();
    EXPECT_EQ(std::get<std::string>(metadata.at("general.architecture")), "llama");
    EXPECT_EQ(std::get<int64_t>(metadata.at("llama.expert_count")), 3);
    EXPECT_EQ(std::get<int64_t>(metadata.at("llama.expert_used_count")), 2);
  }
}

TEST_F(ConvertSmallTest, WhatIsWrongWithALaterExpertShowsBeforeWriting) {
  HfFolder folder = Mixtral();
  for (int e = 0; e < 3; ++e) {
    folder = Mixtral();
    const std::string name = absl::StrCat("experts.", e, ".w2.weight");
    folder.Count("model.layers.0.block_sparse_moe." + name, {8, 11});
    const absl::Status status = Convert(folder);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_NE(status.message().find(name), std::string::npos) << status;
    EXPECT_TRUE(progress_.empty());
  }
  // Floats of different types may stand beside each other.
  folder = Mixtral();
  folder.Count("model.layers.0.block_sparse_moe.experts.1.w1.weight", {12, 8}, 4, DType::kBF16);
  EXPECT_TRUE(Convert(folder).ok());
  EXPECT_EQ(Values("blk.0.ffn_gate_exps.weight")[96], 4.0f);
}

// Weights in blocks beside floats cannot be stacked, whichever comes first.
TEST_F(ConvertSmallTest, ExpertsInBlocksAndOthersAreNotStacked) {
  const std::string moe = "model.layers.0.block_sparse_moe.";
  for (int blocks : {0, 1}) {
    HfFolder folder = HfFolder::Llama(32);
    folder.config["model_type"] = "mixtral";
    folder.config["num_local_experts"] = folder.config["num_experts_per_tok"] = 2;
    folder.Count(moe + "gate.weight", {2, 32});
    for (int e = 0; e < 2; ++e) {
      const std::string expert = absl::StrCat(moe, "experts.", e, ".");
      folder.Count(expert + "w3.weight", {12, 32});
      folder.Count(expert + "w2.weight", {32, 12});
      if (e != blocks) {
        folder.Count(expert + "w1.weight", {12, 32});
        continue;
      }
      folder.SetBytes(expert + "w1.weight_blocks", "U8", {12, 1, 16}, std::string(192, '\1'));
      folder.SetBytes(expert + "w1.weight_scales", "U8", {12, 1}, std::string(12, '\x7F'));
    }
    const absl::Status status = Convert(folder);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_NE(status.message().find("experts.1.w1.weight\" has another type than expert 0's"),
              std::string::npos)
        << status;
  }
}

TEST_F(ConvertSmallTest, FactorsOfTheConfigurationBecomeATensor) {
  HfFolder folder = HfFolder::Llama();
  folder.config["rope_scaling"] = {{"rope_type", "llama3"},
                                   {"factor", 8.0},
                                   {"low_freq_factor", 1.0},
                                   {"high_freq_factor", 4.0},
                                   {"original_max_position_embeddings", 64}};
  ASSERT_TRUE(Convert(folder).ok());
  // Two frequencies: 1 (6.3 positions a turn, kept) and 1/100 (628, slowed by 8).
  EXPECT_EQ(checkpoint_->Find("rope_freqs.weight")->dtype, DType::kF32);
  EXPECT_EQ(Values("rope_freqs.weight"), (std::vector<float>{1.0f, 8.0f}));
}

TEST_F(ConvertSmallTest, AMissingTensorIsNamed) {
  HfFolder folder = HfFolder::Llama();
  folder.Remove("model.layers.0.mlp.up_proj.weight");
  const absl::Status status = Convert(folder);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find("model.layers.0.mlp.up_proj.weight"), std::string::npos)
      << status;
}

}  // namespace
}  // namespace thermocline
