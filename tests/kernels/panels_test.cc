// Packed panels are a permutation of the file's blocks.
#include "kernels/quant/panels.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "kernels/quant/registry.h"
#include "kernels/tensor_view.h"

namespace thermocline {
namespace {

std::vector<uint8_t> RandomBytes(int64_t n) {
  std::mt19937 random(3);
  std::vector<uint8_t> bytes(static_cast<size_t>(n));
  for (uint8_t& b : bytes) b = static_cast<uint8_t>(random());
  return bytes;
}

TEST(PanelsTest, AllWeightFormatsHavePanels) {
  for (const WeightFormat& format : AllFormats()) {
    EXPECT_EQ(HasPanels(format.dtype), format.decode != nullptr) << format.name;
  }
}

TEST(PanelsTest, EveryRowComesBackAsItWas) {
  for (const WeightFormat& format : AllFormats()) {
    if (!HasPanels(format.dtype)) continue;
    for (int64_t num_rows : {1, 15, 16, 17, 32, 37}) {
      const int64_t cols = 3 * format.block_elems, row_bytes = BytesOf(format.dtype, cols);
      std::vector<uint8_t> rows = RandomBytes(num_rows * row_bytes);
      const int64_t bytes = PackedBytes(format.dtype, num_rows, cols);
      ASSERT_EQ(bytes, (num_rows + 15) / 16 * 16 * row_bytes);
      std::vector<uint8_t> panels(static_cast<size_t>(bytes), 0xAA);
      PackRows(format.dtype, rows.data(), num_rows, cols, panels.data());
      const TensorView view = MakeWeightView(panels.data(), format.dtype, num_rows, cols);
      ASSERT_EQ(view.bytes(), bytes);
      std::vector<uint8_t> storage;
      for (int64_t r = 0; r < num_rows; ++r) {
        const uint8_t* row = StoredRow(view, r, &storage);
        ASSERT_EQ(
            std::vector<uint8_t>(row, row + row_bytes),
            std::vector<uint8_t>(rows.begin() + r * row_bytes, rows.begin() + (r + 1) * row_bytes))
            << format.name << " row " << r << " of " << num_rows;
      }
      // A view of some of the rows.
      if (num_rows < 20) continue;
      const TensorView part = RowsOf(view, 7, 20);
      const uint8_t* row = StoredRow(part, 11, &storage);
      ASSERT_EQ(std::vector<uint8_t>(row, row + row_bytes),
                std::vector<uint8_t>(rows.begin() + 18 * row_bytes, rows.begin() + 19 * row_bytes));
    }
  }
}

}  // namespace
}  // namespace thermocline
