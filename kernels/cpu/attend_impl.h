// Attention of one token over its stored keys and values, bound by the bytes of those. Include
// after a vec_<isa>.h.
#ifndef THERMOCLINE_KERNELS_CPU_ATTEND_IMPL_H_
#define THERMOCLINE_KERNELS_CPU_ATTEND_IMPL_H_

#include "kernels/cpu/exp_impl.h"
#include "kernels/cpu/kernels.h"
#include "kernels/quant/q8_0.h"

namespace thermocline {
namespace {

// ---- the types of the cache ----

struct F32Storage {
  static F32 Load(const uint8_t* row, int64_t i) { return F32::Load((const float*)row + i); }
  static float LoadOne(const uint8_t* row, int64_t i) { return ((const float*)row)[i]; }
};
struct F16Storage {
  static F32 Load(const uint8_t* row, int64_t i) { return F32::LoadHalf(row + 2 * i); }
  static float LoadOne(const uint8_t* row, int64_t i) { return HalfToFloat(LoadU16(row + 2 * i)); }
};
struct Bf16Storage {
  static F32 Load(const uint8_t* row, int64_t i) { return F32::LoadBfloat16(row + 2 * i); }
  static float LoadOne(const uint8_t* row, int64_t i) {
    return Bfloat16ToFloat(LoadU16(row + 2 * i));
  }
};

// A block of 32 has one scale; vectors do not cross blocks.
struct Q8Storage {
  static F32 Load(const uint8_t* row, int64_t i) {
    const uint8_t* block = row + i / kSmallBlockElems * FormatQ8_0::kBlockBytes;
    return F32::Mul(F32::SetHalf(block), F32::LoadInt8(block + 2 + i % kSmallBlockElems));
  }
  static float LoadOne(const uint8_t* row, int64_t i) {
    const uint8_t* block = row + i / kSmallBlockElems * FormatQ8_0::kBlockBytes;
    return HalfToFloat(LoadU16(block)) * (float)(int8_t)block[2 + i % kSmallBlockElems];
  }
};

// ---- one token ----

// The first of the heads' rows at a position.
inline int64_t CacheRow(const AttendArgs& a, int64_t position) {
  const int64_t block = a.block_table[position / a.block_size];
  const int64_t slot = block * a.block_size + position % a.block_size;
  return slot * a.num_kv_heads + a.head;
}

// The products of q with a stored row, to be summed over lanes, and those of the tail.
template <class Storage>
inline F32 DotCached(const float* q, const uint8_t* row, int64_t n, float* tail) {
  F32 acc0 = F32::Zero(), acc1 = F32::Zero();
  int64_t i = 0;
  for (; i + 2 * F32::kLanes <= n; i += 2 * F32::kLanes) {
    acc0 = F32::Fma(F32::Load(q + i), Storage::Load(row, i), acc0);
    acc1 = F32::Fma(F32::Load(q + i + F32::kLanes), Storage::Load(row, i + F32::kLanes), acc1);
  }
  *tail = 0.0f;
  for (; i < n; ++i) *tail += q[i] * Storage::LoadOne(row, i);
  return F32::Add(acc0, acc1);
}

// Lane i of the result is the sum over lanes of v[i]: the same operations for every i. v is spent.
inline F32 SumEach(F32 v[F32::kLanes]) {
  F32::Transpose(v);
  for (int width = F32::kLanes / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) v[i] = F32::Add(v[i], v[i + width]);
  }
  return v[0];
}

// scores[query][p] for all queries at one position.
template <class Storage>
inline void ScoresAt(const AttendArgs& a, int64_t p, int64_t stride) {
  const uint8_t* row = a.k_cache + CacheRow(a, a.first + p) * a.k_row_bytes;
  const int num_queries = a.num_heads * a.group;
  for (int first = 0; first < num_queries; first += F32::kLanes) {
    const int count = num_queries - first < F32::kLanes ? num_queries - first : F32::kLanes;
    F32 parts[F32::kLanes];
    float tails[F32::kLanes], sums[F32::kLanes];
    for (int i = 0; i < F32::kLanes; ++i) {
      parts[i] = F32::Zero();
      if (i >= count) continue;
      const int query = first + i;
      parts[i] = DotCached<Storage>(a.q + query * a.key_dim, row + query / a.group * a.k_row_bytes,
                                    a.key_dim, &tails[i]);
    }
    SumEach(parts).Store(sums);
    for (int i = 0; i < count; ++i) {
      a.scores[(first + i) * stride + p] = a.scale * (sums[i] + tails[i]);
    }
  }
}

// out[query] += weight * value for kPositions positions from p on, one after the other.
template <class Storage, int kPositions>
inline void AddValuesAt(const AttendArgs& a, int64_t p, int64_t stride) {
  const uint8_t* rows[kPositions];
  for (int j = 0; j < kPositions; ++j) {
    rows[j] = a.v_cache + CacheRow(a, a.first + p + j) * a.v_row_bytes;
  }
  for (int query = 0; query < a.num_heads * a.group; ++query) {
    const float* weights = a.scores + query * stride + p;
    const int64_t offset = query / a.group * a.v_row_bytes;
    float* out = a.out + query * a.value_dim;
    int64_t i = 0;
    for (; i + F32::kLanes <= a.value_dim; i += F32::kLanes) {
      F32 sum = F32::Load(out + i);
      for (int j = 0; j < kPositions; ++j) {
        sum = F32::Fma(F32::Set(weights[j]), Storage::Load(rows[j] + offset, i), sum);
      }
      sum.Store(out + i);
    }
    for (; i < a.value_dim; ++i) {
      for (int j = 0; j < kPositions; ++j) {
        out[i] = out[i] + weights[j] * Storage::LoadOne(rows[j] + offset, i);
      }
    }
  }
}

// Scores to probabilities over positions, in place; the order of the sum depends on `n` only. A
// sink takes its share of the sum. A score that is NaN or infinite makes all of them NaN.
inline void Softmax(float* scores, int64_t n, const float* sink) {
  float max = sink != nullptr && *sink > scores[0] ? *sink : scores[0];
  for (int64_t i = 1; i < n; ++i) max = scores[i] > max ? scores[i] : max;
  const int64_t padded = (n + F32::kLanes - 1) / F32::kLanes * F32::kLanes;
  for (int64_t i = n; i < padded; ++i) scores[i] = -1e30f;  // weighs exp(-87), cleared below
  F32 sum = F32::Zero();
  for (int64_t i = 0; i < padded; i += F32::kLanes) {
    const F32 score = F32::Load(scores + i);
    sum = F32::Fma(score, F32::Zero(), sum);  // NaN if a score is NaN or infinite, else nothing
    Exp(F32::Sub(score, F32::Set(max))).Store(scores + i);
  }
  for (int64_t i = n; i < padded; ++i) scores[i] = 0.0f;
  for (int64_t i = 0; i < padded; i += F32::kLanes) sum = F32::Add(sum, F32::Load(scores + i));
  float total = sum.Sum();
  if (sink != nullptr) {
    float weight[F32::kLanes] = {};
    Exp(F32::Set(*sink - max)).Store(weight);
    total += weight[0];
  }
  const F32 inverse = F32::Set(1.0f / total);
  for (int64_t i = 0; i < padded; i += F32::kLanes) {
    F32::Mul(F32::Load(scores + i), inverse).Store(scores + i);
  }
}

// Asks for the heads' rows of a position some way ahead.
inline void PrefetchPosition(const AttendArgs& a, const uint8_t* cache, int64_t row_bytes,
                             int64_t p) {
  constexpr int64_t kPositionsAhead = 6;
  if (a.first + p + kPositionsAhead > a.last) return;
  const uint8_t* row = cache + CacheRow(a, a.first + p + kPositionsAhead) * row_bytes;
  for (int64_t i = 0; i < a.num_heads * row_bytes; i += 64) __builtin_prefetch(row + i);
}

// Positions outside, heads inside: a position's rows lie next to each other.
template <class Storage>
void AttendWith(const AttendArgs& a) {
  const int64_t count = a.last - a.first + 1, stride = (count + 15) / 16 * 16;
  const int num_queries = a.num_heads * a.group;
  for (int64_t p = 0; p < count; ++p) {
    PrefetchPosition(a, a.k_cache, a.k_row_bytes, p);
    ScoresAt<Storage>(a, p, stride);
  }
  for (int q = 0; q < num_queries; ++q) {
    Softmax(a.scores + q * stride, count, a.sinks != nullptr ? a.sinks + q : nullptr);
  }
  for (int64_t i = 0; i < num_queries * a.value_dim; ++i) a.out[i] = 0.0f;
  int64_t p = 0;
  for (; p + 4 <= count; p += 4) {
    for (int64_t i = p; i < p + 4; ++i) PrefetchPosition(a, a.v_cache, a.v_row_bytes, i);
    AddValuesAt<Storage, 4>(a, p, stride);
  }
  for (; p < count; ++p) AddValuesAt<Storage, 1>(a, p, stride);
}

void Attend(const AttendArgs* args) {
  switch (args->cache_dtype) {
    case DType::kF16:
      return AttendWith<F16Storage>(*args);
    case DType::kBF16:
      return AttendWith<Bf16Storage>(*args);
    case DType::kQ8_0:
      return AttendWith<Q8Storage>(*args);
    default:
      return AttendWith<F32Storage>(*args);
  }
}

}  // namespace
}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_CPU_ATTEND_IMPL_H_
