// RouteToken: one token's router logits to experts and weights, as a pure function.
#ifndef THERMOCLINE_KERNELS_REFERENCE_ROUTE_TOKEN_H_
#define THERMOCLINE_KERNELS_REFERENCE_ROUTE_TOKEN_H_

#include <cstdint>

#include "absl/types/span.h"
#include "kernels/dense_ops.h"

namespace thermocline {

// Writes ids [top_k] and weights [top_k] by RouteArgs (DenseOps::RouteTopK). NaN ranks last;
// where a logit or a biased score is NaN or infinite the weights are NaN.
void RouteToken(absl::Span<const float> logits, const RouteArgs& args, int32_t* ids,
                float* weights);

}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_REFERENCE_ROUTE_TOKEN_H_
