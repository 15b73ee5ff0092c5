// Grouped-query attention over the paged KV cache.
#ifndef THERMOCLINE_ENGINE_LAYERS_ATTENTION_H_
#define THERMOCLINE_ENGINE_LAYERS_ATTENTION_H_

#include "engine/forward_pass.h"

namespace thermocline {

// RMS normalisation of queries and keys before RoPE.
enum class QkNorm { kNone, kPerHead, kAllHeads };

struct AttentionWeights {
  TensorView q_proj;                          // [num_heads * head_dim, hidden]
  TensorView k_proj;                          // [num_kv_heads * head_dim, hidden]
  TensorView v_proj;                          // [num_kv_heads * head_dim, hidden]
  TensorView o_proj;                          // [hidden, num_heads * head_dim]
  TensorView q_bias, k_bias, v_bias, o_bias;  // may be empty
  TensorView q_norm, k_norm;                  // empty without QkNorm
};

struct AttentionConfig {
  int64_t num_heads = 0;
  int64_t num_kv_heads = 0;
  int64_t head_dim = 0;
  float scale = 0.0f;
  float norm_eps = 0.0f;
  QkNorm qk_norm = QkNorm::kNone;
  float clip = 0.0f;  // q, k and v are clamped to [-clip, clip]; 0: not
  RopeArgs rope;
};

// x [N, hidden] -> [N, hidden], in the pass's scratch. Stores the tokens' keys and values, then
// attends to the stored ones: a token sees its own chunk as later tokens will. Ainslie et al. 2023
// (GQA).
TensorView Attention(ForwardPass* pass, int layer, const AttentionConfig& config,
                     const AttentionWeights& weights, const TensorView& x);

}  // namespace thermocline

#endif  // THERMOCLINE_ENGINE_LAYERS_ATTENTION_H_
