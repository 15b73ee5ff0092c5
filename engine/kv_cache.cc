#include "engine/kv_cache.h"

namespace thermocline {

int64_t KvCache::BytesPerToken(const ModelDims& dims, DType dtype) {
  return 2 * dims.num_hidden_layers * BytesOf(dtype, dims.num_key_value_heads * dims.head_dim);
}

absl::StatusOr<std::unique_ptr<KvCache>> KvCache::Create(Backend* backend, const ModelDims& dims,
                                                         DType dtype, int num_blocks,
                                                         int block_size) {
  auto cache = std::make_unique<KvCache>();
  for (int64_t l = 0; l < dims.num_hidden_layers; ++l) {
    TensorView view =
        MakeView(nullptr, dtype, {num_blocks, block_size, dims.num_key_value_heads, dims.head_dim});
    absl::StatusOr<Buffer> memory = backend->Allocate(2 * view.bytes());
    if (!memory.ok()) return memory.status();
    Layer layer = {*std::move(memory), view, view};
    layer.keys.data = layer.memory.data();
    layer.values.data = static_cast<char*>(layer.memory.data()) + view.bytes();
    cache->layers_.push_back(std::move(layer));
  }
  return cache;
}

}  // namespace thermocline
