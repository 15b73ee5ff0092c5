// TensorTable: what a model needs from a checkpoint, declared tensor by tensor.
#ifndef THERMOCLINE_ENGINE_MODELS_TENSOR_TABLE_H_
#define THERMOCLINE_ENGINE_MODELS_TENSOR_TABLE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/tensor_view.h"

namespace thermocline {

// Names of one tensor in the two formats; empty where the format stores it under another one. "{l}"
// stands for the layer, "{e}" for the expert.
struct TensorName {
  std::string hf;
  std::string gguf;
};

// A tensor that lives in the dense backend's memory. The loader fills *target.
struct DenseTensor {
  TensorName name;
  std::vector<int64_t> shape;  // row-major
  bool as_f32 = false;         // decode on load: norms, biases, tables
  bool optional = false;       // *target stays empty when the checkpoint lacks it
  TensorView* target = nullptr;
};

// One of an expert's three matrices, [rows, cols]. In GGUF, and in Hugging Face folders when
// `hf_fused_rows` > 0, all experts share a tensor [num_experts, fused rows, cols] of which expert e
// owns rows [hf_first_row, hf_first_row + rows).
struct ExpertMatrix {
  TensorName name;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t hf_fused_rows = 0;
  int64_t hf_first_row = 0;
};

struct ExpertLayer {
  int layer = 0;
  ExpertMatrix gate, up, down;
};

struct TensorTable {
  int num_experts = 0;
  std::vector<DenseTensor> dense;
  std::vector<ExpertLayer> experts;  // layers that have experts

  // [out, in] in the file's own format.
  void Matrix(TensorName name, int64_t rows, int64_t cols, TensorView* target,
              bool optional = false) {
    dense.push_back({std::move(name), {rows, cols}, false, optional, target});
  }
  // [size] f32.
  void Vector(TensorName name, int64_t size, TensorView* target, bool optional = false) {
    dense.push_back({std::move(name), {size}, true, optional, target});
  }
};

}  // namespace thermocline

#endif  // THERMOCLINE_ENGINE_MODELS_TENSOR_TABLE_H_
