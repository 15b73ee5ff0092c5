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

// How multi-head latent attention is computed. The numbers agree up to rounding.
enum class MlaForm : uint8_t {
  kAbsorbed,  // queries are taken into the latent space; the cache holds one latent row a token
  kPlain,     // keys and values are expanded and cached for every head
};

struct ModelOptions {
  MlaForm mla_form = MlaForm::kAbsorbed;
  int64_t max_context = 0;  // longest sequence to be served; 0: as long as the model allows
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

class Model {
 public:
  virtual ~Model() = default;

  virtual const ModelDims& dims() const = 0;
  // Every tensor with its place in this object. The loader fills the places; they stay valid as
  // long as the WeightStore.
  virtual void DeclareTensors(TensorTable* table) = 0;
  // Runs the layers over the pass's batch and returns logits [num logits rows, vocab] f32 in the
  // pass's memory.
  virtual absl::StatusOr<TensorView> Forward(ForwardPass* pass) const = 0;
};

// Chooses the architecture by the checkpoint's own name. UNIMPLEMENTED lists what is supported.
absl::StatusOr<std::unique_ptr<Model>> MakeModel(const Checkpoint& checkpoint,
                                                 const ModelOptions& options = {});

// The same from a reader, which afterwards holds what conversion to GGUF needs.
absl::StatusOr<std::unique_ptr<Model>> MakeModel(ConfigReader* reader, const ModelOptions& options);
// general.architecture under which GGUF knows the checkpoint's architecture; "" when it does not.
std::string GgufArchitecture(const ConfigReader& reader);

// The checkpoint's architecture under the name that SupportedArchitectures gives it, supported or
// not; of a GGUF file, the file's own name.
std::string ArchitectureName(const ConfigReader& reader);

// Names of the supported architectures as Hugging Face folders have them, separated by ", ".
std::string SupportedArchitectures();

}  // namespace thermocline

#endif  // THERMOCLINE_ENGINE_MODELS_MODEL_H_
