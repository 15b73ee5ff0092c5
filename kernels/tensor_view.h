// TensorView: a non-owning description of a tensor on one device.
#ifndef THERMOCLINE_KERNELS_TENSOR_VIEW_H_
#define THERMOCLINE_KERNELS_TENSOR_VIEW_H_

#include <array>
#include <cstdint>
#include <vector>

#include "kernels/check.h"
#include "kernels/dtype.h"
#include "kernels/quant/panels.h"
#include "kernels/quant/registry.h"

namespace thermocline {

// How a matrix lies in memory: row after row, or packed (kernels/quant/panels.h).
enum class Layout : uint8_t { kRows, kPanels };

// Free to copy. `data` is an address of the owning backend's memory and may be dereferenced only by
// that backend. Shapes are row-major, outermost first; rows (the last dimension) are contiguous,
// and consecutive rows lie row_bytes apart. In panels, `data` is the first panel of the whole
// matrix and the view begins at its row first_row; Row does not apply.
struct TensorView {
  static constexpr int kMaxRank = 4;

  void* data = nullptr;
  DType dtype = DType::kF32;
  int rank = 0;
  std::array<int64_t, kMaxRank> shape = {};
  int64_t row_bytes = 0;
  Layout layout = Layout::kRows;
  int64_t first_row = 0;

  bool empty() const { return data == nullptr; }
  int64_t cols() const { return shape[rank - 1]; }
  // Number of rows when every dimension but the last is flattened.
  int64_t rows() const {
    int64_t rows = 1;
    for (int i = 0; i + 1 < rank; ++i) rows *= shape[i];
    return rows;
  }
  int64_t num_elems() const { return rows() * cols(); }
  int64_t bytes() const {
    return layout == Layout::kPanels ? PackedBytes(dtype, rows(), cols()) : rows() * row_bytes;
  }

  // Address of row r as elements of T (for the backend that owns the memory).
  template <class T>
  T* Row(int64_t r) const {
    return reinterpret_cast<T*>(static_cast<char*>(data) + r * row_bytes);
  }
};

// A view of densely packed rows. Whole blocks must fit into the last dimension.
inline TensorView MakeView(void* data, DType dtype, std::initializer_list<int64_t> shape) {
  TC_CHECK(shape.size() >= 1 && shape.size() <= TensorView::kMaxRank);
  TensorView view;
  view.data = data;
  view.dtype = dtype;
  for (int64_t dim : shape) view.shape[view.rank++] = dim;
  view.row_bytes = BytesOf(dtype, view.cols());
  return view;
}

// A weight matrix as the program holds it: in panels.
inline TensorView MakeWeightView(void* data, DType dtype, int64_t rows, int64_t cols) {
  TensorView view = MakeView(data, dtype, {rows, cols});
  TC_CHECK(HasPanels(dtype));
  view.layout = Layout::kPanels;
  return view;
}

// The same bytes seen with another shape; the number of elements must agree.
inline TensorView Reshape(const TensorView& view, std::initializer_list<int64_t> shape) {
  TC_CHECK(view.layout == Layout::kRows);
  TensorView reshaped = MakeView(view.data, view.dtype, shape);
  TC_CHECK(reshaped.num_elems() == view.num_elems());
  return reshaped;
}

// Rows [first, first + count) of a rank-2 view.
inline TensorView RowsOf(const TensorView& view, int64_t first, int64_t count) {
  TC_CHECK(view.rank == 2 && first >= 0 && first + count <= view.shape[0]);
  TensorView part = view;
  if (view.layout == Layout::kPanels) {
    part.first_row += first;
  } else {
    part.data = view.Row<void>(first);
  }
  part.shape[0] = count;
  return part;
}

// The panel that holds row r of a matrix in panels.
inline const uint8_t* PanelOf(const TensorView& matrix, int64_t r) {
  TC_CHECK(matrix.layout == Layout::kPanels);
  return static_cast<const uint8_t*>(matrix.data) +
         (matrix.first_row + r) / kPanelRows * PackedBytes(matrix.dtype, kPanelRows, matrix.cols());
}

// Row r of a matrix in either layout, as a file stores it, for a backend whose memory this is.
// `storage` holds it where the matrix does not.
const uint8_t* StoredRow(const TensorView& matrix, int64_t r, std::vector<uint8_t>* storage);

}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_TENSOR_VIEW_H_
