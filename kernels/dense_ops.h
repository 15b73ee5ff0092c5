// DenseOps: the operations of a transformer but its experts'.
//
// Every operation is enqueued on its device's kCompute queue and may run later; results exist when
// an event behind it has passed. Views lie in the device's memory and must stay alive until then;
// spans are host memory and are read before the call returns. Called by one thread, the engine's.
// Shapes are checked in one place, CheckedOps: a wrong one is our own bug.
//
// NaN and infinity are kept: a row of a result that is computed from such a value, in its own
// inputs, in the weights or in stored state, holds NaN or infinity too. What a function would map
// to something finite (a sigmoid, a clamp, a softmax, the choice of experts) becomes NaN. So it is
// enough to look, with MarkFaults, at what comes out of a layer. Nothing of it reaches another
// sequence; in attention a value may reach earlier tokens of its own that are computed with it.
//
// Numeric contract: a row of a result depends on that row's inputs, the weights and its TokenRole,
// never on the other rows of the call, on how rows were grouped into calls, or on the number of
// threads.
#ifndef THERMOCLINE_KERNELS_DENSE_OPS_H_
#define THERMOCLINE_KERNELS_DENSE_OPS_H_

#include <cstdint>

#include "absl/types/span.h"
#include "kernels/tensor_view.h"
#include "kernels/token_role.h"

namespace thermocline {

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
  TensorView q;        // [N, num_heads, key_dim] f32
  TensorView roles;    // [N] i32: TokenRole
  TensorView k_cache;  // [num_blocks, block_size, num_kv_heads, key_dim], f32, f16, bf16 or q8_0
  TensorView v_cache;  // [num_blocks, block_size, num_kv_heads, value_dim], the same type; may
                       // be the first columns of k_cache (latent attention)
  TensorView block_tables;  // [num_seqs, max_blocks] i32: physical block of each logical one
  TensorView seq_idx;       // [N] i32: row of block_tables; a sequence's tokens are neighbours
  TensorView positions;     // [N] i32: the token attends positions 0..position
  // [num_heads] f32 or empty: one more logit a head that takes part in the softmax and brings no
  // value (Xiao et al. 2023; gpt-oss).
  TensorView sinks;
  float scale = 1.0f;  // multiplies q.k
  int window = 0;      // attend only the last `window` positions, the token's own included; 0: all
  TensorView out;      // [N, num_heads, value_dim] f32
};

// How router logits become expert weights.
struct RouteArgs {
  enum class Score : uint8_t {
    kSoftmax,          // over all experts (Qwen, OLMoE, DeepSeek-V2)
    kSoftmaxOfChosen,  // over the chosen ones (Granite, gpt-oss)
    kSigmoid,          // each for itself (DeepSeek-V3)
    kSparseMixer,      // two experts, each a softmax over the near-best (Liu et al. 2023; Phi)
  };
  int top_k = 1;
  Score score = Score::kSoftmax;
  // [num_experts] f32 or empty: added to the scores for the choice, not to the weights (Wang et al.
  // 2024, loss-free balancing).
  TensorView bias;
  // Experts are chosen only from the best `top_k_groups` of `num_groups` equal groups; a group
  // counts as much as its best expert, or as its best two together (DeepSeek-V2 and V3).
  int num_groups = 1;
  int top_k_groups = 1;
  bool group_by_best_two = false;
  // Divide the chosen weights by max(sum, normalize_min) + normalize_eps.
  bool normalize = false;
  float normalize_eps = 0.0f;
  float normalize_min = 0.0f;
  float scale = 1.0f;   // multiplies the weights at the end
  float jitter = 0.0f;  // kSparseMixer: how far below the best a logit still counts, relatively
};

// Where a batch's sequences keep fixed-size state and which tokens are theirs.
struct StateArgs {
  TensorView state;       // [num_slots, elems] f32, read and written
  TensorView slots;       // [num_seqs] i32: each sequence's row of `state`
  TensorView cu_seqlens;  // [num_seqs + 1] i32: its tokens are rows [cu[s], cu[s + 1])
  TensorView positions;   // [N] i32; a sequence whose first token has position 0 starts from zeros
};

struct DeltaRuleArgs {
  TensorView q;        // [N, num_key_heads, key_dim] f32
  TensorView k;        // [N, num_key_heads, key_dim] f32
  TensorView v;        // [N, num_value_heads, value_dim] f32; head h reads key head h / ratio
  TensorView beta;     // [N, num_value_heads] f32, before its sigmoid
  TensorView a;        // [N, num_value_heads] f32, before bias and softplus
  TensorView a_scale;  // [num_value_heads] f32: -exp(A_log)
  TensorView dt_bias;  // [num_value_heads] f32
  StateArgs state;     // elems = num_value_heads * key_dim * value_dim
  TensorView out;      // [N, num_value_heads, value_dim] f32
};

class DenseOps {
 public:
  virtual ~DenseOps() = default;

