// Products of panels with rounded activations, written once over the integer vectors of
// vec_<isa>.h.
//
//   small blocks   y[r] = sum over groups of 32:  d_r * d_x * (sum of w x) + m_r * (d_x * sum of x)
//   super-blocks   y[r] = sum over groups of 256: d_x * (d_r * (sum over sub-groups of s_r (sum of
//   w
//                  x)) - dmin_r * (sum over sub-groups of m_r * sum of x))
//
// Sums inside a group are exact integers; groups follow in ascending k, one fused multiply-add
// each. Codes of signed weights are stored with an offset, a power of two: the sum then starts at
// -offset * (sum of x), which is exact again.
//
// A tile keeps one panel x up to kPanelTokens tokens or kTilePanels x kTileTokens in registers and
// reads the panels where they lie: codes are cut out of their bit planes with a shift and a mask,
// next to the dot products. Weights are read once per tile of tokens from the nearest cache and
// once from memory; the same code serves one token (bound by memory) and a prompt (bound by the dot
// products).
//
// Include after a vec_<isa>.h.
#ifndef THERMOCLINE_KERNELS_CPU_PANEL_DOT_IMPL_H_
#define THERMOCLINE_KERNELS_CPU_PANEL_DOT_IMPL_H_

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/panel_tile_impl.h"
#include "kernels/quant/iq4_nl.h"
#include "kernels/quant/iq4_xs.h"
#include "kernels/quant/mxfp4.h"
#include "kernels/quant/panel_layout.h"
#include "kernels/quant/q2_k.h"
#include "kernels/quant/q3_k.h"
#include "kernels/quant/q4_0.h"
#include "kernels/quant/q4_1.h"
#include "kernels/quant/q4_k.h"
#include "kernels/quant/q5_0.h"
#include "kernels/quant/q5_1.h"
#include "kernels/quant/q5_k.h"
#include "kernels/quant/q6_k.h"
#include "kernels/quant/q8_0.h"

