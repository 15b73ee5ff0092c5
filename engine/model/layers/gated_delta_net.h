// Gated DeltaNet: linear attention whose memory is a matrix a head, corrected by the delta rule.
#ifndef THERMOCLINE_ENGINE_MODEL_LAYERS_GATED_DELTA_NET_H_
#define THERMOCLINE_ENGINE_MODEL_LAYERS_GATED_DELTA_NET_H_

#include "engine/model/layers/token_mixer.h"

namespace thermocline {

struct GatedDeltaNetConfig {
  int64_t hidden_size = 0;
  int64_t num_key_heads = 0;
  int64_t num_value_heads = 0;  // a multiple of num_key_heads
  int64_t key_dim = 0;          // of a head
  int64_t value_dim = 0;        // of a head
  int64_t kernel_size = 0;      // of the convolutions before
  double norm_eps = 1e-6;
  bool gguf_ssm_in = false;  // a GGUF file of 2025 that holds in_proj_qkvz as it was
};

//   q, k, v = silu(conv(W x));  o = delta rule (DenseOps::GatedDeltaRule);
//   out = W_out (rms_norm(o) . silu(z))
// Yang et al. 2024; Qwen3NextGatedDeltaNet in modeling_qwen3_next.py of transformers.
class GatedDeltaNet : public TokenMixer {
 public:
  explicit GatedDeltaNet(GatedDeltaNetConfig config) : config_(config) {}

  MixerMemory memory() const override;
  void DeclareTensors(const LayerPrefix& prefix, TensorTable* table) override;
  TensorView Forward(ForwardPass* pass, int mixer, const TensorView& x) const override;

 private:
  int64_t keys() const { return config_.num_key_heads * config_.key_dim; }
  int64_t values() const { return config_.num_value_heads * config_.value_dim; }

  GatedDeltaNetConfig config_;
  TensorView qkv_proj_;   // [2 * keys + values, hidden]: all q, all k, all v
  TensorView z_proj_;     // [values, hidden]
  TensorView beta_proj_;  // [num_value_heads, hidden]
  TensorView a_proj_;     // [num_value_heads, hidden]
  TensorView conv_;       // [2 * keys + values, kernel_size]
  TensorView a_scale_;    // [num_value_heads]: -exp(A_log)
  TensorView dt_bias_;    // [num_value_heads]
  TensorView norm_;       // [value_dim]
  TensorView out_proj_;   // [hidden, values]
};

}  // namespace thermocline

#endif  // THERMOCLINE_ENGINE_MODEL_LAYERS_GATED_DELTA_NET_H_
