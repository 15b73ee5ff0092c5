// Decoder: the pre-norm transformer that nearly all supported architectures are, put together from
// layers.
//
//   h = embedding_multiplier * embed(token)
//   per layer:  h += residual_multiplier * Mixer(Norm(h))
//               h += residual_multiplier * FeedForward(Norm(h))
//   logits = (lm_head(Norm(h)) + bias) / logits_scaling
//
// Mixer is attention of some kind, a convolution or a recurrence
// (engine/model/layers/token_mixer.h), and may differ from layer to layer; FeedForward a gated MLP
// or experts. An architecture file fills DecoderConfig and makes the mixers; one whose layers are
// wired differently derives its own Model.
#ifndef THERMOCLINE_ENGINE_MODEL_DECODER_H_
#define THERMOCLINE_ENGINE_MODEL_DECODER_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/model/layers/attention.h"
#include "engine/model/layers/mlp.h"
#include "engine/model/layers/moe.h"
#include "engine/model/model.h"

namespace thermocline {

// Names that differ between architectures. Those of Hugging Face folders without ".weight"; layer
// names under "model.layers.{l}." and "blk.{l}.".
struct DecoderNames {
  std::string embed_tokens = "model.embed_tokens";
  TensorName norm = {"model.norm", "output_norm"};
  TensorName input_norm = {"input_layernorm", "attn_norm"};
  TensorName post_norm = {"post_attention_layernorm", "ffn_norm"};
  MlpNames mlp;
};

struct DecoderConfig {
  ModelDims dims;
  AttentionConfig attention;            // of the layers that AttentionLayers makes
  int64_t intermediate_size = 0;        // of dense layers
  MoeConfig moe;                        // of layers with experts
  std::vector<bool> layer_has_experts;  // [num_hidden_layers]
  double norm_eps = 1e-6;
  bool layer_norm = false;          // LayerNorm with bias instead of RMS
  bool zero_centered_norm = false;  // weights are stored minus 1 in Hugging Face folders
  bool tie_word_embeddings = false;
  // lm_head's columns are brought to length 1 over the vocabulary (Bailing's norm_head).
  bool normalize_head = false;
  double embedding_multiplier = 1.0;
  double residual_multiplier = 1.0;
  double logits_scaling = 1.0;
  DecoderNames names;
};

// Reads what every architecture has, in both styles of config.json and in GGUF; errors stay in the
// reader. ReadDecoderSizes: all but the attention, which is left to those that have another kind.
DecoderConfig ReadDecoderSizes(absl::string_view architecture, ConfigReader* reader);
DecoderConfig ReadDecoderConfig(absl::string_view architecture, ConfigReader* reader,
                                const ModelOptions& options);
// Reads the number of experts, how many a token takes and how wide one is ("moe_intermediate_size"
// or, failing that, the dense width), and marks the layers that have them: in a Hugging Face folder
// those for which `has_experts` says so (null: all), in GGUF those with a router.
void ReadExperts(ConfigReader* reader, DecoderConfig* config,
                 const std::function<bool(int64_t layer)>& has_experts = nullptr);
// Width of the shared expert: `hf` in a Hugging Face folder, the tensor's own in GGUF. Notes it and
// the count for conversion.
void SetSharedExpert(ConfigReader* reader, DecoderConfig* config, int64_t hf, int64_t num_shared);
// As many shared experts as `hf_key` says, each as wide as a routed one, run as one.
void ReadSharedExperts(ConfigReader* reader, absl::string_view hf_key, DecoderConfig* config);
// expert_gating_func of llama.cpp.
inline constexpr int64_t kGatingSoftmax = 1, kGatingSigmoid = 2;
// The same for Qwen's, whose share is a gate's: names and width.
void SetGatedSharedExpert(ConfigReader* reader, DecoderConfig* config);
// Sigmoid scores with a bias for the choice, limited to groups, normalised and scaled: DeepSeek-V3
// and its relatives (GLM-4.5, dots1, Ling 2). DeepSeek-AI 2024, eq. 13 to 16.
void ReadSigmoidRouting(ConfigReader* reader, bool normalize_by_default, DecoderConfig* config);
// n_group and topk_group. Errors when they do not fit the experts.
void ReadRouteGroups(ConfigReader* reader, DecoderConfig* config);
// has_experts for ReadExperts when the first layers are dense.
std::function<bool(int64_t)> AfterFirstDense(ConfigReader* reader);
// The same where mlp_only_layers and decoder_sparse_step say it (Qwen).
std::function<bool(int64_t)> SparseSteps(ConfigReader* reader);
// Each layer's sliding window, 0 for full attention, by layer_types and sliding_window. `sliding`
// [num_layers] says which layers slide when the file does not; empty: none.
std::vector<int64_t> ReadWindows(ConfigReader* reader, int64_t num_layers,
                                 std::vector<int64_t> sliding);

using TokenMixers = std::vector<std::unique_ptr<TokenMixer>>;
// One grouped-query attention a layer. `windows` [num_hidden_layers], or empty: as in the config.
TokenMixers AttentionLayers(const DecoderConfig& config, const std::vector<int64_t>& windows = {});

class Decoder : public Model {
 public:
  Decoder(DecoderConfig config, TokenMixers mixers);

  const ModelDims& dims() const override { return config_.dims; }
  void DeclareTensors(TensorTable* table) override;
  absl::StatusOr<TensorView> Forward(ForwardPass* pass) const override;

 private:
  struct Norm {
    TensorView weight;
    TensorView bias;  // LayerNorm only
  };
  struct Layer {
    Norm input_norm, post_norm;
    std::unique_ptr<TokenMixer> mixer;
    Mlp mlp;  // dense layers
    Moe moe;  // layers with experts
  };

  void DeclareNorm(const TensorName& name, const LayerPrefix& prefix, Norm* norm,
                   TensorTable* table) const;
  void ApplyNorm(ForwardPass* pass, const Norm& norm, const TensorView& x,
                 const TensorView& out) const;
  absl::Status FeedForward(ForwardPass* pass, int l, const TensorView& x,
                           const TensorView& residual) const;

  DecoderConfig config_;
  TensorView embed_tokens_;
  Norm norm_;
  TensorView lm_head_;       // empty when tied
  TensorView lm_head_bias_;  // may be empty
  std::vector<Layer> layers_;
};

}  // namespace thermocline

#endif  // THERMOCLINE_ENGINE_MODEL_DECODER_H_
