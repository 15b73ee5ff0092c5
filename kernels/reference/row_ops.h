// The parts of operations that are computed alike by the reference and by the CPU backend: one row
// of a result (or channels, or a head), a pure function of its inputs. DenseOps says what they
// compute.
#ifndef THERMOCLINE_KERNELS_REFERENCE_ROW_OPS_H_
#define THERMOCLINE_KERNELS_REFERENCE_ROW_OPS_H_

#include <cstdint>
#include <vector>

#include "kernels/dense_ops.h"

namespace thermocline {

// `result`, or NaN where `input` is NaN or infinite: for functions that map infinity to something
// finite.
float KeepNonFinite(float result, float input);
float Sigmoid(float x);
float Silu(float x);
// a . b, one product after the other.
float Dot(const float* a, const float* b, int64_t n);
// Row r of a weight matrix of any format in either layout, as f32.
void DecodeRow(const TensorView& weight, int64_t r, std::vector<float>* row);

// Row n of `out`, or of what is changed in place.
void EmbedRow(const TensorView& table, const TensorView& token_ids, float scale,
              const TensorView& out, int64_t n);
void LayerNormRow(const TensorView& x, const TensorView& weight, const TensorView& bias, float eps,
                  const TensorView& out, int64_t n);
void RouteRow(const TensorView& logits, const RouteArgs& args, const TensorView& ids,
              const TensorView& weights, int64_t n);
void IdentityRow(const TensorView& x, const TensorView& ids, int num_experts, const TensorView& out,
                 int64_t r);
void MultiplyRow(const TensorView& a, const TensorView& b, const TensorView& out, int64_t n);
void SigmoidMulRow(const TensorView& gate, const TensorView& x, int64_t n);
void CopyHeadRow(const TensorView& x, const TensorView& out, int64_t r);
void AddScaledRow(const TensorView& x, float scale, const TensorView& acc, int64_t n);
void ScaleRow(const TensorView& x, float scale, int64_t n);
void ClampRow(const TensorView& x, float limit, int64_t n);
void ScatterRow(const TensorView& x, const TensorView& rows, const TensorView& out, int64_t i);
void GatherRow(const TensorView& x, const TensorView& rows, const TensorView& out, int64_t i);

// Channels [first, last) of one sequence of CausalConv; channels are independent.
void ConvChannels(const TensorView& x, const TensorView& weight, bool silu, const StateArgs& args,
                  int64_t seq, int64_t first, int64_t last);
// One head of one sequence of GatedDeltaRule; heads are independent.
void DeltaRuleHead(const DeltaRuleArgs& args, int64_t seq, int64_t head);

}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_REFERENCE_ROW_OPS_H_