namespace thermocline {
namespace {

// ---- what the formats differ in ----

// kOffsetBits: codes are weights + 2^kOffsetBits; -1: codes are weights.
// Values: makes weights (with the offset) of codes.
template <class Format>
struct Codes {
  static constexpr int kOffsetBits = -1;
  static I32 Values(I32 codes) { return codes; }
};
template <>
struct Codes<FormatQ4_0> {
  static constexpr int kOffsetBits = 3;
  static I32 Values(I32 codes) { return codes; }
};
template <>
struct Codes<FormatQ5_0> {
  static constexpr int kOffsetBits = 4;
  static I32 Values(I32 codes) { return codes; }
};
template <>
struct Codes<FormatQ8_0> {
  static constexpr int kOffsetBits = 7;
  static I32 Values(I32 codes) { return I32::Xor(codes, I32::Set((int32_t)0x80808080u)); }
};
template <>
struct Codes<FormatQ3K> {
  static constexpr int kOffsetBits = 2;
  static I32 Values(I32 codes) { return codes; }
};
template <>
struct Codes<FormatQ6K> {
  static constexpr int kOffsetBits = 5;
  static I32 Values(I32 codes) { return codes; }
};

struct OffsetTable {
  uint8_t v[16];
  constexpr OffsetTable(const int8_t (&values)[16], int offset) : v() {
    for (int i = 0; i < 16; ++i) v[i] = (uint8_t)(values[i] + offset);
  }
};
constexpr OffsetTable kIq4NlTable(kIq4NlValues, 128);
constexpr OffsetTable kMxfp4Table(kMxfp4Values, 16);

template <>
struct Codes<FormatIq4Nl> {
  static constexpr int kOffsetBits = 7;
  static I32 Values(I32 codes) { return I32::Lookup(kIq4NlTable.v, codes); }
};
template <>
struct Codes<FormatIq4Xs> : Codes<FormatIq4Nl> {};
template <>
struct Codes<FormatMxfp4> {
  static constexpr int kOffsetBits = 4;
  static I32 Values(I32 codes) { return I32::Lookup(kMxfp4Table.v, codes); }
};

// Weights are taken in chunks of 32, eight steps of four: a whole number of vectors of every plane.
constexpr int kChunkWeights = 32;
constexpr int kChunkSteps = kChunkWeights / kStepWeights;

// The codes of plane `kPlane` at step `step` of a chunk, moved up by kUp bits. `panel` is the
// block's address plus the vector's first row times 4.
template <class Format, int kPlane, int kUp>
inline I32 PlaneCodes(const uint8_t* panel, int chunk, int step) {
  constexpr int kBits = Format::kPlaneBits[kPlane], kSteps = 8 / kBits;
  constexpr int kVectorBytes = kPanelRows * kStepWeights;
  constexpr uint32_t kMask = ((1u << kBits) - 1) * 0x01010101u;
  const I32 bytes =
      I32::Load(panel + PlaneOffset<Format>(kPlane) +
                chunk * (kChunkSteps / kSteps * kVectorBytes) + step / kSteps * kVectorBytes);
  if constexpr (kBits == 8) {
    return bytes;
  } else {
    const int down = kBits * (step % kSteps) - kUp;
    const I32 mask = I32::Set((int32_t)(kMask << kUp));
    switch (down) {
      case -4:
        return I32::And(I32::template ShiftLeft<4>(bytes), mask);
      case -3:
        return I32::And(I32::template ShiftLeft<3>(bytes), mask);
      case -2:
        return I32::And(I32::template ShiftLeft<2>(bytes), mask);
      case -1:
        return I32::And(I32::template ShiftLeft<1>(bytes), mask);
      case 0:
        return I32::And(bytes, mask);
      case 1:
        return I32::And(I32::template ShiftRight<1>(bytes), mask);
      case 2:
        return I32::And(I32::template ShiftRight<2>(bytes), mask);
      case 3:
        return I32::And(I32::template ShiftRight<3>(bytes), mask);
      case 4:
        return I32::And(I32::template ShiftRight<4>(bytes), mask);
      case 5:
        return I32::And(I32::template ShiftRight<5>(bytes), mask);
      case 6:
        return I32::And(I32::template ShiftRight<6>(bytes), mask);
      default:
        return I32::And(I32::template ShiftRight<7>(bytes), mask);
    }
  }
}

// Four weights a row, unsigned.
template <class Format>
inline I32 StepWeights(const uint8_t* panel, int chunk, int step) {
  I32 codes = PlaneCodes<Format, 0, 0>(panel, chunk, step);
  if constexpr (CountOf(Format::kPlaneBits) > 1) {
    codes = I32::Or(codes, PlaneCodes<Format, 1, Format::kPlaneBits[0]>(panel, chunk, step));
  }
  return Codes<Format>::Values(codes);
}

// kFullRange of DotBytes: weights that reach 128 or more.
template <class Format>
constexpr bool IsFullRange() {
  return Codes<Format>::kOffsetBits == 7;
}

template <class Format>
inline I32 StartSum(const int32_t* minus_sum) {
  if constexpr (Codes<Format>::kOffsetBits < 0) return I32::Zero();
  return I32::template ShiftLeft<(Codes<Format>::kOffsetBits & 31)>(I32::Broadcast(minus_sum));
}

// Number `i` of f16 field `field`, for the rows from `row` on.
template <class Format, int kField>
inline RowF32 HalfField(const uint8_t* block, int i, int row) {
  return RowF32::LoadHalf(block + FieldOffset<Format>(kField) + 2 * (i * kPanelRows + row));
}

// ---- small blocks ----

template <class Format>
inline RowF32 SmallScale(const uint8_t* block, int row) {
  return HalfField<Format, 0>(block, 0, row);
}
template <>
inline RowF32 SmallScale<FormatMxfp4>(const uint8_t* block, int row) {
  // E8m0ToHalfFloat: the bits are (e - 1) << 23, or a subnormal's for e < 2.
  const I32 e = I32::LoadUint8(block + FieldOffset<FormatMxfp4>(0) + row);
  const I32 normal = I32::template ShiftLeft<23>(I32::Add(e, I32::Set(-1)));
  const I32 small = I32::template ShiftLeft<21>(I32::Min(I32::Add(e, I32::Set(1)), I32::Set(2)));
  return I32::Max(normal, small).BitsAsFloat();
}

template <class Format, int kVectors, int kTokens>
void SmallTile(const uint8_t* panels, int64_t k, const Ahead& ahead, const void* const* x,
               float (*out)[kVectors * I32::kLanes]) {
  constexpr int kSteps = kSmallBlockElems / kStepWeights;
  constexpr int64_t kBytes = PanelBlockBytes<Format>();
  const int64_t num_blocks = k / kSmallBlockElems;
  RowF32 acc[kTokens][kVectors];
#pragma GCC unroll 12
  for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) acc[t][v] = RowF32::Zero();
  }
  for (int64_t b = 0; b < num_blocks; ++b) {
    const uint8_t* block[kVectors];
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      block[v] = panels + (VectorPanel(v) * num_blocks + b) * kBytes;
      if (VectorRow(v) == 0) PrefetchPart(ahead.At((int)VectorPanel(v), b), ahead.step, 0, 1);
    }
    I32 sum[kTokens][kVectors];
#pragma GCC unroll 12
    for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) {
        sum[t][v] = StartSum<Format>(&((const SmallRecord*)x[t] + b)->minus_sum);
      }
    }
