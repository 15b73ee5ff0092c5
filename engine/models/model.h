// Model: an architecture with its configuration and, after loading, its weights. Const from then
// on.
#ifndef THERMOCLINE_ENGINE_MODELS_MODEL_H_
#define THERMOCLINE_ENGINE_MODELS_MODEL_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/models/config_reader.h"
#include "engine/models/tensor_table.h"

namespace thermocline {

class ForwardPass;

// What the engine needs to know of any model.
struct ModelDims {
  std::string architecture;  // the name of the registry
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t num_hidden_layers = 0;
  int64_t max_position_embeddings = 0;
  // KV cache of one token in one layer: two rows of num_key_value_heads * head_dim.
  int64_t num_key_value_heads = 0;
  int64_t head_dim = 0;
  // 0 for dense models.
  int64_t num_experts = 0;
  int64_t num_experts_per_tok = 0;
};

class Model {
 public:
  virtual ~Model() = default;

  virtual const ModelDims& dims() const = 0;
  // Every tensor with its place in this object. The loader fills the places; they stay valid as
  // long as the WeightStore.
  virtual void DeclareTensors(TensorTable* table) = 0;
  // Called once after the dense tensors are loaded.
  // inv_freq [rotary_dim / 2] in radians per position, to be placed in device memory at *target;
  // empty without RoPE.
  virtual std::vector<float> RopeInvFreq(const std::vector<float>& file_factors) const = 0;
  virtual TensorView* mutable_rope_inv_freq() = 0;
  // Runs the layers over the pass's batch and returns logits [num logits rows, vocab] f32 in the
  // pass's memory.
  virtual absl::StatusOr<TensorView> Forward(ForwardPass* pass) const = 0;
};

// Chooses the architecture by the checkpoint's own name. UNIMPLEMENTED lists what is supported.
absl::StatusOr<std::unique_ptr<Model>> MakeModel(const Checkpoint& checkpoint);

// Names of the supported architectures, for messages.
std::string SupportedArchitectures();

}  // namespace thermocline

#endif  // THERMOCLINE_ENGINE_MODELS_MODEL_H_
