// KvCache: the memory behind the KV block pool and the state slots, one entry a token mixer.
#ifndef THERMOCLINE_ENGINE_PASS_KV_CACHE_H_
#define THERMOCLINE_ENGINE_PASS_KV_CACHE_H_

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/weights/model_dims.h"
#include "kernels/device.h"
#include "kernels/tensor_view.h"

namespace thermocline {

class KvCache {
 public:
  struct Options {
    DType dtype = DType::kF16;  // of keys and values: F32, F16, BF16 or Q8_0
    int num_blocks = 0;
    int block_size = 0;
    int num_state_slots = 0;  // sequences that hold state at once
  };

  // RESOURCE_EXHAUSTED without memory.
  static absl::StatusOr<std::unique_ptr<KvCache>> Create(Device* device, const ModelDims& dims,
                                                         const Options& options);
  // INVALID_ARGUMENT when the model's heads are no whole blocks of the type.
  static absl::Status CheckType(const ModelDims& dims, DType dtype);
  // Magnitudes from here on become infinite in a cache of the type.
  static float Limit(DType dtype);
  // Bytes that one token takes in all layers.
  static int64_t BytesPerToken(const ModelDims& dims, DType dtype);
  // Bytes that one sequence takes whatever its length.
  static int64_t BytesPerSequence(const ModelDims& dims);

  // [num_blocks, block_size, num_kv_heads, key_dim]
  const TensorView& keys(int mixer) const { return layers_[static_cast<size_t>(mixer)].keys; }
  // [num_blocks, block_size, num_kv_heads, value_dim]; a part of keys() when latent.
  const TensorView& values(int mixer) const { return layers_[static_cast<size_t>(mixer)].values; }
  // [num_state_slots, state_elems] f32
  const TensorView& state(int mixer) const { return layers_[static_cast<size_t>(mixer)].state; }

 private:
  struct Layer {
    Buffer memory, state_memory;
    TensorView keys, values, state;
  };
  std::vector<Layer> layers_;
};

}  // namespace thermocline

#endif  // THERMOCLINE_ENGINE_PASS_KV_CACHE_H_