#pragma GCC unroll 8
    for (int step = 0; step < kSteps; ++step) {
      I32 w[kVectors];
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) {
        w[v] = StepWeights<Format>(block[v] + kStepWeights * VectorRow(v), 0, step);
      }
#pragma GCC unroll 12
      for (int t = 0; t < kTokens; ++t) {
        const I32 four = I32::Broadcast(((const SmallRecord*)x[t] + b)->q + kStepWeights * step);
#pragma GCC unroll 2
        for (int v = 0; v < kVectors; ++v) {
          sum[t][v] = I32::template DotBytes<IsFullRange<Format>()>(sum[t][v], w[v], four);
        }
      }
    }
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      const RowF32 d = SmallScale<Format>(block[v], VectorRow(v));
#pragma GCC unroll 12
      for (int t = 0; t < kTokens; ++t) {
        const SmallRecord* record = (const SmallRecord*)x[t] + b;
        acc[t][v] =
            RowF32::Fma(sum[t][v].ToFloat(), RowF32::Mul(d, RowF32::Set(record->d)), acc[t][v]);
        if constexpr (Format::kHasMin) {
          acc[t][v] = RowF32::Fma(HalfField<Format, 0>(block[v], 1, VectorRow(v)),
                                  RowF32::Set(record->sum), acc[t][v]);
        }
      }
    }
  }
  for (int t = 0; t < kTokens; ++t) {
    for (int v = 0; v < kVectors; ++v) acc[t][v].Store(&out[t][v * I32::kLanes]);
  }
}

// ---- super-blocks ----

// Weights that share a scale. A format with kHasMin has mins for groups of the same size.
template <class Format>
constexpr int SubGroup() {
  return Format::kDType == DType::kQ4_K || Format::kDType == DType::kQ5_K ||
                 Format::kDType == DType::kIQ4_XS
             ? 32
             : 16;
}

// A row vector's scales of one block, unpacked to the form they are used in.
template <class Format>
struct SuperScales {
  static constexpr int kGroups = kSuperBlockElems / SubGroup<Format>();
  alignas(64) int32_t scale[kGroups][I32::kLanes];  // of each sub-group
  // Two int16 a row: mins 2i and 2i + 1.
  alignas(64) int32_t min_pair[Format::kHasMin ? kGroups / 2 : 1][I32::kLanes];
};

