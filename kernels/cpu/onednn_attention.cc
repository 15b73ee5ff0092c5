#include "kernels/cpu/onednn_attention.h"

#ifdef THERMOCLINE_WITH_ONEDNN
#include <omp.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"
#include "kernels/cpu/onednn_product.h"
#include "kernels/quant/registry.h"
#endif

namespace thermocline {

#ifdef THERMOCLINE_WITH_ONEDNN

namespace {

using Memory = dnnl::memory;
using Type = Memory::data_type;
constexpr int kQueries = OneDnnAttention::kMaxQueries;

// Room for `elems` elements of a type, grown only.
class Array {
 public:
  void Reserve(DType dtype, int64_t elems) {
    dtype_ = dtype;
    const size_t bytes = static_cast<size_t>(BytesOf(dtype, elems));
    if (bytes_.size() < bytes) bytes_.resize(bytes);
  }
  void Clear(int64_t first, int64_t elems) {
    std::memset(At(first), 0, static_cast<size_t>(BytesOf(dtype_, elems)));
  }
  // From f32, rounded to the array's type.
  void Put(const CpuKernels& kernels, int64_t first, const float* x, int64_t n) {
    kernels.encode_row[static_cast<int>(dtype_)](x, n, At(first));
  }
  void* At(int64_t elem) { return bytes_.data() + BytesOf(dtype_, elem); }
  float* f32(int64_t elem = 0) { return static_cast<float*>(At(elem)); }

 private:
  DType dtype_ = DType::kF32;
  std::vector<char> bytes_;
};

}  // namespace

struct OneDnnAttention::Impl {
  // Products [kQueries, in] with [in, out] to [kQueries, out] f32, added to what is there or not.
  using Key = std::tuple<int64_t, int64_t, Type, bool>;  // in, out, type, scores or values

  // `scores`: the weights are the transpose of [out, in] rows. Else [in, out] rows, and the result
  // is added. Throws dnnl::error.
  OneDnnProduct& Get(int64_t in, int64_t out, Type type, bool scores) {
    const Key key{in, out, type, scores};
    const auto it = products.find(key);
    if (it != products.end()) return it->second;
    using Tag = Memory::format_tag;
    const Memory::desc src({kQueries, in}, type, Tag::ab),
        weights({in, out}, type, scores ? Tag::ba : Tag::ab),
        dst({kQueries, out}, Type::f32, Tag::ab);
    dnnl::primitive_attr attr;
    if (!scores) {
      dnnl::post_ops add;
      add.append_sum(1.0f);
      attr.set_post_ops(add);
    }
    return products.emplace(key, OneDnnProduct(engine, src, weights, dst, attr)).first->second;
  }

