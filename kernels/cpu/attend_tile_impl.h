// Attention of many prompt tokens at once. Include after a vec_<isa>.h.
//
// Dao et al. 2022 (FlashAttention), algorithm 1, for a tile of queries (tokens x the heads that
// share a key/value head) over blocks of kBlock positions, which begin at multiples of kBlock
// whatever the prompt was cut into:
//
//   s = scale q k;  m' = max(m, max s);  c = exp(m - m');  l = c l + sum exp(s - m');
//   acc = c acc + exp(s - m') v;  at the end out = acc / l.
//
// A block's keys are converted to f32 and transposed once for the whole tile, so that lanes are
// positions in the first product and value elements in the second. A query sees the same
// operations in the same order whatever tile it is in: positions it does not attend have weight
// zero, blocks it does not attend are skipped.
#ifndef THERMOCLINE_KERNELS_CPU_ATTEND_TILE_IMPL_H_
#define THERMOCLINE_KERNELS_CPU_ATTEND_TILE_IMPL_H_

#include "kernels/cpu/attend_impl.h"

namespace thermocline {
namespace {

constexpr int kBlock = 64;  // positions
constexpr int kBlockVectors = kBlock / F32::kLanes;

inline int64_t RoundToLanes(int64_t n) { return (n + F32::kLanes - 1) / F32::kLanes * F32::kLanes; }

// The tile's memory, floats.
struct TileMemory {
  float* keys;    // [key_dim rounded up, kBlock]: transposed
  float* values;  // [kBlock, value_dim rounded up]
  float* acc;     // [queries, value_dim rounded up]
  float* max;     // [queries]
  float* sum;     // [queries]
};

int64_t AttendTileScratch(int64_t num_queries, int64_t key_dim, int64_t value_dim) {
  return kBlock * (RoundToLanes(key_dim) + RoundToLanes(value_dim)) +
         num_queries * (RoundToLanes(value_dim) + 2);
}

// Positions [begin, end) of the block that starts at `base`, the others zero.
template <class Storage>
void LoadBlock(const AttendTileArgs& a, int64_t base, int64_t begin, int64_t end,
               const TileMemory& memory) {
  constexpr int kLanes = F32::kLanes;
  const int64_t key_dim = RoundToLanes(a.key_dim), value_dim = RoundToLanes(a.value_dim);
  const auto row_of = [&](const uint8_t* cache, int64_t row_bytes, int64_t position) {
    const int64_t slot =
        (int64_t)a.block_table[position / a.block_size] * a.block_size + position % a.block_size;
    return cache + (slot * a.num_kv_heads + a.head) * row_bytes;
  };
  const auto load = [](const uint8_t* row, int64_t i, int64_t n) {
    if (i + kLanes <= n) return Storage::Load(row, i);
    float tail[kLanes] = {};
    for (int64_t j = i; j < n; ++j) tail[j - i] = Storage::LoadOne(row, j);
    return F32::Load(tail);
  };
  for (int p = 0; p < kBlock; p += kLanes) {
    for (int64_t i = 0; i < key_dim; i += kLanes) {
      F32 rows[kLanes];
      for (int l = 0; l < kLanes; ++l) {
        const int64_t position = base + p + l;
        rows[l] = position >= begin && position < end
                      ? load(row_of(a.k_cache, a.k_row_bytes, position), i, a.key_dim)
                      : F32::Zero();
      }
      F32::Transpose(rows);
      for (int l = 0; l < kLanes; ++l) rows[l].Store(memory.keys + (i + l) * kBlock + p);
    }
  }
  for (int p = 0; p < kBlock; ++p) {
    const int64_t position = base + p;
    const bool used = position >= begin && position < end;
    const uint8_t* row = used ? row_of(a.v_cache, a.v_row_bytes, position) : nullptr;
    for (int64_t i = 0; i < value_dim; i += kLanes) {
      (used ? load(row, i, a.value_dim) : F32::Zero()).Store(memory.values + p * value_dim + i);
    }
  }
}

// scores[r][kBlock] = q[r] . keys, for kRows queries and kVectors vectors of positions at a time.
template <int kRows, int kVectors>
void Scores(const float* const* q, int64_t key_dim, const float* keys, float (*scores)[kBlock]) {
  for (int first = 0; first < kBlockVectors; first += kVectors) {
    F32 sum[kRows][kVectors];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) sum[r][v] = F32::Zero();
    }
    const float* column = keys + first * F32::kLanes;
    for (int64_t i = 0; i < key_dim; ++i, column += kBlock) {
      F32 k[kVectors];
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) k[v] = F32::Load(column + v * F32::kLanes);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        const F32 x = F32::Set(q[r][i]);
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v) sum[r][v] = F32::Fma(x, k[v], sum[r][v]);
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) sum[r][v].Store(&scores[r][(first + v) * F32::kLanes]);
    }
  }
}

