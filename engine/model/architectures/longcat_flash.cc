// LongCat-Flash: each layer holds two blocks of latent attention and dense network, and experts
// whose result skips the second block, so that they can run beside it:
//
//   a = h + Mla0(Norm(h));  n = Norm(a);  b = a + Mlp0(n)
//   c = b + Mla1(Norm(b));  h = c + Mlp1(Norm(c)) + Moe(n)
//
// Some experts return their input, so a token decides how many experts it needs.
// Source: Meituan 2025; Zeng et al. 2024 (AdaMoE); modeling_longcat_flash.py of transformers.
#include <cmath>

#include "absl/strings/str_cat.h"
#include "engine/model/architectures/architectures.h"
#include "engine/model/layers/mla.h"
#include "engine/pass/forward_pass.h"

namespace thermocline {
namespace {

class LongcatFlash : public Model {
 public:
  LongcatFlash(DecoderConfig config, const MlaConfig& mla) : config_(std::move(config)) {
    config_.moe.hidden_size = config_.dims.hidden_size;
    for (int64_t l = 0; l < config_.dims.num_hidden_layers; ++l) {
      layers_.emplace_back();
      for (int b = 0; b < 2; ++b) {
        Block& block = layers_.back().blocks[b];
        MlaConfig attention = mla;
        attention.hf_name = absl::StrCat("self_attn.", b, ".");
        block.attention = std::make_unique<MlaAttention>(std::move(attention));
        config_.dims.mixers.push_back(block.attention->memory());
      }
    }
  }

  const ModelDims& dims() const override { return config_.dims; }
  void DeclareTensors(TensorTable* table) override;
  absl::StatusOr<TensorView> Forward(ForwardPass* pass) const override;

 private:
  struct Block {
    TensorView input_norm, post_norm;
    std::unique_ptr<MlaAttention> attention;
    Mlp mlp;
  };
  struct Layer {
    Block blocks[2];
    Moe moe;
  };

  void Norm(ForwardPass* pass, const TensorView& weight, const TensorView& x,
            const TensorView& out) const {
    pass->ops().RmsNorm(x, weight, static_cast<float>(config_.norm_eps), out);
  }
  absl::Status RunLayer(ForwardPass* pass, int l, const TensorView& h) const;

