// Random numbers, and a weight of them as the program holds it.
#ifndef THERMOCLINE_TESTS_SUPPORT_PACKED_WEIGHT_H_
#define THERMOCLINE_TESTS_SUPPORT_PACKED_WEIGHT_H_

#include <random>
#include <vector>

#include "kernels/quant/panels.h"
#include "kernels/quant/quantize.h"
#include "kernels/tensor_view.h"

namespace thermocline {

inline std::vector<float> RandomFloats(int64_t n, std::mt19937* random) {
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<size_t>(n));
  for (float& v : values) v = normal(*random);
  return values;
}

// [rows, cols] of a type that can be written, in panels.
struct PackedWeight {
  PackedWeight(DType dtype, int64_t rows, int64_t cols, std::mt19937* random) {
    const std::vector<float> values = RandomFloats(rows * cols, random);
    const int64_t row_bytes = BytesOf(dtype, cols);
    std::vector<uint8_t> stored(static_cast<size_t>(rows * row_bytes));
    for (int64_t r = 0; r < rows; ++r) {
      QuantizeRow(dtype, &values[static_cast<size_t>(r * cols)], cols, nullptr,
                  &stored[static_cast<size_t>(r * row_bytes)]);
    }
    panels.resize(static_cast<size_t>(PackedBytes(dtype, rows, cols)));
    PackRows(dtype, stored.data(), rows, cols, panels.data());
    view = MakeWeightView(panels.data(), dtype, rows, cols);
  }
  std::vector<uint8_t> panels;
  TensorView view;
};

}  // namespace thermocline

#endif  // THERMOCLINE_TESTS_SUPPORT_PACKED_WEIGHT_H_
