// ModelDims: the sizes of a model that the step and its memory depend on.
#ifndef THERMOCLINE_ENGINE_WEIGHTS_MODEL_DIMS_H_
#define THERMOCLINE_ENGINE_WEIGHTS_MODEL_DIMS_H_

#include <cstdint>
#include <string>
#include <vector>

namespace thermocline {

// What one token mixer (attention, convolution, recurrence) remembers of a sequence.
struct MixerMemory {
  // Paged, per token: a key and a value row for each head. Heads 0: nothing.
  int64_t num_kv_heads = 0;
  int64_t key_dim = 0;
  int64_t value_dim = 0;
  bool latent = false;  // the value is the first value_dim elements of the key, stored once
  // Fixed size, per sequence: f32 elements.
  int64_t state_elems = 0;
};

// What the engine needs to know of any model.
struct ModelDims {
  std::string architecture;  // the name of the registry
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t num_hidden_layers = 0;
  int64_t max_position_embeddings = 0;
  std::vector<MixerMemory>
      mixers;  // in the order of the forward pass; most models have one a layer
  // 0 for dense models.
  int64_t num_experts = 0;
  int64_t num_experts_per_tok = 0;
};

}  // namespace thermocline

#endif  // THERMOCLINE_ENGINE_WEIGHTS_MODEL_DIMS_H_
