// One product of fixed shapes through oneDNN, whatever its version. For the sources that include
// oneDNN's headers, and no others; everything throws dnnl::error.
#ifndef THERMOCLINE_KERNELS_CPU_ONEDNN_PRODUCT_H_
#define THERMOCLINE_KERNELS_CPU_ONEDNN_PRODUCT_H_

#include <oneapi/dnnl/dnnl.hpp>

namespace thermocline {

class OneDnnProduct {
 public:
  using Desc = dnnl::memory::desc;

  OneDnnProduct(const dnnl::engine& engine, const Desc& src, const Desc& weights, const Desc& dst,
                const dnnl::primitive_attr& attr = {})
#if DNNL_VERSION_MAJOR >= 3
      : primitive_(dnnl::matmul::primitive_desc(engine, src, weights, dst, attr)),
#else
      : primitive_(
            dnnl::matmul::primitive_desc(dnnl::matmul::desc(src, weights, dst), attr, engine)),
#endif
        src_(src, engine, DNNL_MEMORY_NONE),
        weights_(weights, engine, DNNL_MEMORY_NONE),
        dst_(dst, engine, DNNL_MEMORY_NONE) {
  }

  // Over memory as the descriptors say; done when it returns.
  void Run(dnnl::stream* stream, void* src, void* weights, void* dst) {
    src_.set_data_handle(src);
    weights_.set_data_handle(weights);
    dst_.set_data_handle(dst);
    primitive_.execute(*stream,
                       {{DNNL_ARG_SRC, src_}, {DNNL_ARG_WEIGHTS, weights_}, {DNNL_ARG_DST, dst_}});
    stream->wait();
  }

 private:
  dnnl::matmul primitive_;
  dnnl::memory src_, weights_, dst_;
};

}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_CPU_ONEDNN_PRODUCT_H_
