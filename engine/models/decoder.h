// Decoder: the pre-norm transformer that all supported architectures share, with their differences
// as configuration.
//
//   h = embedding_multiplier * embed(token)
//   per layer:  h += residual_multiplier * Attention(RmsNorm(h))
//               h += residual_multiplier * FeedForward(RmsNorm(h))
//   logits = lm_head(RmsNorm(h)) / logits_scaling
//
// FeedForward is a gated MLP, or a router with experts, or experts plus a shared one. An
// architecture file fills DecoderConfig and DecoderNames; one whose formula differs derives its own
// Model instead.
#ifndef THERMOCLINE_ENGINE_MODELS_DECODER_H_
#define THERMOCLINE_ENGINE_MODELS_DECODER_H_

#include <memory>
#include <string>
#include <vector>

#include "engine/layers/attention.h"
#include "engine/layers/mlp.h"
#include "engine/layers/moe.h"
#include "engine/models/model.h"

namespace thermocline {

// Frequency scaling of the rotary embedding.
struct RopeScaling {
  enum class Kind { kNone, kLinear, kLlama3 };
  Kind kind = Kind::kNone;
  double factor = 1.0;
  // Llama 3.1 only.
  double low_freq_factor = 1.0;
  double high_freq_factor = 4.0;
  double original_max_position_embeddings = 8192.0;
};

struct DecoderConfig {
  ModelDims dims;
  int64_t num_attention_heads = 0;
  int64_t intermediate_size = 0;         // of dense layers
  int64_t moe_intermediate_size = 0;     // of each expert
  int64_t shared_intermediate_size = 0;  // of the shared expert; 0: none
  std::vector<bool> layer_has_experts;   // [num_hidden_layers]
  double rms_norm_eps = 1e-6;
  double rope_theta = 10000.0;
  int64_t rotary_dim = 0;
  bool rope_interleaved = false;
  RopeScaling rope_scaling;
  QkNorm qk_norm = QkNorm::kNone;
  double clip_qkv = 0.0;  // 0: no clipping
  double attention_scale = 0.0;
  bool softmax_before_top_k = true;
  bool norm_topk_prob = true;
  bool tie_word_embeddings = false;
  double embedding_multiplier = 1.0;
  double residual_multiplier = 1.0;
  double logits_scaling = 1.0;
};

// Hugging Face names that differ between architectures, under "model.layers.{l}." unless they start
// with "model."; GGUF names are the same for all.
struct DecoderNames {
  std::string router = "mlp.gate.weight";
  ExpertMatrix gate = {{"mlp.experts.{e}.gate_proj.weight", ""}};
  ExpertMatrix up = {{"mlp.experts.{e}.up_proj.weight", ""}};
  ExpertMatrix down = {{"mlp.experts.{e}.down_proj.weight", ""}};
  // The shared expert's gate and up, when one fused matrix holds both.
  std::string shared_input;
  std::string shared_output;
};

// Reads what every architecture has: sizes, heads, RoPE in both styles of config.json and in GGUF.
// Errors stay in the reader.
DecoderConfig ReadDecoderConfig(absl::string_view architecture, ConfigReader* reader);
// Marks all layers as having experts and reads num_experts and num_experts_per_tok under the given
// keys.
void ReadExpertCounts(ConfigKey num_experts, ConfigKey num_experts_per_tok, ConfigReader* reader,
                      DecoderConfig* config);

class Decoder : public Model {
 public:
  Decoder(DecoderConfig config, DecoderNames names);

  const ModelDims& dims() const override { return config_.dims; }
  void DeclareTensors(TensorTable* table) override;
  std::vector<float> RopeInvFreq(const std::vector<float>& file_factors) const override;
  TensorView* mutable_rope_inv_freq() override { return &inv_freq_; }
  absl::StatusOr<TensorView> Forward(ForwardPass* pass) const override;

 private:
  struct Layer {
    TensorView input_layernorm;
    TensorView post_attention_layernorm;
    AttentionWeights attention;
    MlpWeights mlp;         // dense layers
    TensorView router;      // layers with experts
    MlpWeights shared_mlp;  // empty without a shared expert
  };

  void DeclareAttention(const std::string& hf, const std::string& gguf, Layer* layer,
                        TensorTable* table);
  void DeclareFeedForward(int l, const std::string& hf, const std::string& gguf, Layer* layer,
                          TensorTable* table);
  absl::Status FeedForward(ForwardPass* pass, int l, const TensorView& x,
                           const TensorView& residual) const;

  DecoderConfig config_;
  DecoderNames names_;
  TensorView embed_tokens_;
  TensorView norm_;
  TensorView lm_head_;  // empty when tied
  TensorView inv_freq_;
  std::vector<Layer> layers_;
};

}  // namespace thermocline

#endif  // THERMOCLINE_ENGINE_MODELS_DECODER_H_