// acc[r][n] = scale[r] acc[r][n] + sum over positions [begin, end) of weights[r][p] values[p][n],
// for kVectors vectors of n.
template <int kRows, int kVectors>
void AddValues(const float (*weights)[kBlock], const float* scale, int begin, int end,
               const float* values, int64_t stride, float* acc) {
  F32 sum[kRows][kVectors];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      sum[r][v] = F32::Mul(F32::Set(scale[r]), F32::Load(acc + r * stride + v * F32::kLanes));
    }
  }
  for (int p = begin; p < end; ++p) {
    F32 row[kVectors];
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) row[v] = F32::Load(values + p * stride + v * F32::kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const F32 w = F32::Set(weights[r][p]);
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) sum[r][v] = F32::Fma(w, row[v], sum[r][v]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) sum[r][v].Store(acc + r * stride + v * F32::kLanes);
  }
}

// CpuKernels::softmax_block.
inline float SoftmaxBlock(float* scores, int count, float scale, int begin, int end, float* max,
                          float* sum) {
  float block_max = *max;
  for (int i = 0; i < count; i += F32::kLanes) {
    F32::Mul(F32::Load(scores + i), F32::Set(scale)).Store(scores + i);
  }
  for (int i = begin; i < end; ++i) block_max = scores[i] > block_max ? scores[i] : block_max;
  // What the query does not see, be it NaN, must not show.
  for (int i = 0; i < begin; ++i) scores[i] = block_max;
  for (int i = end; i < count; ++i) scores[i] = block_max;
  float factor[F32::kLanes];
  Exp(F32::Set(*max - block_max)).Store(factor);
  F32 total = F32::Zero();
  for (int i = 0; i < count; i += F32::kLanes) {
    const F32 score = F32::Load(scores + i);
    total = F32::Fma(score, F32::Zero(), total);  // NaN or nothing
    Exp(F32::Sub(score, F32::Set(block_max))).Store(scores + i);
  }
  for (int i = 0; i < begin; ++i) scores[i] = 0.0f;
  for (int i = end; i < count; ++i) scores[i] = 0.0f;
  for (int i = 0; i < count; i += F32::kLanes) total = F32::Add(total, F32::Load(scores + i));
  *sum = *sum * factor[0] + total.Sum();
  *max = block_max;
  return factor[0];
}

// Queries [first, first + kRows) of the tile over one block. No query of the group may lie wholly
// outside it.
template <int kRows>
void AttendGroup(const AttendTileArgs& a, int first, int64_t base, const TileMemory& memory) {
  constexpr int kVectors = kAttendVectors;
  const int64_t stride = RoundToLanes(a.value_dim);
  alignas(64) float scores[kRows][kBlock];
  Scores<kRows, kVectors>(a.q + first, a.key_dim, memory.keys, scores);
  float scale[kRows];
  int begin = kBlock, end = 0;
  for (int r = 0; r < kRows; ++r) {
    const int q = first + r;
    const int low = a.first[q] > base ? (int)(a.first[q] - base) : 0;
    const int high = a.last[q] - base + 1 < kBlock ? (int)(a.last[q] - base + 1) : kBlock;
    scale[r] = SoftmaxBlock(scores[r], kBlock, a.scale, low, high, &memory.max[q], &memory.sum[q]);
    begin = low < begin ? low : begin;
    end = high > end ? high : end;
  }
  float* acc = memory.acc + first * stride;
  int64_t n = 0;
  for (; n + kVectors * F32::kLanes <= stride; n += kVectors * F32::kLanes) {
    AddValues<kRows, kVectors>(scores, scale, begin, end, memory.values + n, stride, acc + n);
  }
  for (; n < stride; n += F32::kLanes) {
    AddValues<kRows, 1>(scores, scale, begin, end, memory.values + n, stride, acc + n);
  }
}

