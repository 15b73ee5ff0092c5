// The forms in which older and newer GGUF files hold the same weights, and weights in two tensors.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <map>

#include "absl/strings/str_cat.h"
#include "engine/formats/float_tensor.h"
#include "engine/formats/gguf_writer.h"
#include "engine/model/convert/convert.h"
#include "kernels/quant/float_bits.h"
#include "kernels/quant/quantize.h"
#include "tests/support/golden.h"
#include "tests/support/temporary_file.h"

namespace thermocline {
namespace {

struct Values {
  std::vector<int64_t> shape;
  std::vector<float> values;
  DType dtype = DType::kF32;

  // Rows [first, first + count), appended to `out`.
  void Append(int64_t first, int64_t count, std::vector<float>* out) const {
    const int64_t cols = shape.back();
    out->insert(out->end(), values.begin() + first * cols, values.begin() + (first + count) * cols);
  }
};
using Tensors = std::map<std::string, Values>;

// Converts the golden folder, lets `change` rewrite tensors and metadata, and writes the result.
void WriteChanged(const std::string& golden, const std::string& path,
                  const std::function<void(Tensors*, Metadata*)>& change) {
  const TemporaryFile plain("plain.gguf");
  ConvertOptions options;
  options.input = GoldenPath(golden);
  options.output = plain.path();
  options.type = DType::kF32;
  ASSERT_TRUE(ConvertToGguf(options).ok());
  const auto checkpoint = Checkpoint::Open(plain.path());
  ASSERT_TRUE(checkpoint.ok());
  Tensors tensors;
  for (const auto& [name, tensor] : (*checkpoint)->tensors()) {
    std::vector<uint8_t> bytes(static_cast<size_t>(tensor.bytes));
    ASSERT_TRUE((*checkpoint)->Read(tensor, 0, tensor.bytes, bytes.data()).ok());
    tensors[name] = {tensor.shape, ToFloats(tensor.dtype, bytes.data(), tensor.num_elems())};
  }
  Metadata metadata = (*checkpoint)->metadata();
  change(&tensors, &metadata);
  auto writer = GgufWriter::Create(path, true);
  ASSERT_TRUE(writer.ok());
  for (const auto& [key, value] : metadata) {
    const auto type = (*checkpoint)->metadata_types().find(key);
    if (type != (*checkpoint)->metadata_types().end()) {
      (*writer)->Add(key, value, type->second);
    } else {
      (*writer)->Add(key, value);
    }
  }
  for (const auto& [name, tensor] : tensors) (*writer)->AddTensor(name, tensor.dtype, tensor.shape);
  ASSERT_TRUE((*writer)->WriteHeader().ok());
  for (const auto& [name, tensor] : tensors) {
    const int64_t cols = tensor.shape.back(), row_bytes = BytesOf(tensor.dtype, cols);
    std::vector<uint8_t> row(static_cast<size_t>(row_bytes));
    for (size_t i = 0; i < tensor.values.size(); i += static_cast<size_t>(cols)) {
      QuantizeRow(tensor.dtype, &tensor.values[i], cols, nullptr, row.data());
      ASSERT_TRUE((*writer)->Write(row.data(), row_bytes).ok());
    }
  }
  ASSERT_TRUE((*writer)->Finish().ok());
}

void ExpectSameScores(const std::string& golden, const std::string& path, double bound) {
  const auto make = [](const std::string& model) {
    EngineOptions options;
    options.backend = "reference";
    options.activations = Activations::kF32;
    options.kv_dtype = DType::kF32;
    options.model_path = model;
    return MakeEngine(std::move(options));
  };
  const auto expected = make(GoldenPath(golden)), actual = make(path);
  ASSERT_TRUE(expected != nullptr && actual != nullptr);
  const std::vector<int32_t> prompt = {1, 50, 7, 20, 33, 8, 39, 2};
  const ScoreOutput a = Score(expected.get(), prompt), b = Score(actual.get(), prompt);
  ASSERT_EQ(a.logits.size(), b.logits.size());
  for (size_t t = 0; t < a.logits.size(); ++t) {
    EXPECT_LE(MaxError(b.logits[t], a.logits[t].data(), Largest(a.logits[t])), bound) << t;
  }
}

// Of before April 2025: kv_b in one matrix, [heads * (nope + value), lora].
TEST(GgufLayouts, LatentAttentionWithOneMatrixForKeysAndValues) {
  for (const DType dtype : {DType::kF32, DType::kQ8_0}) {
    const TemporaryFile file("legacy.gguf");
    WriteChanged("deepseek_v3", file.path(), [&](Tensors* tensors, Metadata* metadata) {
      for (int l = 0; tensors->count(absl::StrCat("blk.", l, ".attn_k_b.weight")) > 0; ++l) {
        const std::string prefix = absl::StrCat("blk.", l, ".attn_");
        const Values k = tensors->at(prefix + "k_b.weight"), v = tensors->at(prefix + "v_b.weight");
        const int64_t heads = k.shape[0], lora = k.shape[1], nope = k.shape[2], value = v.shape[1];
        Values kv = {{heads * (nope + value), lora}, {}, dtype};
        for (int64_t h = 0; h < heads; ++h) {
          for (int64_t r = 0; r < nope; ++r) {
            for (int64_t c = 0; c < lora; ++c)
              kv.values.push_back(k.values[static_cast<size_t>((h * lora + c) * nope + r)]);
          }
          v.Append(h * value, value, &kv.values);
        }
        tensors->erase(prefix + "k_b.weight");
        tensors->erase(prefix + "v_b.weight");
        (*tensors)[prefix + "kv_b.weight"] = std::move(kv);
      }
      for (const char* key : {"key_length", "value_length"}) {
        const std::string name = absl::StrCat("deepseek2.attention.", key);
        (*metadata)[name] = metadata->at(name + "_mla");
        metadata->erase(name + "_mla");
      }
    });
    ExpectSameScores("deepseek_v3", file.path(), dtype == DType::kF32 ? 2e-6 : 0.03);
  }
}

// Gate and up of all experts in one tensor; and every expert's matrices apart.
TEST(GgufLayouts, ExpertsFusedAndApart) {
  for (const bool fused : {true, false}) {
    const TemporaryFile file("experts.gguf");
    WriteChanged("mixtral-swa", file.path(), [&](Tensors* tensors, Metadata*) {
      for (int l = 0; tensors->count(absl::StrCat("blk.", l, ".ffn_up_exps.weight")) > 0; ++l) {
        const std::string prefix = absl::StrCat("blk.", l, ".ffn_");
        if (fused) {
          const Values gate = tensors->at(prefix + "gate_exps.weight"),
                       up = tensors->at(prefix + "up_exps.weight");
          Values both = {{gate.shape[0], 2 * gate.shape[1], gate.shape[2]}, {}};
          for (int64_t e = 0; e < gate.shape[0]; ++e) {
            gate.Append(e * gate.shape[1], gate.shape[1], &both.values);
            up.Append(e * up.shape[1], up.shape[1], &both.values);
          }
          tensors->erase(prefix + "gate_exps.weight");
          tensors->erase(prefix + "up_exps.weight");
          (*tensors)[prefix + "gate_up_exps.weight"] = std::move(both);
          continue;
        }
        for (const char* name : {"gate", "up", "down"}) {
          const Values all = tensors->at(absl::StrCat(prefix, name, "_exps.weight"));
          for (int64_t e = 0; e < all.shape[0]; ++e) {
            Values one = {{all.shape[1], all.shape[2]}, {}};
            all.Append(e * all.shape[1], all.shape[1], &one.values);
            (*tensors)[absl::StrCat(prefix, name, ".", e, ".weight")] = std::move(one);
          }
          tensors->erase(absl::StrCat(prefix, name, "_exps.weight"));
        }
      }
    });
    ExpectSameScores("mixtral-swa", file.path(), 2e-6);
  }
}

// The first Qwen3-Next files: in_proj_qkvz as the folder has it.
TEST(GgufLayouts, GatedDeltaNetWithOneInputMatrix) {
  const TemporaryFile file("ssm_in.gguf");
  WriteChanged("qwen3_next", file.path(), [](Tensors* tensors, Metadata*) {
    constexpr int64_t kKeyHeads = 2, kRatio = 2, kDim = 16;  // of the golden checkpoint
    for (int l = 0; l < 8; ++l) {
      const std::string prefix = absl::StrCat("blk.", l, ".");
      if (tensors->count(prefix + "attn_gate.weight") == 0) continue;
      const Values qkv = tensors->at(prefix + "attn_qkv.weight"),
                   z = tensors->at(prefix + "attn_gate.weight");
      Values in = {{qkv.shape[0] + z.shape[0], qkv.shape[1]}, {}};
      for (int64_t h = 0; h < kKeyHeads; ++h) {
        qkv.Append(h * kDim, kDim, &in.values);
        qkv.Append((kKeyHeads + h) * kDim, kDim, &in.values);
        qkv.Append((2 * kKeyHeads + h * kRatio) * kDim, kRatio * kDim, &in.values);
        z.Append(h * kRatio * kDim, kRatio * kDim, &in.values);
      }
      tensors->erase(prefix + "attn_qkv.weight");
      tensors->erase(prefix + "attn_gate.weight");
      (*tensors)[prefix + "ssm_in.weight"] = std::move(in);
    }
  });
  ExpectSameScores("qwen3_next", file.path(), 2e-6);
}

// A bias in blocks, and experts of one column, are refused.
TEST(GgufLayouts, BlocksThatDoNotFitAreRefused) {
  const TemporaryFile file("bias.gguf");
  const auto expect = [&](const char* part) {
    EngineOptions options;
    options.model_path = file.path();
    const auto engine = Engine::Create(std::move(options));
    ASSERT_FALSE(engine.ok());
    EXPECT_NE(engine.status().message().find(part), std::string::npos) << engine.status();
  };
  WriteChanged("gpt_oss-mxfp4", file.path(), [](Tensors* tensors, Metadata*) {
    for (auto& [name, tensor] : *tensors) {
      if (name.find("ffn_gate_exps.bias") != std::string::npos) tensor.dtype = DType::kQ8_0;
    }
  });
  expect("ffn_gate_exps.bias\": rows of 1 are not whole blocks of Q8_0");
  WriteChanged("mixtral-swa", file.path(), [](Tensors*, Metadata* metadata) {
    (*metadata)["llama.expert_feed_forward_length"] = int64_t{1};
  });
  expect("expert_feed_forward_length = 1");
  WriteChanged("mixtral-swa", file.path(), [](Tensors* tensors, Metadata* metadata) {
    metadata->erase("llama.expert_feed_forward_length");
    for (auto& [name, tensor] : *tensors) {
      if (name.find("ffn_up_exps") == std::string::npos) continue;
      tensor.values.resize(static_cast<size_t>(tensor.shape[0] * tensor.shape[2]));
      tensor.shape[1] = 1;
    }
  });
  expect("expert_feed_forward_length = 1");
}

// Scales in F32 (DeepSeek) and in BF16 (Qwen), one for 2 x 4 weights of [4, 8].
TEST(SafeTensors, Fp8BlocksAreCodesTimesScales) {
  const TemporaryFile folder("fp8");
  std::filesystem::create_directory(folder.path());
  for (const bool bf16 : {false, true}) {
    const std::vector<float> scales = {1.0f, 0.5f, 2.0f, -4.0f};
    std::string data;
    for (int i = 0; i < 32; ++i) data.push_back(static_cast<char>(0x38 + i));  // 0x38 is 1.0
    for (float scale : scales) {
      const uint16_t half = FloatToBfloat16(scale);
      data.append(
          bf16 ? reinterpret_cast<const char*>(&half) : reinterpret_cast<const char*>(&scale),
          bf16 ? sizeof(half) : sizeof(scale));
    }
    const std::string header = absl::StrCat(
        R"({"w":{"dtype":"F8_E4M3","shape":[4,8],"data_offsets":[0,32]},"w_scale_inv":{"dtype":")",
        bf16 ? "BF16" : "F32", R"(","shape":[2,2],"data_offsets":[32,)", data.size(), "]}}");
    std::ofstream out(folder.path() + "/model.safetensors", std::ios::binary);
    const uint64_t size = header.size();
    out.write(reinterpret_cast<const char*>(&size), 8);
    out << header << data;
    out.close();
    std::ofstream(folder.path() + "/config.json")
        << R"({"model_type": "llama", "quantization_config": {"weight_block_size": [2, 4]}})";
    const auto checkpoint = Checkpoint::Open(folder.path());
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
    const TensorInfo* tensor = (*checkpoint)->Find("w");
    ASSERT_NE(tensor, nullptr);
    ASSERT_EQ(tensor->dtype, DType::kBF16);
    // All of it, and a part that begins and ends inside blocks.
    for (const auto& [first, count] : {std::pair{0, 32}, std::pair{5, 14}}) {
      std::vector<uint8_t> bytes(static_cast<size_t>(count) * 2);
      ASSERT_TRUE((*checkpoint)->Read(*tensor, first * 2, count * 2, bytes.data()).ok());
      const std::vector<float> values = ToFloats(DType::kBF16, bytes.data(), count);
      for (int i = 0; i < count; ++i) {
        // Codes from 1.0 on: eight to a power of two.
        const int code = first + i, row = code / 8, col = code % 8;
        const float weight = std::ldexp(1.0f + static_cast<float>(code % 8) / 8.0f, code / 8);
        EXPECT_EQ(values[static_cast<size_t>(i)],
                  weight * scales[static_cast<size_t>(row / 2 * 2 + col / 4)])
            << code;
      }
    }
  }
}

}  // namespace
}  // namespace thermocline
