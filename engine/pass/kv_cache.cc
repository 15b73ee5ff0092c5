#include "engine/pass/kv_cache.h"

#include <limits>

#include "absl/strings/str_cat.h"

namespace thermocline {

absl::Status KvCache::CheckType(const ModelDims& dims, DType dtype) {
  const int block = GetFormat(dtype).block_elems;
  for (const MixerMemory& m : dims.mixers) {
    for (const int64_t dim : {m.key_dim, m.value_dim}) {
      if (m.num_kv_heads == 0 || dim % block == 0) continue;
      return absl::InvalidArgumentError(absl::StrCat("a KV cache of ", GetFormat(dtype).name,
                                                     " needs heads of whole blocks of ", block,
                                                     ", but the model's have ", dim, " elements"));
    }
  }
  return absl::OkStatus();
}

float KvCache::Limit(DType dtype) {
  constexpr float kHalf = 65520.0f;  // between the largest f16, 65504, and what would be next
  constexpr float kBfloat16 = 0x1.FFp127f;  // likewise
  switch (dtype) {
    case DType::kF16:
      return kHalf;
    case DType::kBF16:
      return kBfloat16;
    case DType::kQ8_0:
      return 127.0f * 65504.0f;  // of a block whose f16 scale is the largest
    default:
      return std::numeric_limits<float>::infinity();
  }
}

int64_t KvCache::BytesPerToken(const ModelDims& dims, DType dtype) {
  int64_t bytes = 0;
  for (const MixerMemory& m : dims.mixers) {
    bytes += m.num_kv_heads * BytesOf(dtype, m.key_dim + (m.latent ? 0 : m.value_dim));
  }
  return bytes;
}

int64_t KvCache::BytesPerSequence(const ModelDims& dims) {
  int64_t bytes = 0;
  for (const MixerMemory& m : dims.mixers) bytes += BytesOf(DType::kF32, m.state_elems);
  return bytes;
}

absl::StatusOr<std::unique_ptr<KvCache>> KvCache::Create(Device* device, const ModelDims& dims,
                                                         const Options& options) {
  auto cache = std::make_unique<KvCache>();
  for (const MixerMemory& m : dims.mixers) {
    Layer layer;
    if (m.num_kv_heads > 0) {
      const auto view = [&](int64_t head_dim) {
        return MakeView(nullptr, options.dtype,
                        {options.num_blocks, options.block_size, m.num_kv_heads, head_dim});
      };
      layer.keys = view(m.key_dim);
      layer.values = view(m.value_dim);
      if (m.latent) layer.values.row_bytes = layer.keys.row_bytes;
      const int64_t value_bytes = m.latent ? 0 : layer.values.bytes();
      absl::StatusOr<Buffer> memory = device->Allocate(layer.keys.bytes() + value_bytes);
      if (!memory.ok()) return memory.status();
      layer.memory = *std::move(memory);
      layer.keys.data = layer.memory.data();
      layer.values.data =
          static_cast<char*>(layer.memory.data()) + (m.latent ? 0 : layer.keys.bytes());
    }
    if (m.state_elems > 0) {
      layer.state = MakeView(nullptr, DType::kF32, {options.num_state_slots, m.state_elems});
      absl::StatusOr<Buffer> memory = device->Allocate(layer.state.bytes());
      if (!memory.ok()) return memory.status();
      layer.state_memory = *std::move(memory);
      layer.state.data = layer.state_memory.data();
    }
    cache->layers_.push_back(std::move(layer));
  }
  return cache;
}

}  // namespace thermocline
