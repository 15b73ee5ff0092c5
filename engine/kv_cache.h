// KvCache: the memory behind the KV block pool, one pair of tensors a layer.
#ifndef THERMOCLINE_ENGINE_KV_CACHE_H_
#define THERMOCLINE_ENGINE_KV_CACHE_H_

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/models/model.h"
#include "kernels/backend.h"

namespace thermocline {

class KvCache {
 public:
  // dtype is F32, F16 or BF16. RESOURCE_EXHAUSTED without memory.
  static absl::StatusOr<std::unique_ptr<KvCache>> Create(Backend* backend, const ModelDims& dims,
                                                         DType dtype, int num_blocks,
                                                         int block_size);
  // Bytes that one token takes in all layers.
  static int64_t BytesPerToken(const ModelDims& dims, DType dtype);

  // [num_blocks, block_size, num_kv_heads, head_dim]
  const TensorView& keys(int layer) const { return layers_[static_cast<size_t>(layer)].keys; }
  const TensorView& values(int layer) const { return layers_[static_cast<size_t>(layer)].values; }

 private:
  struct Layer {
    Buffer memory;
    TensorView keys, values;
  };
  std::vector<Layer> layers_;
};

}  // namespace thermocline

#endif  // THERMOCLINE_ENGINE_KV_CACHE_H_
