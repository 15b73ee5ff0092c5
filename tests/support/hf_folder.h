// HfFolder: a Hugging Face folder of small tensors, for tests.
#ifndef THERMOCLINE_TESTS_SUPPORT_HF_FOLDER_H_
#define THERMOCLINE_TESTS_SUPPORT_HF_FOLDER_H_

#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/formats/float_tensor.h"
#include "kernels/quant/registry.h"
#include "tests/support/model_bytes.h"

namespace thermocline {

class HfFolder {
 public:
  nlohmann::json config;

  // F32, F16 or BF16. Another tensor of the name is replaced.
  void Set(const std::string& name, const std::vector<int64_t>& shape, std::vector<float> values,
           DType dtype = DType::kF32) {
    Remove(name);
    const std::vector<uint8_t> bytes = FromFloats(dtype, values);
    tensors_.push_back(
        {name, std::string(GetFormat(dtype).name), shape, std::string(bytes.begin(), bytes.end())});
  }
  // The values 1, 2, 3, ... times `scale`.
  void Count(const std::string& name, const std::vector<int64_t>& shape, float scale = 1.0f,
             DType dtype = DType::kF32) {
    int64_t elems = 1;
    for (int64_t dim : shape) elems *= dim;
    std::vector<float> values;
    for (int64_t i = 0; i < elems; ++i) values.push_back(scale * static_cast<float>(i + 1));
    Set(name, shape, std::move(values), dtype);
  }
  void SetBytes(const std::string& name, const std::string& dtype,
                const std::vector<int64_t>& shape, const std::string& bytes) {
    Remove(name);
    tensors_.push_back({name, dtype, shape, bytes});
  }
  void Remove(const std::string& name) {
    std::erase_if(tensors_, [&](const Tensor& t) { return t.name == name; });
  }
  void Write(const std::string& folder) const {
    std::string header = "{", data;
    for (const Tensor& t : tensors_) {
      absl::StrAppend(&header, header.size() > 1 ? "," : "", "\"", t.name, "\":{\"dtype\":\"",
                      t.dtype, "\",\"shape\":[", absl::StrJoin(t.shape, ","),
                      "],\"data_offsets\":[", data.size(), ",", data.size() + t.bytes.size(), "]}");
      data += t.bytes;
    }
    WriteBytes(folder + "/model.safetensors", SafetensorsBytes(header + "}", data));
    WriteBytes(folder + "/config.json", config.dump());
  }

  // A llama of one layer: two heads, vocabulary of 4, dense width 12, tied head.
  static HfFolder Llama(int64_t hidden = 8) {
    HfFolder folder;
    folder.config = {
        {"model_type", "llama"}, {"hidden_size", hidden},         {"num_hidden_layers", 1},
        {"vocab_size", 4},       {"max_position_embeddings", 64}, {"intermediate_size", 12},
        {"rms_norm_eps", 1e-6},  {"num_attention_heads", 2},      {"tie_word_embeddings", true}};
    const std::string layer = "model.layers.0.";
    folder.Count("model.embed_tokens.weight", {4, hidden});
    folder.Count("model.norm.weight", {hidden});
    folder.Count(layer + "input_layernorm.weight", {hidden});
    folder.Count(layer + "post_attention_layernorm.weight", {hidden});
    for (const char* name : {"q_proj", "k_proj", "v_proj", "o_proj"})
      folder.Count(layer + "self_attn." + name + ".weight", {hidden, hidden});
    folder.Count(layer + "mlp.gate_proj.weight", {12, hidden});
    folder.Count(layer + "mlp.up_proj.weight", {12, hidden});
    folder.Count(layer + "mlp.down_proj.weight", {hidden, 12});
    return folder;
  }

 private:
  struct Tensor {
    std::string name, dtype;
    std::vector<int64_t> shape;
    std::string bytes;
  };
  std::vector<Tensor> tensors_;
};

}  // namespace thermocline

#endif  // THERMOCLINE_TESTS_SUPPORT_HF_FOLDER_H_
