// The two canonical forms into which every quantised block unpacks.
//
//   Small block (32 weights):   w[i] = d * q[i] + m
//   Super-block (256 weights):  w[i] = (d * scale[i / 16]) * q[i] - dmin * min[i / 16]
//
// A format file gives one struct with DType, sizes and Unpack; the decoder, the scalar kernels and
// the vector kernels' generic path are all made from it. Internal linkage: see float_bits.h.
#ifndef THERMOCLINE_KERNELS_QUANT_BLOCKS_H_
#define THERMOCLINE_KERNELS_QUANT_BLOCKS_H_

#include <stdint.h>

#include "kernels/quant/float_bits.h"

namespace thermocline {

enum { kSmallBlockElems = 32, kSuperBlockElems = 256, kSubBlockElems = 16, kSubBlocks = 16 };

// Where a block holds the codes of the four consecutive weights k .. k + 3 (k a multiple of 4) of
// one bit plane: in four consecutive bytes at one shift, or, with packed_bits, as four consecutive
// bits of the 32-bit word at `byte`.
struct CodePosition {
  int byte;
  int shift;
  bool packed_bits = false;
};

// `count` consecutive numbers of unit_bytes each: scales and the like.
struct PanelField {
  int offset;
  int count;
  int unit_bytes;
};

struct SmallBlock {
  int8_t q[kSmallBlockElems];
  float d;
  float m;
};

struct SuperBlock {
  int8_t q[kSuperBlockElems];
  int16_t scale[kSubBlocks];
  int16_t min[kSubBlocks];
  float d;
  float dmin;
};

}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_QUANT_BLOCKS_H_
