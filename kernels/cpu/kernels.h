// The table of CPU kernels: one per instruction set, all with the same meaning.
//
// A plain header without inline functions: the instruction-set files that include it are compiled
// with other flags than the rest of the program (see kernels/quant/float_bits.h).
#ifndef THERMOCLINE_KERNELS_CPU_KERNELS_H_
#define THERMOCLINE_KERNELS_CPU_KERNELS_H_

#include <stdint.h>

#include "kernels/dtype.h"

namespace thermocline {

// Activations rounded to int8: x[i] = d * q[i] within a group of 32 (for formats of small blocks)
// or 256 (for super-blocks). A token's row is an array of one of these records, one a group; q
// keeps the order of x.
struct SmallRecord {
  int8_t q[32];
  float d;
  float sum;          // d times the sum of q
  int32_t minus_sum;  // -(the sum of q)
  int32_t unused;
};
struct SuperRecord {
  int8_t q[256];
  int32_t minus_sum[16];  // -(the sum of q) of every 16
  int16_t sum16[16];      // sums of q of every 16
  int16_t sum32[8];       // and of every 32
  float d;
  int32_t unused[3];
};

// How far ahead of its use a stream of weights is prefetched.
enum { kPrefetchBytes = 4096 };

// A product of weights in panels (kernels/quant/panels.h) with rounded activations, of F32, F16
// and BF16 weights with f32 ones: out[t][r - first_row] = weight row r . x[t] for rows [first_row,
// last_row).
struct PanelDotArgs {
  const uint8_t* panels;  // of row 0
  int64_t k;
  int64_t first_row;
  int64_t last_row;
  const void* const* x;  // [num_tokens] arrays of records or floats
  int num_tokens;
  float* const* out;  // [num_tokens]
  // What the caller will read next, or null: prefetched towards the end.
  const uint8_t* next;
  // From so many tokens on, tiles are wide: two panels share what is read of x, and the panels are
  // read once per few tokens. 0: the level's own choice. It never shows in the result.
  int wide_from;
  // For F32 weights: continue sums that `out` holds. Pieces of k that are multiples of 32 give the
  // same bits as the whole.
  bool accumulate;
};

// One token's attention for num_heads neighbouring key/value heads, `group` query heads each.
struct AttendArgs {
  const float* q;  // [num_heads * group, key_dim]
  int num_heads;
  int group;
  int64_t key_dim;
  int64_t value_dim;
  const uint8_t*
      k_cache;  // base of the paged cache: row (block * block_size + offset) * num_kv_heads + head
  const uint8_t* v_cache;
  DType cache_dtype;
  int64_t k_row_bytes;
  int64_t v_row_bytes;
  int64_t num_kv_heads;  // of the cache
  int64_t head;          // the first one here
  int64_t block_size;
  const int32_t* block_table;
  int64_t first;  // first and last position attended
  int64_t last;
  const float* sinks;  // [num_heads * group] or null
  float scale;
  float* scores;  // scratch [num_heads * group, last - first + 1 rounded up to 16]
  float* out;     // [num_heads * group, value_dim]
};

// Queries that share a key/value head of one sequence: tokens x heads, in any order.
struct AttendTileArgs {
  const float* const* q;  // [num_queries] rows of key_dim
  int num_queries;
  const int64_t* first;  // [num_queries] first and last position each attends
  const int64_t* last;
  const float* const* sinks;  // [num_queries], or null
  float* const* out;          // [num_queries] rows of value_dim
  int64_t key_dim;
  int64_t value_dim;
  const uint8_t* k_cache;  // as in AttendArgs
  const uint8_t* v_cache;
  DType cache_dtype;
  int64_t k_row_bytes;
  int64_t v_row_bytes;
  int64_t num_kv_heads;
  int64_t head;
  int64_t block_size;
  const int32_t* block_table;
  float scale;
  float* scratch;  // attend_tile_scratch floats, aligned to 64 bytes
};

struct CpuKernels {
  const char* name;

  // Rounds one row to int8: scale = max|x| / 127, nearest even.
  void (*quantize_small)(const float* x, int64_t k, SmallRecord* out);
  void (*quantize_super)(const float* x, int64_t k, SuperRecord* out);

  // The sum of a (row, token) pair is the same whatever rows and
  // tokens are computed with it, and the same at every instruction set: exact integers within a
  // group, then in ascending order of groups one fused multiply-add each; for F32, F16 and BF16 as
  // kernels/cpu/float_dot_impl.h says.
  void (*dot_panels[kNumDTypes])(const PanelDotArgs* args);

  // Decodes a panel of a block format to one of F32. Null for floats.
  void (*decode_panel[kNumDTypes])(const uint8_t* panel, int64_t k, float* out);

  // Attention of one token; of many prompt tokens. The two differ in rounding: a role has one of
  // them. A query's result is the same in every tile.
  void (*attend)(const AttendArgs* args);
  void (*attend_tile)(const AttendTileArgs* args);
  int64_t (*attend_tile_scratch)(int64_t num_queries, int64_t key_dim, int64_t value_dim);
  // One query's scores of `count` neighbouring positions (whole vectors) become weights, those
  // outside [begin, end) zero; its maximum and sum so far are brought up to date. Returns the
  // factor of what it has summed. A score that is NaN or infinite makes the sum NaN.
  float (*softmax_block)(float* scores, int count, float scale, int begin, int end, float* max,
                         float* sum);
  void (*rms_norm)(const float* x, const float* weight, float eps, int64_t n, float* out);
  // Rounds n values to the type of a cache: F32, F16, BF16 or Q8_0 (whole blocks).
  void (*encode_row[kNumDTypes])(const float* x, int64_t n, void* out);
  // And back.
  void (*decode_row[kNumDTypes])(const void* row, int64_t n, float* out);
  void (*silu_mul)(const float* gate, const float* up, int64_t n, float* out);
  void (*swiglu_oai)(const float* gate, const float* up, int64_t n, float* out);
  void (*axpy)(const float* x, float scale, int64_t n, float* acc);
  // max |x|; NaN if one is NaN.
  float (*largest_magnitude)(const float* x, int64_t n);

  // For measuring what the machine can do. The integer operations (a multiplication and an addition
  // count as two) of `rounds` rounds of independent byte products; their result goes to *sink.
  int64_t (*int8_probe)(int64_t rounds, int32_t* sink);
  // Reads memory, a multiple of 1024 bytes, as the products do, and returns a sum over it.
  int32_t (*read_probe)(const uint8_t* p, int64_t bytes);
};

const CpuKernels& ScalarKernels();
const CpuKernels& Avx2Kernels();
const CpuKernels& Avx512Kernels();

}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_CPU_KERNELS_H_