  // out[n] = scale * table[token_ids[n]].  table [vocab, hidden] any format, token_ids [N] i32, out
  // [N, hidden] f32.
  virtual void EmbedTokens(const TensorView& table, const TensorView& token_ids, float scale,
                           const TensorView& out) = 0;
  // out = x / sqrt(mean(x^2) + eps) * weight, over the last dimension. Zhang and Sennrich 2019,
  // eq. 4. x and out have the same number of rows and columns and may be the same; weight [cols]
  // f32.
  virtual void RmsNorm(const TensorView& x, const TensorView& weight, float eps,
                       const TensorView& out) = 0;
  // out = (x - mean) / sqrt(variance + eps) * weight + bias, over the last dimension. Ba et al.
  // 2016. weight and bias [cols] f32; x and out may be the same.
  virtual void LayerNorm(const TensorView& x, const TensorView& weight, const TensorView& bias,
                         float eps, const TensorView& out) = 0;
  // projection.out = x * weight^T + bias for each projection. x [N, in] f32; roles [N] i32.
  virtual void MatMul(const TensorView& x, const TensorView& roles,
                      absl::Span<const Projection> projections) = 0;
  // out[n, h] = weight[h] * x[n, h]: a product of its own for every head. x [N, heads, in] f32,
  // weight [heads * out, in] any format, roles [N] i32, out [N, heads, out] f32. x and out may be
  // strided.
  virtual void HeadMatMul(const TensorView& x, const TensorView& roles, const TensorView& weight,
                          const TensorView& out) = 0;
  // Rotates the first rotary_dim elements of every head in place. x [N, heads, head_dim] f32, may
  // be strided; positions [N] i32. Su et al. 2021 (RoFormer), eq. 34.
  virtual void Rope(const TensorView& x, const TensorView& positions, const RopeArgs& args) = 0;
  // Writes k [N, num_kv_heads, key_dim] and v [N, num_kv_heads, value_dim] f32 into the caches,
  // rounded to their type, at slots [N] i32 (block * block_size + offset). An empty v is not stored
  // (latent attention: the values are part of the keys).
  virtual void StoreKv(const TensorView& k, const TensorView& v, const TensorView& slots,
                       const TensorView& k_cache, const TensorView& v_cache) = 0;
  // Causal attention of every token over the stored KV of its sequence, its own included, read in
  // place.
  virtual void Attention(const AttentionArgs& args) = 0;
  // ids [N, top_k] i32 by descending score (ties: lower id first), weights [N, top_k] f32, from
  // logits [N, experts]. A logit or a biased score that is NaN or infinite makes the token's
  // weights NaN.
  virtual void RouteTopK(const TensorView& logits, const RouteArgs& args, const TensorView& ids,
                         const TensorView& weights) = 0;
  // out[n * top_k + j] = x[n] where ids[n, j] >= num_experts: experts that compute nothing. ids [N,
  // top_k] i32, out [N * top_k, hidden] f32. Zeng et al. 2024 (AdaMoE); LongCat-Flash.
  virtual void IdentityExperts(const TensorView& x, const TensorView& ids, int num_experts,
                               const TensorView& out) = 0;
  // acc[n] += scale * sum over j of weights[n, j] * expert_out[n * top_k + j], j ascending.
  virtual void CombineExperts(const TensorView& expert_out, const TensorView& weights, float scale,
                              const TensorView& acc) = 0;
  // out = silu(gate) * up, elementwise, [N, F] f32; out may be either.
  virtual void SiluMul(const TensorView& gate, const TensorView& up, const TensorView& out) = 0;
  // out = a * b, elementwise, [N, F] f32; may be strided; out may be a or b.
  virtual void Multiply(const TensorView& a, const TensorView& b, const TensorView& out) = 0;
  // x *= sigmoid(gate), f32. gate has the shape of x, or one column that serves the whole row. May
  // be strided.
  virtual void SigmoidMul(const TensorView& gate, const TensorView& x) = 0;
  // out[n, h] = x[n, h or 0], f32. x [N, heads or 1, cols], out [N, heads, cols]; may be strided.
  virtual void CopyHeads(const TensorView& x, const TensorView& out) = 0;
  // Causal depthwise convolution over each sequence's tokens, in place: x[t, c] = sum over j of
  // weight[c, j] * x[t - K + 1 + j, c], then silu if wanted. x [N, C] f32, may be strided; weight
  // [C, K] f32; the state holds the last K - 1 inputs [K - 1, C].
  virtual void CausalConv(const TensorView& x, const TensorView& weight, bool silu,
                          const StateArgs& state) = 0;
  // The gated delta rule, token by token: with q and k divided by their norms, q by sqrt(key_dim),
  // g = exp(a_scale * softplus(a + dt_bias)), b = sigmoid(beta):
  //   S = g S;  S += k (b (v - S^T k))^T;  out = S^T q.
  // Yang et al. 2024 (Gated DeltaNet), eq. 10.
  virtual void GatedDeltaRule(const DeltaRuleArgs& args) = 0;
  // acc += scale * x, elementwise f32.
  virtual void AddScaled(const TensorView& x, float scale, const TensorView& acc) = 0;
  // x = value, f32.
  virtual void Fill(const TensorView& x, float value) = 0;
  // x *= scale, in place; may be strided.
  virtual void Scale(const TensorView& x, float scale) = 0;
  // x = min(max(x, -limit), limit), in place.
  virtual void Clamp(const TensorView& x, float limit) = 0;
  // faults[n] = code for every token n with an element that is NaN or not below `limit` in
  // magnitude, unless it has a code already. x [N * k, cols] or [N, k, cols] f32, may be strided;
  // faults [N] i32; code is not 0.
  virtual void MarkFaults(const TensorView& x, float limit, int32_t code,
                          const TensorView& faults) = 0;
  // out[i] = x[rows[i]].  x [N, cols] f32, rows [M] i32, out [M, cols] f32.
  virtual void GatherRows(const TensorView& x, const TensorView& rows, const TensorView& out) = 0;
  // out[rows[i]] = x[i].  x [M, cols] f32, rows [M] i32, all different, out [N, cols] f32.
  virtual void ScatterRows(const TensorView& x, const TensorView& rows, const TensorView& out) = 0;
};

}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_DENSE_OPS_H_