// Byte j of every lane.
template <int kByte>
inline I32 ByteOf(I32 word) {
  return I32::And(I32::template ShiftRight<8 * kByte>(word), I32::Set(0xFF));
}

inline void StoreBytes(I32 word, int32_t (*out)[I32::kLanes]) {
  ByteOf<0>(word).Store(out[0]);
  ByteOf<1>(word).Store(out[1]);
  ByteOf<2>(word).Store(out[2]);
  ByteOf<3>(word).Store(out[3]);
}

inline void StoreBytePairs(I32 word, int32_t (*out)[I32::kLanes]) {
  const I32 low = I32::Set(0xFF), high = I32::Set(0xFF0000);
  const auto pair = [&](I32 w) {
    return I32::Or(I32::And(w, low), I32::And(I32::template ShiftLeft<8>(w), high));
  };
  pair(word).Store(out[0]);
  pair(I32::template ShiftRight<16>(word)).Store(out[1]);
}

// `block` is the panel's block, `row` the vector's first row in it.
template <class Format>
struct ScaleReader;

// The 12 bytes of Q4_K and Q5_K (kernels/quant/k_scales.h) as three words a row.
template <class Format>
struct KScaleReader {
  static inline void Read(const uint8_t* block, int row, SuperScales<Format>* out) {
    const uint8_t* words = block + FieldOffset<Format>(0) + 4 * row;
    const I32 a = I32::Load(words), b = I32::Load(words + 64), c = I32::Load(words + 128);
    const I32 six = I32::Set(0x3F3F3F3F), four = I32::Set(0x0F0F0F0F), top = I32::Set(0x30303030);
    StoreBytes(I32::And(a, six), out->scale);
    StoreBytes(I32::Or(I32::And(c, four), I32::And(I32::template ShiftRight<2>(a), top)),
               out->scale + 4);
    StoreBytePairs(I32::And(b, six), out->min_pair);
    StoreBytePairs(I32::Or(I32::And(I32::template ShiftRight<4>(c), four),
                           I32::And(I32::template ShiftRight<2>(b), top)),
                   out->min_pair + 2);
  }
};
template <>
struct ScaleReader<FormatQ4K> : KScaleReader<FormatQ4K> {};
template <>
struct ScaleReader<FormatQ5K> : KScaleReader<FormatQ5K> {};

template <>
struct ScaleReader<FormatQ6K> {
  static inline void Read(const uint8_t* block, int row, SuperScales<FormatQ6K>* out) {
    const uint8_t* scales = block + FieldOffset<FormatQ6K>(0) + row;
    for (int g = 0; g < kSubBlocks; ++g) {
      I32::LoadInt8(scales + g * kPanelRows).Store(out->scale[g]);
    }
  }
};

template <>
struct ScaleReader<FormatQ2K> {
  static inline void Read(const uint8_t* block, int row, SuperScales<FormatQ2K>* out) {
    const uint8_t* bytes = block + FieldOffset<FormatQ2K>(0) + row;
    const I32 low = I32::Set(0x0F);
    for (int g = 0; g < kSubBlocks; g += 2) {
      const I32 first = I32::LoadUint8(bytes + g * kPanelRows);
      const I32 second = I32::LoadUint8(bytes + (g + 1) * kPanelRows);
      I32::And(first, low).Store(out->scale[g]);
      I32::And(second, low).Store(out->scale[g + 1]);
      const I32 top = I32::And(I32::template ShiftLeft<12>(second), I32::Set(0x0F0000));
      I32::Or(I32::template ShiftRight<4>(first), top).Store(out->min_pair[g / 2]);
    }
  }
};

