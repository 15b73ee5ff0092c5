// Grouped-query attention over the paged KV cache.
#ifndef THERMOCLINE_ENGINE_MODEL_LAYERS_ATTENTION_H_
#define THERMOCLINE_ENGINE_MODEL_LAYERS_ATTENTION_H_

#include <string>
#include <vector>

#include "engine/model/layers/rope.h"
#include "engine/model/layers/token_mixer.h"

namespace thermocline {

// RMS normalisation of queries and keys.
enum class QkNorm : uint8_t { kNone, kPerHead, kAllHeads, kPerHeadAfterRope };

struct AttentionNames {
  // Under the layer's prefix of config.json's format.
  std::string q_proj = "self_attn.q_proj", k_proj = "self_attn.k_proj", v_proj = "self_attn.v_proj",
              o_proj = "self_attn.o_proj";
  std::string q_norm = "self_attn.q_norm.weight", k_norm = "self_attn.k_norm.weight";
  // One matrix [q rows, k rows, v rows] instead of three; empty: three.
  std::string qkv_proj;
  bool gguf_qkv = false;  // and in GGUF too, as attn_qkv
};

struct AttentionConfig {
  int64_t hidden_size = 0;
  int64_t num_heads = 0;
  int64_t num_kv_heads = 0;
  int64_t head_dim = 0;
  double scale = 0.0;
  double norm_eps = 0.0;
  QkNorm qk_norm = QkNorm::kNone;
  bool zero_centered_norm = false;  // the norms' weights are stored minus 1 in Hugging Face folders
  double clip = 0.0;                // q, k and v are clamped to [-clip, clip]; 0: not
  int64_t window = 0;               // positions a token sees, its own included; 0: all
  bool sinks = false;
  // The output is multiplied by sigmoid(gate); q_proj holds [q, gate] for every head (Qwen3-Next).
  bool gated = false;
  RopeConfig rope;
  // A Hugging Face folder has pairs (i, i + dim / 2) but GGUF (2i, 2i + 1): the rows of q and k are
  // permuted on load.
  bool hf_half_to_pairs = false;
  AttentionNames names;
};

// Ainslie et al. 2023 (GQA). Stores the tokens' keys and values, then attends to the stored ones: a
// token sees its own chunk as later tokens will.
class GqaAttention : public TokenMixer {
 public:
  explicit GqaAttention(AttentionConfig config) : config_(std::move(config)) {}

  MixerMemory memory() const override;
  void DeclareTensors(const LayerPrefix& prefix, TensorTable* table) override;
  TensorView Forward(ForwardPass* pass, int mixer, const TensorView& x) const override;

 private:
  void DeclareProjections(const LayerPrefix& prefix, TensorTable* table);
  void Normalize(ForwardPass* pass, int64_t heads, const TensorView& weight,
                 const TensorView& x) const;

  AttentionConfig config_;
  TensorView q_proj_;                             // [num_heads * head_dim, hidden]
  TensorView k_proj_, v_proj_;                    // [num_kv_heads * head_dim, hidden]
  TensorView o_proj_;                             // [hidden, num_heads * head_dim]
  TensorView gate_proj_;                          // as q_proj_, if gated
  TensorView q_bias_, k_bias_, v_bias_, o_bias_;  // may be empty
  TensorView q_norm_, k_norm_;                    // empty without QkNorm
  TensorView sinks_;                              // [num_heads], if any
  TensorView inv_freq_;
};

}  // namespace thermocline

#endif  // THERMOCLINE_ENGINE_MODEL_LAYERS_ATTENTION_H_