  void Run(const CpuKernels& kernels, const AttendTileArgs& a);
  // Positions [begin, end) of the block that starts at `base`, the others zeros.
  void LoadBlock(const CpuKernels& kernels, const AttendTileArgs& a, int64_t base, int64_t begin,
                 int64_t end);
  // Scores of the block become weights; sums so far shrink to the new maximum.
  void Weigh(const CpuKernels& kernels, const AttendTileArgs& a, int64_t base);

  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream{engine};
  std::map<Key, OneDnnProduct> products;
  Array queries;       // [kQueries, key_dim]
  Array keys, values;  // [kBlock, key_dim], [kBlock, value_dim]
  Array scores, sums;  // f32 [kQueries, kBlock], [kQueries, value_dim]
  Array weights;       // [kQueries, kBlock]
  std::vector<float> row, max, sum;
};

void OneDnnAttention::Impl::LoadBlock(const CpuKernels& kernels, const AttendTileArgs& a,
                                      int64_t base, int64_t begin, int64_t end) {
  const auto decode = kernels.decode_row[static_cast<int>(a.cache_dtype)];
  const auto load = [&](const uint8_t* cache, int64_t row_bytes, int64_t dim, Array* out) {
    for (int64_t p = 0; p < kBlock; ++p) {
      const int64_t position = base + p;
      if (position < begin || position >= end) {
        out->Clear(p * dim, dim);
        continue;
      }
      const int64_t block = a.block_table[position / a.block_size];
      const int64_t slot = block * a.block_size + position % a.block_size;
      decode(cache + (slot * a.num_kv_heads + a.head) * row_bytes, dim, row.data());
      out->Put(kernels, p * dim, row.data(), dim);
    }
  };
  load(a.k_cache, a.k_row_bytes, a.key_dim, &keys);
  load(a.v_cache, a.v_row_bytes, a.value_dim, &values);
}

void OneDnnAttention::Impl::Weigh(const CpuKernels& kernels, const AttendTileArgs& a,
                                  int64_t base) {
  for (int q = 0; q < kQueries; ++q) {
    const size_t i = static_cast<size_t>(q);
    float* score = scores.f32(q * kBlock);
    const bool attends = q < a.num_queries && a.last[q] >= base && a.first[q] < base + kBlock;
    if (!attends) {
      weights.Clear(q * kBlock, kBlock);
      continue;
    }
    const int first = static_cast<int>(std::max<int64_t>(0, a.first[q] - base)),
              last = static_cast<int>(std::min<int64_t>(kBlock, a.last[q] - base + 1));
    const float factor =
        kernels.softmax_block(score, kBlock, a.scale, first, last, &max[i], &sum[i]);
    weights.Put(kernels, q * kBlock, score, kBlock);
    float* so_far = sums.f32(q * a.value_dim);
    for (int64_t v = 0; v < a.value_dim; ++v) so_far[v] *= factor;
  }
}

void OneDnnAttention::Impl::Run(const CpuKernels& kernels, const AttendTileArgs& a) {
  const bool narrow = a.cache_dtype == DType::kBF16;
  const DType dtype = narrow ? DType::kBF16 : DType::kF32;
  const Type type = narrow ? Type::bf16 : Type::f32;
  OneDnnProduct &score = Get(a.key_dim, kBlock, type, true),
                &value = Get(kBlock, a.value_dim, type, false);
  queries.Reserve(dtype, kQueries * a.key_dim);
  keys.Reserve(dtype, kBlock * a.key_dim);
  values.Reserve(dtype, kBlock * a.value_dim);
  scores.Reserve(DType::kF32, int64_t{kQueries} * kBlock);
  weights.Reserve(dtype, int64_t{kQueries} * kBlock);
  sums.Reserve(DType::kF32, kQueries * a.value_dim);
  row.resize(static_cast<size_t>(std::max(a.key_dim, a.value_dim)));
  queries.Clear(0, kQueries * a.key_dim);
  sums.Clear(0, kQueries * a.value_dim);
  max.assign(kQueries, -3.0e38f);
  sum.assign(kQueries, 0.0f);
  int64_t begin = a.first[0], end = a.last[0] + 1;
  for (int q = 0; q < a.num_queries; ++q) {
    queries.Put(kernels, q * a.key_dim, a.q[q], a.key_dim);
    begin = std::min(begin, a.first[q]);
    end = std::max(end, a.last[q] + 1);
    if (a.sinks == nullptr) continue;
    max[static_cast<size_t>(q)] = *a.sinks[q];
    sum[static_cast<size_t>(q)] = 1.0f;
  }
  for (int64_t base = begin / kBlock * kBlock; base < end; base += kBlock) {
    LoadBlock(kernels, a, base, begin, end);
    score.Run(&stream, queries.At(0), keys.At(0), scores.At(0));
    Weigh(kernels, a, base);
    value.Run(&stream, weights.At(0), values.At(0), sums.At(0));
  }
  for (int q = 0; q < a.num_queries; ++q) {
    const float inverse = 1.0f / sum[static_cast<size_t>(q)];
    const float* from = sums.f32(q * a.value_dim);
    for (int64_t v = 0; v < a.value_dim; ++v) a.out[q][v] = from[v] * inverse;
  }
}

absl::Status OneDnnAttention::Run(const CpuKernels& kernels, const AttendTileArgs& args) {
  TC_CHECK(args.num_queries <= kMaxQueries);
  omp_set_num_threads(1);  // of this thread only
  if (impl_ == nullptr) impl_ = std::make_unique<Impl>();
  try {
    impl_->Run(kernels, args);
  } catch (const dnnl::error& error) {
    return absl::InternalError(absl::StrCat("oneDNN: ", error.what()));
  }
  return absl::OkStatus();
}

#else

struct OneDnnAttention::Impl {};
absl::Status OneDnnAttention::Run(const CpuKernels&, const AttendTileArgs&) {
  return absl::InternalError("built without oneDNN");
}

#endif

OneDnnAttention::OneDnnAttention() = default;
OneDnnAttention::~OneDnnAttention() = default;
OneDnnAttention::OneDnnAttention(OneDnnAttention&&) noexcept = default;
OneDnnAttention& OneDnnAttention::operator=(OneDnnAttention&&) noexcept = default;

}  // namespace thermocline
