#include "engine/model/decoder.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "engine/pass/forward_pass.h"
#include "kernels/check.h"

namespace thermocline {

Decoder::Decoder(DecoderConfig config, TokenMixers mixers) : config_(std::move(config)) {
  for (std::unique_ptr<TokenMixer>& mixer : mixers) {
    config_.dims.mixers.push_back(mixer->memory());
    layers_.emplace_back();
    layers_.back().mixer = std::move(mixer);
  }
  config_.moe.hidden_size = config_.dims.hidden_size;
}

void Decoder::DeclareNorm(const TensorName& name, const LayerPrefix& prefix, Norm* norm,
                          TensorTable* table) const {
  TensorName weight = {prefix.hf + name.hf.name + ".weight",
                       prefix.gguf + name.gguf.name + ".weight"};
  if (config_.zero_centered_norm) weight.hf.transform = Transform::kAddOne;
  table->Vector(weight, config_.dims.hidden_size, &norm->weight);
  if (!config_.layer_norm) return;
  table->Vector({prefix.hf + name.hf.name + ".bias", prefix.gguf + name.gguf.name + ".bias"},
                config_.dims.hidden_size, &norm->bias);
}

void Decoder::DeclareTensors(TensorTable* table) {
  const ModelDims& dims = config_.dims;
  const DecoderNames& names = config_.names;
  table->Matrix({names.embed_tokens + ".weight", "token_embd.weight"}, dims.vocab_size,
                dims.hidden_size, &embed_tokens_);
  DeclareNorm(names.norm, {}, &norm_, table);
  if (!config_.tie_word_embeddings) {
    TensorName head = {"lm_head.weight", "output.weight"};
    if (config_.normalize_head) head.hf.transform = Transform::kUnitColumns;
    table->Matrix(head, dims.vocab_size, dims.hidden_size, &lm_head_);
    if (config_.normalize_head) table->dense.back().as_f32 = true;
    table->Vector({"lm_head.bias", "output.bias"}, dims.vocab_size, &lm_head_bias_,
                  /*optional=*/true);
  }
  for (int l = 0; l < dims.num_hidden_layers; ++l) {
    Layer* layer = &layers_[static_cast<size_t>(l)];
    const LayerPrefix prefix = {absl::StrCat("model.layers.", l, "."),
                                absl::StrCat("blk.", l, ".")};
    DeclareNorm(names.input_norm, prefix, &layer->input_norm, table);
    DeclareNorm(names.post_norm, prefix, &layer->post_norm, table);
    layer->mixer->DeclareTensors(prefix, table);
    if (config_.layer_has_experts[static_cast<size_t>(l)]) {
      layer->moe.DeclareTensors(config_.moe, l, prefix, table);
    } else {
      layer->mlp.DeclareTensors(prefix, names.mlp, dims.hidden_size, config_.intermediate_size,
                                table);
    }
  }
}

void Decoder::ApplyNorm(ForwardPass* pass, const Norm& norm, const TensorView& x,
                        const TensorView& out) const {
  const float eps = static_cast<float>(config_.norm_eps);
  if (config_.layer_norm) {
    pass->ops().LayerNorm(x, norm.weight, norm.bias, eps, out);
  } else {
    pass->ops().RmsNorm(x, norm.weight, eps, out);
  }
}

absl::StatusOr<TensorView> Decoder::Forward(ForwardPass* pass) const {
  const ModelDims& dims = config_.dims;
  const float residual = static_cast<float>(config_.residual_multiplier);
  DenseOps& ops = pass->ops();
  const int64_t num_tokens = pass->num_tokens();
  const TensorView h = pass->NewTensor({num_tokens, dims.hidden_size});
  const TensorView x = pass->NewTensor({num_tokens, dims.hidden_size});
  ops.EmbedTokens(embed_tokens_, pass->token_ids(),
                  static_cast<float>(config_.embedding_multiplier), h);
  if (absl::Status s = pass->Observe(0, h); !s.ok()) return s;
  pass->Done(Stage::kEmbed);
  for (int l = 0; l < dims.num_hidden_layers; ++l) {
    const Layer& layer = layers_[static_cast<size_t>(l)];
    const ScratchScope scope(pass);
    ApplyNorm(pass, layer.input_norm, h, x);
    ops.AddScaled(layer.mixer->Forward(pass, l, x), residual, h);
    ApplyNorm(pass, layer.post_norm, h, x);
    pass->Done(Stage::kAttention);
    if (absl::Status s = FeedForward(pass, l, x, h); !s.ok()) return s;
    pass->Done(Stage::kCombine);
    if (absl::Status s = pass->Observe(l + 1, h); !s.ok()) return s;
  }
  const TensorView last = pass->NewTensor({pass->num_logits(), dims.hidden_size});
  const TensorView logits = pass->NewTensor({pass->num_logits(), dims.vocab_size});
  ops.GatherRows(h, pass->logits_rows(), last);
  ApplyNorm(pass, norm_, last, last);
  const Projection head = {config_.tie_word_embeddings ? embed_tokens_ : lm_head_, lm_head_bias_,
                           logits};
  ops.MatMul(last, pass->logits_roles(), {&head, 1});
  if (config_.logits_scaling != 1.0)
    ops.Scale(logits, static_cast<float>(1.0 / config_.logits_scaling));
  pass->Done(Stage::kHead);
  return logits;
}

absl::Status Decoder::FeedForward(ForwardPass* pass, int l, const TensorView& x,
                                  const TensorView& residual) const {
  const Layer& layer = layers_[static_cast<size_t>(l)];
  const float scale = static_cast<float>(config_.residual_multiplier);
  if (config_.layer_has_experts[static_cast<size_t>(l)]) {
    return layer.moe.Add(pass, config_.moe, l, x, scale, residual);
  }
  pass->ops().AddScaled(layer.mlp.Forward(pass, x), scale, residual);
  return absl::OkStatus();
}

}  // namespace thermocline