template <>
struct ScaleReader<FormatQ3K> {
  static inline void Read(const uint8_t* block, int row, SuperScales<FormatQ3K>* out) {
    const uint8_t* words = block + FieldOffset<FormatQ3K>(0) + 4 * row;
    const I32 a = I32::Load(words), b = I32::Load(words + 64), c = I32::Load(words + 128);
    const I32 low = I32::Set(0x0F0F0F0F), top = I32::Set(0x30303030);
    const I32 minus = I32::Set(-32);
    const I32 six[4] = {I32::Or(I32::And(a, low), I32::And(I32::template ShiftLeft<4>(c), top)),
                        I32::Or(I32::And(b, low), I32::And(I32::template ShiftLeft<2>(c), top)),
                        I32::Or(I32::And(I32::template ShiftRight<4>(a), low), I32::And(c, top)),
                        I32::Or(I32::And(I32::template ShiftRight<4>(b), low),
                                I32::And(I32::template ShiftRight<2>(c), top))};
    for (int i = 0; i < 4; ++i) StoreBytes(six[i], out->scale + 4 * i);
    for (int g = 0; g < kSubBlocks; ++g) {
      I32::Add(I32::Load(out->scale[g]), minus).Store(out->scale[g]);
    }
  }
};

template <>
struct ScaleReader<FormatIq4Xs> {
  static inline void Read(const uint8_t* block, int row, SuperScales<FormatIq4Xs>* out) {
    const I32 low = I32::Load(block + FieldOffset<FormatIq4Xs>(0) + 4 * row);
    I32 high = I32::LoadUint16(block + FieldOffset<FormatIq4Xs>(1) + 2 * (kPanelRows + row));
    I32 nibbles = low;
    for (int g = 0; g < 8; ++g) {
      const I32 scale = I32::Or(I32::And(nibbles, I32::Set(0x0F)),
                                I32::template ShiftLeft<4>(I32::And(high, I32::Set(3))));
      I32::Add(scale, I32::Set(-32)).Store(out->scale[g]);
      nibbles = I32::template ShiftRight<4>(nibbles);
      high = I32::template ShiftRight<2>(high);
    }
  }
};

// d is number 0 of the last field, dmin number 1.
template <class Format>
constexpr int ScaleField() {
  return CountOf(Format::kFields) - 1;
}

// total += scale * (sum of w x) for one sub-group.
template <class Format, int kVectors, int kTokens>
inline __attribute__((always_inline)) void AddGroup(
    const uint8_t* const (&block)[kVectors], const SuperScales<Format>* const (&scales)[kVectors],
    const SuperRecord* const (&record)[kTokens], int chunk, int sub,
    I32 (&total)[kTokens][kVectors]) {
  constexpr int kGroup = SubGroup<Format>(), kSteps = kGroup / kStepWeights;
  const int group = chunk * (kChunkWeights / kGroup) + sub;
  I32 sum[kTokens][kVectors];
#pragma GCC unroll 12
  for (int t = 0; t < kTokens; ++t) {
    I32 start = StartSum<Format>(&record[t]->minus_sum[group * kGroup / kSubBlockElems]);
    if constexpr (kGroup == 32 && Codes<Format>::kOffsetBits >= 0) {
      start = I32::Add(start, StartSum<Format>(&record[t]->minus_sum[2 * group + 1]));
    }
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) sum[t][v] = start;
  }
#pragma GCC unroll 8
  for (int step = sub * kSteps; step < (sub + 1) * kSteps; ++step) {
    I32 w[kVectors];
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      w[v] = StepWeights<Format>(block[v] + kStepWeights * VectorRow(v), chunk, step);
    }
#pragma GCC unroll 12
    for (int t = 0; t < kTokens; ++t) {
      const I32 four = I32::Broadcast(record[t]->q + kChunkWeights * chunk + kStepWeights * step);
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) {
        sum[t][v] = I32::template DotBytes<IsFullRange<Format>()>(sum[t][v], w[v], four);
      }
    }
  }
#pragma GCC unroll 2
  for (int v = 0; v < kVectors; ++v) {
    const I32 scale = I32::Load(scales[v]->scale[group]);
#pragma GCC unroll 12
    for (int t = 0; t < kTokens; ++t) {
      total[t][v] = I32::Add(total[t][v], I32::Mul(sum[t][v], scale));
    }
  }
}

