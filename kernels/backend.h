// Backend: one device's memory, its ordered queue of work, and the operations a transformer needs.
//
// Every operation is enqueued and may run later; results exist after Wait or Synchronize. Views
// passed to an operation must stay alive until then. Spans are host memory and are read before the
// call returns. Operations of one backend run in the order in which they were enqueued. A backend
// is called by one thread, the engine's. Shapes are checked (a wrong one is our own bug); device
// failures come out of Wait and Synchronize.
//
// Numeric contract: a row of a result depends on that row's inputs, the weights and its TokenRole,
// never on the other rows of the call, on how rows were grouped into calls, or on the number of
// threads.
#ifndef THERMOCLINE_KERNELS_BACKEND_H_
#define THERMOCLINE_KERNELS_BACKEND_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "kernels/buffer.h"
#include "kernels/tensor_view.h"
#include "kernels/token_role.h"

namespace thermocline {

// Precision in which activations meet quantised weights. Weights stored as F32 always use f32.
enum class Activations { kF32, kInt8 };

// A point in a backend's queue.
using EventId = uint64_t;

struct Projection {
  TensorView weight;  // [out, in], any weight format
  TensorView bias;    // [out] f32, or empty
  TensorView out;     // [N, out] f32
};

struct RopeArgs {
  TensorView inv_freq;  // [rotary_dim / 2] f32, radians per position
  float scale = 1.0f;   // multiplies sine and cosine (YaRN's attention factor)
  bool interleaved =
      false;  // pairs (2i, 2i + 1) as in GGUF's llama, else (i, i + rotary_dim / 2) as in GPT-NeoX
};

struct AttentionArgs {
  TensorView q;             // [N, num_heads, head_dim] f32
  TensorView k_cache;       // [num_blocks, block_size, num_kv_heads, head_dim], f32, f16 or bf16
  TensorView v_cache;       // the same shape and type
  TensorView block_tables;  // [num_seqs, max_blocks] i32: physical block of each logical one
  TensorView seq_idx;       // [N] i32: row of block_tables
  TensorView positions;     // [N] i32: the token attends positions 0..position
  float scale = 1.0f;       // multiplies q.k
  int window = 0;           // attend only the last `window` positions; 0: all
  TensorView out;           // [N, num_heads, head_dim] f32
};

// How router logits become expert weights.
struct RouteArgs {
  int top_k = 1;
  // Softmax over all experts, then top-k (Qwen, OLMoE); otherwise top-k of the logits, then softmax
  // over the chosen ones (Granite).
  bool softmax_before_top_k = true;
  bool normalize = false;  // divide the chosen weights by their sum
};

// One expert's share of a step. `rows` are rows of x, `slots` the rows of `out` that receive the
// result.
struct ExpertWork {
  TensorView gate;  // [intermediate, hidden]
  TensorView up;    // [intermediate, hidden]
  TensorView down;  // [hidden, intermediate]
  absl::Span<const int32_t> rows;
  absl::Span<const int32_t> slots;
};

class Backend {
 public:
  virtual ~Backend() = default;

  virtual absl::string_view name() const = 0;
  virtual MemoryKind memory_kind() const = 0;
  // One line for the log: instruction set, threads, precision.
  virtual std::string Describe() const = 0;

  // Memory of this device, aligned to 64 bytes, contents undefined. RESOURCE_EXHAUSTED when there
  // is none.
  virtual absl::StatusOr<Buffer> Allocate(int64_t bytes) = 0;
  // Enqueued copies; the host side must stay alive and unchanged until a later Wait.
  virtual void CopyFromHost(const void* host, void* device, int64_t bytes) = 0;
  virtual void CopyToHost(const void* device, void* host, int64_t bytes) = 0;
  // Marks the end of what is enqueued so far.
  virtual EventId Record() = 0;
  // Returns when everything before the event is done, with the first error met.
  virtual absl::Status Wait(EventId event) = 0;
  absl::Status Synchronize() { return Wait(Record()); }

