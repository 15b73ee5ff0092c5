#include "kernels/tensor_view.h"

namespace thermocline {

const uint8_t* StoredRow(const TensorView& matrix, int64_t r, std::vector<uint8_t>* storage) {
  if (matrix.layout == Layout::kRows) return matrix.Row<const uint8_t>(r);
  storage->resize(static_cast<size_t>(matrix.row_bytes));
  UnpackRow(matrix.dtype, PanelOf(matrix, r), static_cast<int>((matrix.first_row + r) % kPanelRows),
            matrix.cols(), storage->data());
  return storage->data();
}

}  // namespace thermocline
