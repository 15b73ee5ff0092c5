// The table of CPU kernels: one per instruction set, all with the same meaning.
//
// A plain header without inline functions: the instruction-set files that include it are compiled
// with other flags than the rest of the program (see kernels/quant/float_bits.h).
#ifndef THERMOCLINE_KERNELS_CPU_KERNELS_H_
#define THERMOCLINE_KERNELS_CPU_KERNELS_H_

#include <stdint.h>

#include "kernels/dtype.h"

namespace thermocline {

// One token's activations rounded to int8: x[i] = d[i / group] * q[i], with groups of 32 for
// formats of small blocks and of 256 for super-blocks. How q is stored is the kernels' own affair;
// the arrays are made by the quantize functions of the same table and have room for
// QuantizedRowLayout's sizes.
struct QuantizedRow {
  int8_t* q;      // [k rounded up to 64]
  float* d;       // [k / 32 rounded up to 2] or [k / 256]
  float* sum;     // small blocks: [as d] d times the sum of the group's q
  int16_t* sums;  // super-blocks: [k / 16] sums of q
};

// The KV rows one token attends, for one key/value head.
struct AttendArgs {
  const float* q;  // [num_queries, key_dim]: the query heads that share this key/value head
  int num_queries;
  int64_t key_dim;
  int64_t value_dim;
  const uint8_t*
      k_cache;  // base of the paged cache: row (block * block_size + offset) * num_kv_heads + head
  const uint8_t* v_cache;
  DType cache_dtype;
  int64_t k_row_bytes;
  int64_t v_row_bytes;
  int64_t num_kv_heads;
  int64_t head;
  int64_t block_size;
  const int32_t* block_table;
  int64_t first;  // first and last position attended
  int64_t last;
  const float* sinks;  // [num_queries] or null
  float scale;
  float* scores;  // scratch [num_queries, last - first + 1 rounded up to 16]
  float* out;     // [num_queries, value_dim]
};

struct CpuKernels {
  const char* name;

  // Rounds one row to int8: scale = max|x| / 127, nearest even.
  void (*quantize_small)(const float* x, int64_t k, const QuantizedRow* out);
  void (*quantize_super)(const float* x, int64_t k, const QuantizedRow* out);

  // out[t][r] = dot of weight row r (of num_rows, row_bytes apart) with token t (of num_tokens).
  // Null for formats without integer kernels. The sum of a (row, token) pair is the same whatever
  // num_rows and num_tokens are.
  void (*dot_int8[kNumDTypes])(const uint8_t* weights, int64_t row_bytes, int num_rows, int64_t k,
                               const QuantizedRow* x, int num_tokens, float* const* out);

  // Decodes one row of k weights to f32.
  void (*decode_row[kNumDTypes])(const uint8_t* row, int64_t k, float* out);
  // out[t][0] = dot of w[k] with x[t][k].
  void (*dot_f32)(const float* w, int64_t k, const float* const* x, int num_tokens,
                  float* const* out);

  void (*attend)(const AttendArgs* args);
  void (*rms_norm)(const float* x, const float* weight, float eps, int64_t n, float* out);
  void (*silu_mul)(const float* gate, const float* up, int64_t n, float* out);
  void (*swiglu_oai)(const float* gate, const float* up, int64_t n, float* out);
  void (*axpy)(const float* x, float scale, int64_t n, float* acc);
};

const CpuKernels& ScalarKernels();
const CpuKernels& Avx2Kernels();
const CpuKernels& Avx512Kernels();

}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_CPU_KERNELS_H_
