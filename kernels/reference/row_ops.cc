#include "kernels/reference/row_ops.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/check.h"
#include "kernels/reference/route_token.h"

namespace thermocline {

// `result`, or NaN where `input` is NaN or infinite: for functions that map infinity to something
// finite.
float KeepNonFinite(float result, float input) { return result + input * 0.0f; }

float Sigmoid(float x) { return KeepNonFinite(1.0f / (1.0f + std::exp(-x)), x); }

float Silu(float x) { return x / (1.0f + std::exp(-x)); }

// Decodes row r of a weight matrix.
void DecodeRow(const TensorView& weight, int64_t r, std::vector<float>* row) {
  const WeightFormat& format = GetFormat(weight.dtype);
  std::vector<uint8_t> storage;
  row->resize(static_cast<size_t>(weight.cols()));
  format.decode(StoredRow(weight, r, &storage), weight.cols() / format.block_elems, row->data());
}

float Dot(const float* a, const float* b, int64_t n) {
  float sum = 0.0f;
  for (int64_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

void EmbedRow(const TensorView& table, const TensorView& token_ids, float scale,
              const TensorView& out, int64_t n) {
  const int32_t id = token_ids.Row<int32_t>(0)[n];
  TC_CHECK(id >= 0 && id < table.rows());
  std::vector<float> row;
  DecodeRow(table, id, &row);
  for (int64_t i = 0; i < out.cols(); ++i) out.Row<float>(n)[i] = scale * row[i];
}

void LayerNormRow(const TensorView& x, const TensorView& weight, const TensorView& bias, float eps,
                  const TensorView& out, int64_t n) {
  const int64_t cols = x.cols();
  const float* in = x.Row<float>(n);
  float mean = 0.0f, variance = 0.0f;
  for (int64_t i = 0; i < cols; ++i) mean += in[i];
  mean /= static_cast<float>(cols);
  for (int64_t i = 0; i < cols; ++i) variance += (in[i] - mean) * (in[i] - mean);
  const float scale =
      KeepNonFinite(1.0f / std::sqrt(variance / static_cast<float>(cols) + eps), variance);
  for (int64_t i = 0; i < cols; ++i) {
    out.Row<float>(n)[i] = (in[i] - mean) * scale * weight.Row<float>(0)[i] + bias.Row<float>(0)[i];
  }
}

void RouteRow(const TensorView& logits, const RouteArgs& args, const TensorView& ids,
              const TensorView& weights, int64_t n) {
  RouteToken({logits.Row<float>(n), static_cast<size_t>(logits.cols())}, args, ids.Row<int32_t>(n),
             weights.Row<float>(n));
}

void IdentityRow(const TensorView& x, const TensorView& ids, int num_experts, const TensorView& out,
                 int64_t r) {
  if (ids.Row<int32_t>(0)[r] < num_experts) return;
  std::copy_n(x.Row<float>(r / ids.cols()), x.cols(), out.Row<float>(r));
}

void MultiplyRow(const TensorView& a, const TensorView& b, const TensorView& out, int64_t n) {
  for (int64_t i = 0; i < out.cols(); ++i) {
    out.Row<float>(n)[i] = a.Row<float>(n)[i] * b.Row<float>(n)[i];
  }
}

void SigmoidMulRow(const TensorView& gate, const TensorView& x, int64_t n) {
  for (int64_t i = 0; i < x.cols(); ++i) {
    x.Row<float>(n)[i] *= Sigmoid(gate.Row<float>(n)[gate.cols() == 1 ? 0 : i]);
  }
}

void CopyHeadRow(const TensorView& x, const TensorView& out, int64_t r) {
  const int64_t heads = out.shape[1];
  const int64_t source = x.shape[1] == heads ? r : r / heads;
  std::copy_n(x.Row<float>(source), x.cols(), out.Row<float>(r));
}

void AddScaledRow(const TensorView& x, float scale, const TensorView& acc, int64_t n) {
  for (int64_t i = 0; i < x.cols(); ++i) acc.Row<float>(n)[i] += scale * x.Row<float>(n)[i];
}

void ScaleRow(const TensorView& x, float scale, int64_t n) {
  for (int64_t i = 0; i < x.cols(); ++i) x.Row<float>(n)[i] *= scale;
}

void ClampRow(const TensorView& x, float limit, int64_t n) {
  for (int64_t i = 0; i < x.cols(); ++i) {
    float& value = x.Row<float>(n)[i];
    value = KeepNonFinite(std::clamp(value, -limit, limit), value);
  }
}

void ScatterRow(const TensorView& x, const TensorView& rows, const TensorView& out, int64_t i) {
  const int32_t row = rows.Row<int32_t>(0)[i];
  TC_CHECK(row >= 0 && row < out.rows());
  std::memcpy(out.Row<char>(row), x.Row<char>(i), static_cast<size_t>(x.cols()) * sizeof(float));
}

void GatherRow(const TensorView& x, const TensorView& rows, const TensorView& out, int64_t i) {
  const int32_t row = rows.Row<int32_t>(0)[i];
  TC_CHECK(row >= 0 && row < x.rows());
  std::memcpy(out.Row<char>(i), x.Row<char>(row), static_cast<size_t>(x.cols()) * sizeof(float));
}

void ConvChannels(const TensorView& x, const TensorView& weight, bool silu, const StateArgs& args,
                  int64_t seq, int64_t first, int64_t last) {
  const int64_t channels = x.cols(), kernel = weight.cols();
  const int32_t* cu = args.cu_seqlens.Row<int32_t>(0);
  if (cu[seq] == cu[seq + 1]) return;  // nothing new: the state stays
  const bool fresh = args.positions.Row<int32_t>(0)[cu[seq]] == 0;
  float* state = args.state.Row<float>(args.slots.Row<int32_t>(0)[seq]);  // [kernel - 1, channels]
  std::vector<float> window(static_cast<size_t>(kernel));                 // inputs, oldest first
  for (int64_t c = first; c < last; ++c) {
    for (int64_t j = 0; j + 1 < kernel; ++j) {
      window[static_cast<size_t>(j)] = fresh ? 0.0f : state[j * channels + c];
    }
    for (int64_t t = cu[seq]; t < cu[seq + 1]; ++t) {
      window.back() = x.Row<float>(t)[c];
      const float sum = Dot(weight.Row<float>(c), window.data(), kernel);
      x.Row<float>(t)[c] = silu ? Silu(sum) : sum;
      std::copy(window.begin() + 1, window.end(), window.begin());
    }
    for (int64_t j = 0; j + 1 < kernel; ++j) {
      state[j * channels + c] = window[static_cast<size_t>(j)];
    }
  }
}

void DeltaRuleHead(const DeltaRuleArgs& args, int64_t seq, int64_t head) {
  constexpr float kEps = 1e-6f;  // of the norms, as the reference implementation
  const int64_t key_dim = args.k.cols(), value_dim = args.v.cols(), num_heads = args.v.shape[1];
  const int64_t num_key_heads = args.k.shape[1], key_head = head / (num_heads / num_key_heads);
  const int32_t* cu = args.state.cu_seqlens.Row<int32_t>(0);
  if (cu[seq] == cu[seq + 1]) return;
  float* memory = args.state.state.Row<float>(args.state.slots.Row<int32_t>(0)[seq]) +
                  head * key_dim * value_dim;  // [key_dim, value_dim]
  if (args.state.positions.Row<int32_t>(0)[cu[seq]] == 0) {
    std::fill_n(memory, key_dim * value_dim, 0.0f);
  }
  std::vector<float> delta(static_cast<size_t>(value_dim));
  for (int64_t t = cu[seq]; t < cu[seq + 1]; ++t) {
    const float* q = args.q.Row<float>(t * num_key_heads + key_head);
    const float* k = args.k.Row<float>(t * num_key_heads + key_head);
    const float* v = args.v.Row<float>(t * num_heads + head);
    float* out = args.out.Row<float>(t * num_heads + head);
    const float qq = Dot(q, q, key_dim), kk = Dot(k, k, key_dim);
    const float q_scale =
        KeepNonFinite(1.0f / std::sqrt((qq + kEps) * static_cast<float>(key_dim)), qq);
    const float k_scale = KeepNonFinite(1.0f / std::sqrt(kk + kEps), kk);
    const float x = args.a.Row<float>(t)[head] + args.dt_bias.Row<float>(0)[head];
    const float softplus = x > 20.0f ? x : std::log1p(std::exp(x));
    const float decay = KeepNonFinite(std::exp(args.a_scale.Row<float>(0)[head] * softplus), x);
    const float beta = Sigmoid(args.beta.Row<float>(t)[head]);
    std::fill(delta.begin(), delta.end(), 0.0f);
    for (int64_t i = 0; i < key_dim; ++i) {
      for (int64_t j = 0; j < value_dim; ++j) {
        memory[i * value_dim + j] *= decay;
        delta[j] += k[i] * k_scale * memory[i * value_dim + j];
      }
    }
    for (int64_t j = 0; j < value_dim; ++j) delta[j] = beta * (v[j] - delta[j]);
    std::fill_n(out, value_dim, 0.0f);
    for (int64_t i = 0; i < key_dim; ++i) {
      for (int64_t j = 0; j < value_dim; ++j) {
        memory[i * value_dim + j] += k[i] * k_scale * delta[j];
        out[j] += q[i] * q_scale * memory[i * value_dim + j];
      }
    }
  }
}

}  // namespace thermocline
