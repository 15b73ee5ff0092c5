// The gated short convolution of LFM2: out = W_out (C . conv(B . x)), with [B, C, x] = W_in u.
#ifndef THERMOCLINE_ENGINE_MODEL_LAYERS_SHORT_CONV_H_
#define THERMOCLINE_ENGINE_MODEL_LAYERS_SHORT_CONV_H_

#include "engine/model/layers/token_mixer.h"

namespace thermocline {

struct ShortConvConfig {
  int64_t hidden_size = 0;
  int64_t kernel_size = 0;  // tokens that an output sees, its own included
};

// Source: Lfm2MoeShortConv in modeling_lfm2_moe.py of transformers.
class ShortConv : public TokenMixer {
 public:
  explicit ShortConv(ShortConvConfig config) : config_(config) {}

  MixerMemory memory() const override;
  void DeclareTensors(const LayerPrefix& prefix, TensorTable* table) override;
  TensorView Forward(ForwardPass* pass, int mixer, const TensorView& x) const override;

 private:
  ShortConvConfig config_;
  TensorView in_proj_;   // [3 * hidden, hidden]: B, C, x
  TensorView conv_;      // [hidden, kernel_size]
  TensorView out_proj_;  // [hidden, hidden]
};

}  // namespace thermocline

#endif  // THERMOCLINE_ENGINE_MODEL_LAYERS_SHORT_CONV_H_