  // out[n] = scale * table[token_ids[n]].  table [vocab, hidden] any format, token_ids [N] i32, out
  // [N, hidden] f32.
  virtual void EmbedTokens(const TensorView& table, const TensorView& token_ids, float scale,
                           const TensorView& out) = 0;
  // out = x / sqrt(mean(x^2) + eps) * weight, over the last dimension. Zhang and Sennrich 2019,
  // eq. 4. x and out have the same number of rows and columns and may be the same; weight [cols]
  // f32.
  virtual void RmsNorm(const TensorView& x, const TensorView& weight, float eps,
                       const TensorView& out) = 0;
  // projection.out = x * weight^T + bias for each projection. x [N, in] f32; roles [N].
  virtual void MatMul(const TensorView& x, absl::Span<const TokenRole> roles,
                      absl::Span<const Projection> projections) = 0;
  // Rotates the first rotary_dim elements of every head in place. x [N, heads, head_dim] f32;
  // positions [N] i32. Su et al. 2021 (RoFormer), eq. 34.
  virtual void Rope(const TensorView& x, const TensorView& positions, const RopeArgs& args) = 0;
  // Writes k and v [N, num_kv_heads, head_dim] f32 into the caches, rounded to their type, at slots
  // [N] i32 (block * block_size + offset).
  virtual void StoreKv(const TensorView& k, const TensorView& v, const TensorView& slots,
                       const TensorView& k_cache, const TensorView& v_cache) = 0;
  // Causal attention of every token over the stored KV of its sequence, its own included, read in
  // place.
  virtual void Attention(const AttentionArgs& args) = 0;
  // ids [N, top_k] i32 by descending weight (ties: lower id first), weights [N, top_k] f32, from
  // logits [N, experts].
  virtual void RouteTopK(const TensorView& logits, const RouteArgs& args, const TensorView& ids,
                         const TensorView& weights) = 0;
  // out[slot] = down * (silu(gate * x[row]) . (up * x[row])) for every (row, slot) of every expert.
  // x [N, hidden] f32, out [N * top_k, hidden] f32; other rows of out are untouched.
  virtual void ExpertFfn(const TensorView& x, absl::Span<const ExpertWork> experts,
                         const TensorView& out) = 0;
  // acc[n] += scale * sum over j of weights[n, j] * expert_out[n * top_k + j], j ascending.
  virtual void CombineExperts(const TensorView& expert_out, const TensorView& weights, float scale,
                              const TensorView& acc) = 0;
  // out = silu(gate) * up, elementwise, [N, F] f32; out may be gate.
  virtual void SiluMul(const TensorView& gate, const TensorView& up, const TensorView& out) = 0;
  // acc += scale * x, elementwise f32.
  virtual void AddScaled(const TensorView& x, float scale, const TensorView& acc) = 0;
  // x *= scale, in place.
  virtual void Scale(const TensorView& x, float scale) = 0;
  // x = min(max(x, -limit), limit), in place.
  virtual void Clamp(const TensorView& x, float limit) = 0;
  // out[i] = x[rows[i]].  x [N, cols] f32, rows [M] i32, out [M, cols] f32.
  virtual void GatherRows(const TensorView& x, const TensorView& rows, const TensorView& out) = 0;
};

struct BackendOptions {
  int num_threads = 0;  // 0: one per core this process may use
  Activations activations = Activations::kInt8;
  std::string
      isa;  // "scalar", "avx2", "avx512"; empty: THERMOCLINE_CPU_ISA, else the best the machine has
};

// Makes a backend by name: "reference" or "cpu". INVALID_ARGUMENT lists the names.
absl::StatusOr<std::unique_ptr<Backend>> MakeBackend(absl::string_view name,
                                                     const BackendOptions& options);

}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_BACKEND_H_
