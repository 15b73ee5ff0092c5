// TensorTable: what a model needs from a checkpoint, declared tensor by tensor.
//
// The form in which a tensor is used, its shape and its order of rows, is the one that GGUF stores.
// A Hugging Face folder that stores another one says how to get there: which rows, and which
// transform. So the same table loads both formats and converts one into the other.
#ifndef THERMOCLINE_ENGINE_WEIGHTS_TENSOR_TABLE_H_
#define THERMOCLINE_ENGINE_WEIGHTS_TENSOR_TABLE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/tensor_view.h"

namespace thermocline {

// Rows first, first + step, ... of a stored tensor, `count` of them, and the same again `repeat`
// times, `stride` rows further each time. A vector has rows of one element.
struct RowRange {
  int64_t first = 0;
  int64_t count = 0;
  int64_t step = 1;
  int64_t repeat = 1;
  int64_t stride = 0;
};

// Applied after the rows are chosen.
enum class Transform : uint8_t {
  kNone,
  kAddOne,          // 1 + x: norms stored around zero
  kNegExp,          // -exp(x): decay rates stored as logarithms
  kTransposeHeads,  // [heads, r, c] -> [heads, c, r]
  kUnitColumns,     // each column divided by its length + 1e-7
};

// Where one format keeps a tensor.
struct TensorSource {
  TensorSource() = default;
  TensorSource(std::string tensor_name) : name(std::move(tensor_name)) {}  // NOLINT: by intention
  TensorSource(const char* tensor_name) : name(tensor_name) {}             // NOLINT

  std::string name;  // empty: this format has no such tensor
  // What the file must hold, dimensions of 1 aside; empty: the shape in which it is used.
  std::vector<int64_t> shape;
  std::vector<RowRange> rows;  // empty: all of them
  // The same rows of each head, `row_heads` times, row_stride apart.
  int64_t row_heads = 1;
  int64_t row_stride = 0;
  Transform transform = Transform::kNone;
  int64_t heads = 1;  // of kTransposeHeads
};

// Calls fn(first, count, step) for the chosen rows, in order.
template <class Fn>
void ForEachRun(const TensorSource& source, const Fn& fn) {
  for (int64_t h = 0; h < source.row_heads; ++h) {
    for (const RowRange& range : source.rows) {
      for (int64_t i = 0; i < range.repeat; ++i) {
        fn(h * source.row_stride + range.first + i * range.stride, range.count, range.step);
      }
    }
  }
}

struct TensorName {
  TensorSource hf;
  TensorSource gguf;
};

// A tensor that lives in the dense backend's memory. The loader fills *target.
struct DenseTensor {
  TensorName name;
  std::vector<int64_t> shape;  // row-major; three dimensions become two, the first ones joined
  bool as_f32 = false;         // decode on load: norms, biases, tables
  bool optional = false;       // *target stays empty when the checkpoint lacks it
  TensorView* target = nullptr;
  bool in_rows = false;  // a matrix, but no factor of a product

  // Held in panels.
  bool packed() const { return shape.size() > 1 && !in_rows; }
};

// Numbers that follow from the configuration, to be placed in the dense backend's memory.
struct ConstantTensor {
  std::vector<float> values;
  TensorView* target = nullptr;
};

// Where one format keeps one matrix of every expert. Either each expert has a tensor of its own
// ("{e}" stands for its number), or all share one, [num_experts, stored_rows, cols], of which
// expert e owns rows first, first + step, ...; transposed: [num_experts, cols, stored_rows] and
// columns.
struct ExpertPlace {
  std::string name;         // empty: there is none
  int64_t stored_rows = 0;  // 0: as many as the matrix has
  int64_t first = 0;
  int64_t step = 1;
  bool transposed = false;
};

// One of an expert's matrices, [rows, cols]. A bias is a matrix of one column and becomes f32.
struct ExpertMatrix {
  ExpertPlace hf;
  ExpertPlace gguf;
  int64_t rows = 0;
  int64_t cols = 0;
};

struct ExpertLayer {
  int layer = 0;
  ExpertMatrix gate, up, down;
  ExpertMatrix gate_bias, up_bias, down_bias;  // rows == 0: none
};

struct TensorTable {
  int num_experts = 0;
  std::vector<DenseTensor> dense;
  std::vector<ConstantTensor> constants;
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

// The prefixes of a layer's tensors, "model.layers.3." and "blk.3.".
struct LayerPrefix {
  std::string hf;
  std::string gguf;
};

}  // namespace thermocline

#endif  // THERMOCLINE_ENGINE_WEIGHTS_TENSOR_TABLE_H_
