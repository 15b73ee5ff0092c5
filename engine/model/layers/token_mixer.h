// TokenMixer: the half of a layer in which tokens of a sequence see each other.
#ifndef THERMOCLINE_ENGINE_MODEL_LAYERS_TOKEN_MIXER_H_
#define THERMOCLINE_ENGINE_MODEL_LAYERS_TOKEN_MIXER_H_

#include "engine/model/model.h"
#include "engine/pass/forward_pass.h"
#include "engine/weights/tensor_table.h"

namespace thermocline {

class TokenMixer {
 public:
  virtual ~TokenMixer() = default;

  virtual MixerMemory memory() const = 0;
  virtual void DeclareTensors(const LayerPrefix& prefix, TensorTable* table) = 0;
  // x [N, hidden], normalised -> [N, hidden], in the pass's scratch. `mixer` is its index among the
  // model's mixers, where its memory lies.
  virtual TensorView Forward(ForwardPass* pass, int mixer, const TensorView& x) const = 0;
};

}  // namespace thermocline

#endif  // THERMOCLINE_ENGINE_MODEL_LAYERS_TOKEN_MIXER_H_