// `ready`: the scales of all blocks, [num_blocks, kVectors], or null.
template <class Format, int kVectors, int kTokens>
void SuperTile(const uint8_t* panels, int64_t k, const Ahead& ahead,
               const SuperScales<Format>* ready, const void* const* x,
               float (*out)[kVectors * I32::kLanes]) {
  constexpr int kGroup = SubGroup<Format>();
  constexpr int kPanels = kVectors * I32::kLanes / kPanelRows;
  constexpr int64_t kBytes = PanelBlockBytes<Format>();
  const int64_t num_blocks = k / kSuperBlockElems;
  SuperScales<Format> own[kVectors];
  // In memory: touched once a block, registers belong to the sums.
  alignas(64) float acc[kTokens][kVectors][I32::kLanes];
  memset(acc, 0, sizeof(acc));
  for (int64_t b = 0; b < num_blocks; ++b) {
    const uint8_t* block[kVectors];
    const SuperRecord* record[kTokens];
    const SuperScales<Format>* scales[kVectors];
#pragma GCC unroll 12
    for (int t = 0; t < kTokens; ++t) record[t] = (const SuperRecord*)x[t] + b;
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      block[v] = panels + (VectorPanel(v) * num_blocks + b) * kBytes;
      scales[v] = ready != nullptr ? ready + b * kVectors + v : &own[v];
      if (ready == nullptr) ScaleReader<Format>::Read(block[v], VectorRow(v), &own[v]);
    }
    I32 total[kTokens][kVectors];
#pragma GCC unroll 12
    for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) total[t][v] = I32::Zero();
    }
    // Not unrolled: the compiler would move the sums of several groups together and spill them.
#pragma GCC unroll 1
    for (int chunk = 0; chunk < kSuperBlockElems / kChunkWeights; ++chunk) {
      for (int p = 0; p < kPanels; ++p) {
        PrefetchPart(ahead.At(p, b), ahead.step, chunk, kSuperBlockElems / kChunkWeights);
      }
#pragma GCC unroll 2
      for (int sub = 0; sub < kChunkWeights / kGroup; ++sub) {
        AddGroup<Format, kVectors, kTokens>(block, scales, record, chunk, sub, total);
      }
    }
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      constexpr int kField = ScaleField<Format>();
      const RowF32 d = HalfField<Format, kField>(block[v], 0, VectorRow(v));
      RowF32 minus_dmin = RowF32::Zero();
      if constexpr (Format::kHasMin) {
        minus_dmin =
            RowF32::Mul(HalfField<Format, kField>(block[v], 1, VectorRow(v)), RowF32::Set(-1.0f));
      }
#pragma GCC unroll 12
      for (int t = 0; t < kTokens; ++t) {
        RowF32 y = RowF32::Mul(total[t][v].ToFloat(), d);
        if constexpr (Format::kHasMin) {
          I32 min = I32::Zero();
          const int16_t* sums = kGroup == 32 ? record[t]->sum32 : record[t]->sum16;
#pragma GCC unroll 8
          for (int i = 0; i < kSuperBlockElems / kGroup / 2; ++i) {
            min =
                I32::DotWords(min, I32::Load(scales[v]->min_pair[i]), I32::Broadcast(sums + 2 * i));
          }
          y = RowF32::Fma(min.ToFloat(), minus_dmin, y);
        }
        y = RowF32::Fma(y, RowF32::Set(record[t]->d), RowF32::Load(acc[t][v]));
        y.Store(acc[t][v]);
      }
    }
  }
  for (int t = 0; t < kTokens; ++t) {
    for (int v = 0; v < kVectors; ++v) {
      memcpy(&out[t][v * I32::kLanes], acc[t][v], sizeof(acc[t][v]));
    }
  }
}

}  // namespace
}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_CPU_PANEL_DOT_IMPL_H_
