// Packed panels: the one form in which weight matrices lie in memory, the same for every
// instruction set and device.
//
// 16 consecutive rows of a matrix make a panel, [blocks of a row][16 * block_bytes], and a panel's
// block is a permutation of the 16 rows' blocks of the file:
//
//   bit planes   The codes of a weight are cut into planes of 8, 4, 2 or 1 bits (Q6_K: 4 + 2). A
//                plane is vectors of 64 bytes: 16 rows x 4 bytes, byte i of which belongs to weight
//                k + i. A byte of a plane of b bits serves 8 / b of those steps of four weights,
//                the first one in its lowest bits.
//   fields       Scales, mins and the like, each as [count][16 rows].
//
// Floats have no blocks; kernels/quant/float_formats.h tells their panels.
//
// So one vector load brings the same weights of 16 rows, a step of an integer dot product needs no
// shuffle, and sums over k stay in their lane; it is also the layout of AMX's second operand. Rows
// beyond the last whole panel are filled up with zero blocks, which is the only growth.
#ifndef THERMOCLINE_KERNELS_QUANT_PANELS_H_
#define THERMOCLINE_KERNELS_QUANT_PANELS_H_

#include <cstdint>

#include "kernels/dtype.h"
#include "kernels/quant/panel_layout.h"

namespace thermocline {

// True for all weight formats.
bool HasPanels(DType dtype);

// Bytes of `rows` rows of `cols` weights in panels. Whole blocks must fit into cols.
int64_t PackedBytes(DType dtype, int64_t rows, int64_t cols);

// Packs num_rows (1 to 16) rows of `cols` weights, one after the other as in a file, into one panel
// of PackedBytes(dtype, 16, cols). The two must not overlap. Any thread.
void PackPanel(DType dtype, const uint8_t* rows, int num_rows, int64_t cols, uint8_t* panel);

// Packs any number of rows into panels of PackedBytes(dtype, num_rows, cols).
void PackRows(DType dtype, const uint8_t* rows, int64_t num_rows, int64_t cols, uint8_t* panels);

// The inverse of PackPanel for one row (0 to 15): writes its blocks as a file holds them.
void UnpackRow(DType dtype, const uint8_t* panel, int row, int64_t cols, uint8_t* out);

}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_QUANT_PANELS_H_
