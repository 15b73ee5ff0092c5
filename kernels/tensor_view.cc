#include "kernels/tensor_view.h"

namespace thermocline {

const uint8_t* StoredRow(const TensorView& matrix, int64_t r, std::vector<uint8_t>* storage) {
  if (matrix.layout == Layout::kRows) return matrix.Row<const uint8_t>(r);
  const int64_t row = matrix.first_row + r;
  storage->resize(static_cast<size_t>(matrix.row_bytes));
  const uint8_t* panel = static_cast<const uint8_t*>(matrix.data) +
                         row / kPanelRows * PackedBytes(matrix.dtype, kPanelRows, matrix.cols());
  UnpackRow(matrix.dtype, panel, static_cast<int>(row % kPanelRows), matrix.cols(),
            storage->data());
  return storage->data();
}

}  // namespace thermocline