  DecoderConfig config_;
  TensorView embed_tokens_, norm_, lm_head_;
  std::vector<Layer> layers_;
};

void LongcatFlash::DeclareTensors(TensorTable* table) {
  const ModelDims& dims = config_.dims;
  table->Matrix({"model.embed_tokens.weight", ""}, dims.vocab_size, dims.hidden_size,
                &embed_tokens_);
  table->Vector({"model.norm.weight", ""}, dims.hidden_size, &norm_);
  table->Matrix({"lm_head.weight", ""}, dims.vocab_size, dims.hidden_size, &lm_head_);
  for (int l = 0; l < dims.num_hidden_layers; ++l) {
    Layer& layer = layers_[static_cast<size_t>(l)];
    const std::string prefix = absl::StrCat("model.layers.", l, ".");
    for (int b = 0; b < 2; ++b) {
      Block& block = layer.blocks[b];
      table->Vector({absl::StrCat(prefix, "input_layernorm.", b, ".weight"), ""}, dims.hidden_size,
                    &block.input_norm);
      table->Vector({absl::StrCat(prefix, "post_attention_layernorm.", b, ".weight"), ""},
                    dims.hidden_size, &block.post_norm);
      block.attention->DeclareTensors({prefix, ""}, table);
      const std::string mlp = absl::StrCat("mlps.", b, ".");
      block.mlp.DeclareTensors(
          {prefix, ""}, {{mlp + "gate_proj", ""}, {mlp + "up_proj", ""}, {mlp + "down_proj", ""}},
          dims.hidden_size, config_.intermediate_size, table);
    }
    layer.moe.DeclareTensors(config_.moe, l, {prefix, ""}, table);
  }
}

absl::Status LongcatFlash::RunLayer(ForwardPass* pass, int l, const TensorView& h) const {
  const Layer& layer = layers_[static_cast<size_t>(l)];
  DenseOps& ops = pass->ops();
  const std::initializer_list<int64_t> shape = {pass->num_tokens(), config_.dims.hidden_size};
  const TensorView x = pass->NewTensor(shape), experts = pass->NewTensor(shape);
  for (int b = 0; b < 2; ++b) {
    const Block& block = layer.blocks[b];
    Norm(pass, block.input_norm, h, x);
    ops.AddScaled(block.attention->Forward(pass, 2 * l + b, x), 1.0f, h);
    Norm(pass, block.post_norm, h, x);
    pass->Done(Stage::kAttention);
    if (b == 0) {
      ops.Fill(experts, 0.0f);
      absl::Status ran = layer.moe.Add(pass, config_.moe, l, x, 1.0f, experts);
      if (!ran.ok()) return ran;
    }
    ops.AddScaled(block.mlp.Forward(pass, x), 1.0f, h);
  }
  ops.AddScaled(experts, 1.0f, h);
  return absl::OkStatus();
}

absl::StatusOr<TensorView> LongcatFlash::Forward(ForwardPass* pass) const {
  const ModelDims& dims = config_.dims;
  DenseOps& ops = pass->ops();
  const TensorView h = pass->NewTensor({pass->num_tokens(), dims.hidden_size});
  ops.EmbedTokens(embed_tokens_, pass->token_ids(), 1.0f, h);
  if (absl::Status s = pass->Observe(0, h); !s.ok()) return s;
  pass->Done(Stage::kEmbed);
  for (int l = 0; l < dims.num_hidden_layers; ++l) {
    const ScratchScope scope(pass);
    if (absl::Status s = RunLayer(pass, l, h); !s.ok()) return s;
    pass->Done(Stage::kCombine);
    if (absl::Status s = pass->Observe(l + 1, h); !s.ok()) return s;
  }
  const TensorView last = pass->NewTensor({pass->num_logits(), dims.hidden_size});
  const TensorView logits = pass->NewTensor({pass->num_logits(), dims.vocab_size});
  ops.GatherRows(h, pass->logits_rows(), last);
  Norm(pass, norm_, last, last);
  const Projection head = {lm_head_, {}, logits};
  ops.MatMul(last, pass->logits_roles(), {&head, 1});
  pass->Done(Stage::kHead);
  return logits;
}

}  // namespace

std::unique_ptr<Model> MakeLongcatFlash(ConfigReader* reader, const ModelOptions& options) {
  DecoderConfig config = ReadDecoderSizes("longcat_flash", reader);
  // transformers counts each layer's two blocks as hidden layers.
  ModelDims& dims = config.dims;
  dims.num_hidden_layers = reader->IntOr({"num_layers", ""}, 1, 4096, dims.num_hidden_layers);
  config.layer_has_experts.assign(static_cast<size_t>(dims.num_hidden_layers), false);
  MlaConfig mla = ReadMla(reader, dims, options);
  const double hidden = static_cast<double>(config.dims.hidden_size);
  if (mla.q_lora_rank > 0) mla.q_scale = std::sqrt(hidden / static_cast<double>(mla.q_lora_rank));
  mla.kv_scale = std::sqrt(hidden / static_cast<double>(mla.kv_lora_rank));
  ReadExperts(reader, &config);
  config.moe.num_identity_experts = reader->IntOr({"zero_expert_num", ""}, 0, 1 << 14, 0);
  config.moe.route.scale = static_cast<float>(reader->FloatOr({"routed_scaling_factor", ""}, 1.0));
  config.moe.names.router = "mlp.router.classifier";
  config.moe.names.choice_bias = "mlp.router.e_score_correction_bias";
  return std::make_unique<LongcatFlash>(std::move(config), mla);
}

}  // namespace thermocline
