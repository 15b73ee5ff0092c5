// Multi-head latent attention: keys and values of all heads come from one small latent row.
#ifndef THERMOCLINE_ENGINE_MODEL_LAYERS_MLA_H_
#define THERMOCLINE_ENGINE_MODEL_LAYERS_MLA_H_

#include <string>

#include "engine/model/layers/rope.h"
#include "engine/model/layers/token_mixer.h"

namespace thermocline {

struct MlaConfig {
  MlaForm form = MlaForm::kAbsorbed;
  int64_t hidden_size = 0;
  int64_t num_heads = 0;
  int64_t q_lora_rank = 0;  // 0: queries come straight from the hidden state
  int64_t kv_lora_rank = 0;
  int64_t nope_dim = 0;  // of a head's query and key: the part without position
  int64_t rope_dim = 0;  // and the part with it; the keys' is shared by all heads
  int64_t value_dim = 0;
  double scale = 0.0;
  double norm_eps = 1e-6;
  double q_scale = 1.0, kv_scale = 1.0;  // multiply queries and latent rows (LongCat-Flash)
  RopeConfig rope;
  bool legacy_kv_b = false;  // a GGUF file of before April 2025 that holds kv_b in one matrix
  std::string hf_name = "self_attn.";
};

// Reads the ranks, dimensions and rotation from either format. Errors stay in the reader.
MlaConfig ReadMla(ConfigReader* reader, const ModelDims& dims, const ModelOptions& options);

// DeepSeek-V2 (2024), section 2.1. With c [kv_lora_rank] the normalised latent row and W_k, W_v the
// head's parts of kv_b:
//   plain:     k = [W_k c, k_pe], v = W_v c, ordinary attention over expanded heads;
//   absorbed:  q' = W_k^T q_nope, scores q'.c + q_pe.k_pe, out = W_v (sum p c): one cached row for
//              all heads.
class MlaAttention : public TokenMixer {
 public:
  explicit MlaAttention(MlaConfig config) : config_(std::move(config)) {}

  MixerMemory memory() const override;
  void DeclareTensors(const LayerPrefix& prefix, TensorTable* table) override;
  TensorView Forward(ForwardPass* pass, int mixer, const TensorView& x) const override;

 private:
  void DeclareKvB(const LayerPrefix& prefix, TensorTable* table);
  // [N, num_heads, nope_dim + rope_dim], rotated.
  TensorView Queries(ForwardPass* pass, const TensorView& x) const;
  // [N, kv_lora_rank + rope_dim]: the normalised latent row, then the rotated shared key.
  TensorView Latent(ForwardPass* pass, const TensorView& x) const;
  // Both return the context [N, num_heads * value_dim].
  TensorView AbsorbedContext(ForwardPass* pass, int mixer, const TensorView& q,
                             const TensorView& latent) const;
  TensorView PlainContext(ForwardPass* pass, int mixer, const TensorView& q,
                          const TensorView& latent) const;
  void Attend(ForwardPass* pass, int mixer, const TensorView& q, const TensorView& out) const;
  RopeArgs Rope() const;

  MlaConfig config_;
  TensorView q_proj_;     // [num_heads * (nope + rope), hidden or q_lora_rank]
  TensorView q_a_proj_;   // [q_lora_rank, hidden]
  TensorView q_a_norm_;   // [q_lora_rank]
  TensorView kv_a_proj_;  // [kv_lora_rank + rope, hidden]
  TensorView kv_a_norm_;  // [kv_lora_rank]
  // Absorbed: [num_heads * kv_lora_rank, nope]; plain: its transpose by heads.
  TensorView k_b_;
  TensorView v_b_;                            // [num_heads * value_dim, kv_lora_rank]
  TensorView o_proj_;                         // [hidden, num_heads * value_dim]
  TensorView q_a_bias_, kv_a_bias_, o_bias_;  // may be empty
  TensorView inv_freq_;
};

}  // namespace thermocline

#endif  // THERMOCLINE_ENGINE_MODEL_LAYERS_MLA_H_
