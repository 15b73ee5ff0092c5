#include "kernels/cpu/onednn_matmul.h"

#include "kernels/check.h"

#ifdef THERMOCLINE_WITH_ONEDNN
#include <omp.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/cpu/onednn_product.h"
#endif

namespace thermocline {

#ifdef THERMOCLINE_WITH_ONEDNN

namespace {

constexpr int64_t kBlockCols = 32;  // of oneDNN's blocked format

}  // namespace

struct OneDnnMatMul::Impl {
  using Key = std::pair<int64_t, int64_t>;  // in, out

  // Throws dnnl::error.
  OneDnnProduct& Get(int64_t in, int64_t out) {
    const auto it = products.find(Key{in, out});
    if (it != products.end()) return it->second;
    using Desc = dnnl::memory::desc;
    using Tag = dnnl::memory::format_tag;
    constexpr auto kType = dnnl::memory::data_type::bf16;
    const Desc src({kTokensPerCall, in}, kType, Tag::ab);
    const Desc weights({in, out}, kType, Tag::BA16a16b2a);  // panels
    const Desc dst({kTokensPerCall, out}, dnnl::memory::data_type::f32, Tag::ab);
    return products.emplace(Key{in, out}, OneDnnProduct(engine, src, weights, dst)).first->second;
  }

  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream{engine};
  std::map<Key, OneDnnProduct> products;
  std::vector<uint16_t> src;
  std::vector<float> dst;
};

bool OneDnnMatMul::Available() {
  static const bool available = [] {
    try {
      Impl().Get(kBlockCols, kPanelRows);
    } catch (const dnnl::error&) {
      return false;
    }
    return true;
  }();
  return available;
}

bool OneDnnMatMul::HasTiles() {
  constexpr unsigned kAmx = static_cast<unsigned>(dnnl::cpu_isa::avx512_core_amx);
  return (static_cast<unsigned>(dnnl::get_effective_cpu_isa()) & kAmx) == kAmx;
}

bool OneDnnMatMul::CanServe(const TensorView& weight) {
  constexpr int64_t kMinWeightElems = 1 << 16;  // below, a call's fixed cost exceeds the gain
  return Available() && weight.dtype == DType::kBF16 && weight.num_elems() >= kMinWeightElems &&
         weight.cols() % kBlockCols == 0 && weight.first_row % kPanelRows == 0 &&
         weight.rows() % kPanelRows == 0;
}

absl::Status OneDnnMatMul::Run(const TensorView& weight, int64_t first_row, int64_t num_rows,
                               const void* const* x, int num_tokens, float* const* out) {
  TC_CHECK(num_rows <= kMaxWeightRows && num_tokens <= kTokensPerCall);
  omp_set_num_threads(1);  // of this thread only
  if (impl_ == nullptr) impl_ = std::make_unique<Impl>();
  const size_t in = static_cast<size_t>(weight.cols()), rows = static_cast<size_t>(num_rows);
  try {
    OneDnnProduct& product = impl_->Get(weight.cols(), num_rows);
    impl_->src.resize(kTokensPerCall * in);
    impl_->dst.resize(kTokensPerCall * rows);
    for (size_t t = 0; t < static_cast<size_t>(num_tokens); ++t) {
      std::memcpy(&impl_->src[t * in], x[t], in * sizeof(uint16_t));
    }
    std::fill(impl_->src.begin() + static_cast<int64_t>(in) * num_tokens, impl_->src.end(), 0);
    product.Run(&impl_->stream, impl_->src.data(), const_cast<uint8_t*>(PanelOf(weight, first_row)),
                impl_->dst.data());
  } catch (const dnnl::error& error) {
    return absl::InternalError(absl::StrCat("oneDNN: ", error.what()));
  }
  for (size_t t = 0; t < static_cast<size_t>(num_tokens); ++t) {
    std::memcpy(out[t], &impl_->dst[t * rows], rows * sizeof(float));
  }
  return absl::OkStatus();
}

#else

struct OneDnnMatMul::Impl {};
bool OneDnnMatMul::Available() { return false; }
bool OneDnnMatMul::HasTiles() { return false; }
bool OneDnnMatMul::CanServe(const TensorView&) { return false; }
absl::Status OneDnnMatMul::Run(const TensorView&, int64_t, int64_t, const void* const*, int,
                               float* const*) {
  return absl::InternalError("built without oneDNN");
}

#endif

OneDnnMatMul::OneDnnMatMul() = default;
OneDnnMatMul::~OneDnnMatMul() = default;
OneDnnMatMul::OneDnnMatMul(OneDnnMatMul&&) noexcept = default;
OneDnnMatMul& OneDnnMatMul::operator=(OneDnnMatMul&&) noexcept = default;

}  // namespace thermocline
