// Model: an architecture with its configuration and, after loading, its weights. Const from then
// on.
#ifndef THERMOCLINE_ENGINE_MODEL_MODEL_H_
#define THERMOCLINE_ENGINE_MODEL_MODEL_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/model/config_reader.h"
#include "engine/weights/model_dims.h"
#include "engine/weights/tensor_table.h"

namespace thermocline {

class ForwardPass;

// How multi-head latent attention is computed. The numbers agree up to rounding.
enum class MlaForm : uint8_t {
  kAbsorbed,  // queries are taken into the latent space; the cache holds one latent row a token
  kPlain,     // keys and values are expanded and cached for every head
};

struct ModelOptions {
  MlaForm mla_form = MlaForm::kAbsorbed;
  int64_t max_context = 0;  // longest sequence to be served; 0: as long as the model allows
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

// What the model declares.
inline TensorTable TensorsOf(Model* model) {
  TensorTable table;
  model->DeclareTensors(&table);
  return table;
}

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

#endif  // THERMOCLINE_ENGINE_MODEL_MODEL_H_