template <int kRows>
void AttendGroupOf(int rows, const AttendTileArgs& a, int first, int64_t base,
                   const TileMemory& memory) {
  if constexpr (kRows > 1) {
    if (rows < kRows) return AttendGroupOf<kRows - 1>(rows, a, first, base, memory);
  }
  AttendGroup<kRows>(a, first, base, memory);
}

template <class Storage>
void AttendTileWith(const AttendTileArgs& a) {
  const int64_t key_dim = RoundToLanes(a.key_dim), value_dim = RoundToLanes(a.value_dim);
  const int n = a.num_queries;
  TileMemory memory;
  memory.keys = a.scratch;
  memory.values = memory.keys + kBlock * key_dim;
  memory.acc = memory.values + kBlock * value_dim;
  memory.max = memory.acc + n * value_dim;
  memory.sum = memory.max + n;
  int64_t begin = a.first[0], end = a.last[0] + 1;
  for (int q = 0; q < n; ++q) {
    begin = a.first[q] < begin ? a.first[q] : begin;
    end = a.last[q] + 1 > end ? a.last[q] + 1 : end;
    // A sink is a logit without a value; without one the first block sets the maximum.
    memory.max[q] = a.sinks != nullptr ? *a.sinks[q] : -3.0e38f;
    memory.sum[q] = a.sinks != nullptr ? 1.0f : 0.0f;
  }
  memset(memory.acc, 0, (size_t)(n * value_dim) * sizeof(float));
  for (int64_t base = begin / kBlock * kBlock; base < end; base += kBlock) {
    LoadBlock<Storage>(a, base, begin, end, memory);
    const auto attends = [&](int q) { return a.last[q] >= base && a.first[q] < base + kBlock; };
    for (int q = 0; q < n;) {
      if (!attends(q)) {
        ++q;
        continue;
      }
      int rows = 1;
      while (rows < kAttendRows && q + rows < n && attends(q + rows)) ++rows;
      AttendGroupOf<kAttendRows>(rows, a, q, base, memory);
      q += rows;
    }
  }
  for (int q = 0; q < n; ++q) {
    const float inverse = 1.0f / memory.sum[q];
    for (int64_t i = 0; i < a.value_dim; ++i) {
      a.out[q][i] = memory.acc[q * value_dim + i] * inverse;
    }
  }
}

// CpuKernels::decode_row.
template <class Storage>
void DecodeRow(const void* row, int64_t n, float* out) {
  const uint8_t* bytes = (const uint8_t*)row;
  int64_t i = 0;
  for (; i + F32::kLanes <= n; i += F32::kLanes) Storage::Load(bytes, i).Store(out + i);
  for (; i < n; ++i) out[i] = Storage::LoadOne(bytes, i);
}

void AttendTile(const AttendTileArgs* args) {
  switch (args->cache_dtype) {
    case DType::kF16:
      return AttendTileWith<F16Storage>(*args);
    case DType::kBF16:
      return AttendTileWith<Bf16Storage>(*args);
    case DType::kQ8_0:
      return AttendTileWith<Q8Storage>(*args);
    default:
      return AttendTileWith<F32Storage>(*args);
  }
}

}  // namespace
}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_CPU_ATTEND_TILE_IMPL_H_
