#include "kernels/reference/reference_backend.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <vector>

#include "kernels/host_memory.h"
#include "kernels/quant/float_bits.h"
#include "kernels/quant/q8_0.h"
#include "kernels/reference/route_token.h"

namespace thermocline {
namespace {

// `result`, or NaN where `input` is NaN or infinite: for functions that map infinity to something
// finite.
float KeepNonFinite(float result, float input) { return result + input * 0.0f; }

float Sigmoid(float x) { return KeepNonFinite(1.0f / (1.0f + std::exp(-x)), x); }

float Silu(float x) { return x / (1.0f + std::exp(-x)); }

float Activate(Activation activation, float gate, float up) {
  switch (activation) {
    case Activation::kSilu:
      return Silu(gate) * up;
    case Activation::kSwigluOai: {
      const float g = std::min(gate, kSwigluOaiLimit);
      const float u = std::clamp(up, -kSwigluOaiLimit, kSwigluOaiLimit);
      return KeepNonFinite(g * Sigmoid(kSwigluOaiAlpha * g) * (u + 1.0f), gate + up);
    }
  }
  TC_CHECK(false);
  return 0.0f;
}

float BiasAt(const TensorView& bias, int64_t i) {
  return bias.empty() ? 0.0f : bias.Row<float>(0)[i];
}

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

void StoreElement(float value, DType dtype, void* row, int64_t i) {
  switch (dtype) {
    case DType::kF32:
      static_cast<float*>(row)[i] = value;
      return;
    case DType::kF16:
      static_cast<uint16_t*>(row)[i] = FloatToHalf(value);
      return;
    case DType::kBF16:
      static_cast<uint16_t*>(row)[i] = FloatToBfloat16(value);
      return;
    default:
      TC_CHECK(false) << "KV cache of type " << GetFormat(dtype).name;
  }
}

// Row of one position's key or value in a paged cache.
int64_t CacheRow(const TensorView& cache, const int32_t* block_table, int64_t position,
                 int64_t head) {
  const int64_t block_size = cache.shape[1], num_kv_heads = cache.shape[2];
  const int64_t block = block_table[position / block_size];
  return (block * block_size + position % block_size) * num_kv_heads + head;
}

}  // namespace

absl::StatusOr<Buffer> ReferenceBackend::Allocate(int64_t bytes) { return AllocateHost(bytes); }

void ReferenceBackend::CopyFromHost(const void* host, void* device, int64_t bytes) {
  if (bytes > 0) std::memcpy(device, host, static_cast<size_t>(bytes));
}

void ReferenceBackend::CopyToHost(const void* device, void* host, int64_t bytes) {
  if (bytes > 0) std::memcpy(host, device, static_cast<size_t>(bytes));
}

void ReferenceBackend::EmbedTokens(const TensorView& table, const TensorView& token_ids,
                                   float scale, const TensorView& out) {
  TC_CHECK(out.cols() == table.cols() && out.rows() == token_ids.num_elems());
  std::vector<float> row;
  for (int64_t n = 0; n < out.rows(); ++n) {
    const int32_t id = token_ids.Row<int32_t>(0)[n];
    TC_CHECK(id >= 0 && id < table.rows());
    DecodeRow(table, id, &row);
    for (int64_t i = 0; i < out.cols(); ++i) out.Row<float>(n)[i] = scale * row[i];
  }
}

void ReferenceBackend::RmsNorm(const TensorView& x, const TensorView& weight, float eps,
                               const TensorView& out) {
  const int64_t cols = x.cols();
  TC_CHECK(weight.cols() == cols && out.cols() == cols && out.rows() == x.rows());
  for (int64_t n = 0; n < x.rows(); ++n) {
    const float* in = x.Row<float>(n);
    const float mean_square = Dot(in, in, cols) / static_cast<float>(cols);
    const float scale = KeepNonFinite(1.0f / std::sqrt(mean_square + eps), mean_square);
    for (int64_t i = 0; i < cols; ++i) {
      out.Row<float>(n)[i] = in[i] * scale * weight.Row<float>(0)[i];
    }
  }
}

void ReferenceBackend::LayerNorm(const TensorView& x, const TensorView& weight,
                                 const TensorView& bias, float eps, const TensorView& out) {
  const int64_t cols = x.cols();
  TC_CHECK(weight.cols() == cols && bias.cols() == cols && out.cols() == cols &&
           out.rows() == x.rows());
  for (int64_t n = 0; n < x.rows(); ++n) {
    const float* in = x.Row<float>(n);
    float mean = 0.0f, variance = 0.0f;
    for (int64_t i = 0; i < cols; ++i) mean += in[i];
    mean /= static_cast<float>(cols);
    for (int64_t i = 0; i < cols; ++i) variance += (in[i] - mean) * (in[i] - mean);
    const float scale =
        KeepNonFinite(1.0f / std::sqrt(variance / static_cast<float>(cols) + eps), variance);
    for (int64_t i = 0; i < cols; ++i) {
      out.Row<float>(n)[i] =
          (in[i] - mean) * scale * weight.Row<float>(0)[i] + bias.Row<float>(0)[i];
    }
  }
}

void ReferenceBackend::MatMul(const TensorView& x, absl::Span<const TokenRole> roles,
                              absl::Span<const Projection> projections) {
  TC_CHECK(static_cast<int64_t>(roles.size()) == x.rows());
  std::vector<float> row;
  for (const Projection& p : projections) {
    TC_CHECK(p.weight.cols() == x.cols() && p.out.cols() == p.weight.rows() &&
             p.out.rows() == x.rows());
    for (int64_t r = 0; r < p.weight.rows(); ++r) {
      DecodeRow(p.weight, r, &row);
      const float bias = p.bias.empty() ? 0.0f : p.bias.Row<float>(0)[r];
      for (int64_t n = 0; n < x.rows(); ++n) {
        p.out.Row<float>(n)[r] = Dot(row.data(), x.Row<float>(n), x.cols()) + bias;
      }
    }
  }
}

void ReferenceBackend::HeadMatMul(const TensorView& x, absl::Span<const TokenRole> roles,
                                  const TensorView& weight, const TensorView& out) {
  const int64_t heads = x.shape[1], rows_per_head = out.cols();
  TC_CHECK(x.rank == 3 && out.rank == 3 && out.shape[0] == x.shape[0] && out.shape[1] == heads &&
           weight.cols() == x.cols() && weight.rows() == heads * rows_per_head &&
           static_cast<int64_t>(roles.size()) == x.shape[0]);
  std::vector<float> row;
  for (int64_t h = 0; h < heads; ++h) {
    for (int64_t r = 0; r < rows_per_head; ++r) {
      DecodeRow(weight, h * rows_per_head + r, &row);
      for (int64_t n = 0; n < x.shape[0]; ++n) {
        out.Row<float>(n * heads + h)[r] = Dot(row.data(), x.Row<float>(n * heads + h), x.cols());
      }
    }
  }
}

void ReferenceBackend::Rope(const TensorView& x, const TensorView& positions,
                            const RopeArgs& args) {
  TC_CHECK(x.rank == 3 && x.shape[0] == positions.num_elems());
  const int64_t heads = x.shape[1], half = args.inv_freq.cols();
  TC_CHECK(2 * half <= x.shape[2]);
  for (int64_t n = 0; n < x.shape[0]; ++n) {
    const float position = static_cast<float>(positions.Row<int32_t>(0)[n]);
    for (int64_t i = 0; i < half; ++i) {
      const float angle = position * args.inv_freq.Row<float>(0)[i];
      const float cosine = std::cos(angle) * args.scale, sine = std::sin(angle) * args.scale;
      const int64_t a = args.interleaved ? 2 * i : i, b = args.interleaved ? 2 * i + 1 : i + half;
      for (int64_t h = 0; h < heads; ++h) {
        float* head = x.Row<float>(n * heads + h);
        const float first = head[a], second = head[b];
        head[a] = first * cosine - second * sine;
        head[b] = second * cosine + first * sine;
      }
    }
  }
}

void ReferenceBackend::StoreKv(const TensorView& k, const TensorView& v, const TensorView& slots,
                               const TensorView& k_cache, const TensorView& v_cache) {
  const int64_t heads = k.shape[1], num_slots = k_cache.shape[0] * k_cache.shape[1];
  const auto store = [&](const TensorView& x, const TensorView& cache) {
    TC_CHECK(cache.shape[2] == heads && x.shape[1] == heads && cache.shape[3] == x.cols());
    for (int64_t n = 0; n < x.shape[0]; ++n) {
      const int64_t slot = slots.Row<int32_t>(0)[n];
      TC_CHECK(slot >= 0 && slot < num_slots);
      for (int64_t h = 0; h < heads; ++h) {
        const float* in = x.Row<float>(n * heads + h);
        if (cache.dtype == DType::kQ8_0) {
          EncodeQ8_0(in, x.cols(), cache.Row<uint8_t>(slot * heads + h));
          continue;
        }
        for (int64_t i = 0; i < x.cols(); ++i) {
          StoreElement(in[i], cache.dtype, cache.Row<char>(slot * heads + h), i);
        }
      }
    }
  };
  store(k, k_cache);
  if (!v.empty()) store(v, v_cache);
}

void ReferenceBackend::Attention(const AttentionArgs& args) {
  const int64_t num_heads = args.q.shape[1], key_dim = args.q.shape[2], value_dim = args.out.cols();
  const int64_t group = num_heads / args.k_cache.shape[2];
  TC_CHECK(args.k_cache.cols() == key_dim && args.v_cache.cols() == value_dim);
  std::vector<float> row, scores;
  for (int64_t n = 0; n < args.q.shape[0]; ++n) {
    const int32_t* table = args.block_tables.Row<int32_t>(args.seq_idx.Row<int32_t>(0)[n]);
    const int64_t last = args.positions.Row<int32_t>(0)[n];
    const int64_t first = args.window > 0 ? std::max<int64_t>(0, last - args.window + 1) : 0;
    for (int64_t h = 0; h < num_heads; ++h) {
      const float* q = args.q.Row<float>(n * num_heads + h);
      float* out = args.out.Row<float>(n * num_heads + h);
      scores.clear();
      for (int64_t p = first; p <= last; ++p) {
        DecodeRow(args.k_cache, CacheRow(args.k_cache, table, p, h / group), &row);
        scores.push_back(args.scale * Dot(q, row.data(), key_dim));
      }
      float max = *std::max_element(scores.begin(), scores.end());
      float sum = 0.0f;
      if (!args.sinks.empty()) {
        const float sink = args.sinks.Row<float>(0)[h];
        max = std::max(max, sink);
        sum = std::exp(sink - max);
      }
      for (float& score : scores) {
        sum = KeepNonFinite(sum, score);
        sum += (score = std::exp(score - max));
      }
      std::fill(out, out + value_dim, 0.0f);
      for (int64_t p = first; p <= last; ++p) {
        DecodeRow(args.v_cache, CacheRow(args.v_cache, table, p, h / group), &row);
        const float probability = scores[static_cast<size_t>(p - first)] / sum;
        for (int64_t i = 0; i < value_dim; ++i) out[i] += probability * row[i];
      }
    }
  }
}

void ReferenceBackend::RouteTopK(const TensorView& logits, const RouteArgs& args,
                                 const TensorView& ids, const TensorView& weights) {
  TC_CHECK(args.top_k >= 1 && args.top_k <= logits.cols() && ids.cols() == args.top_k);
  for (int64_t n = 0; n < logits.rows(); ++n) {
    RouteToken({logits.Row<float>(n), static_cast<size_t>(logits.cols())}, args,
               ids.Row<int32_t>(n), weights.Row<float>(n));
  }
}

void ReferenceBackend::ExpertFfn(const TensorView& x, absl::Span<const ExpertWork> experts,
                                 Activation activation, const TensorView& out) {
  std::vector<float> gate_row, up_row, row, hidden;
  for (const ExpertWork& expert : experts) {
    const int64_t width = expert.gate.rows(), num_rows = static_cast<int64_t>(expert.rows.size());
    TC_CHECK(expert.up.rows() == width && expert.down.cols() == width &&
             expert.rows.size() == expert.slots.size());
    hidden.assign(static_cast<size_t>(num_rows * width), 0.0f);
    for (int64_t f = 0; f < width; ++f) {
      DecodeRow(expert.gate, f, &gate_row);
      DecodeRow(expert.up, f, &up_row);
      for (int64_t i = 0; i < num_rows; ++i) {
        const float* in = x.Row<float>(expert.rows[i]);
        const float gate = Dot(gate_row.data(), in, x.cols()) + BiasAt(expert.gate_bias, f);
        const float up = Dot(up_row.data(), in, x.cols()) + BiasAt(expert.up_bias, f);
        hidden[i * width + f] = Activate(activation, gate, up);
      }
    }
    for (int64_t d = 0; d < expert.down.rows(); ++d) {
      DecodeRow(expert.down, d, &row);
      for (int64_t i = 0; i < num_rows; ++i) {
        out.Row<float>(expert.slots[i])[d] =
            Dot(row.data(), &hidden[i * width], width) + BiasAt(expert.down_bias, d);
      }
    }
  }
}

void ReferenceBackend::IdentityExperts(const TensorView& x, const TensorView& ids, int num_experts,
                                       const TensorView& out) {
  TC_CHECK(out.rows() == ids.num_elems() && out.cols() == x.cols());
  for (int64_t slot = 0; slot < ids.num_elems(); ++slot) {
    if (ids.Row<int32_t>(0)[slot] < num_experts) continue;
    std::copy_n(x.Row<float>(slot / ids.cols()), x.cols(), out.Row<float>(slot));
  }
}

void ReferenceBackend::CombineExperts(const TensorView& expert_out, const TensorView& weights,
                                      float scale, const TensorView& acc) {
  const int64_t top_k = weights.cols();
  TC_CHECK(expert_out.rows() == acc.rows() * top_k);
  for (int64_t n = 0; n < acc.rows(); ++n) {
    for (int64_t i = 0; i < acc.cols(); ++i) {
      float sum = 0.0f;
      for (int64_t j = 0; j < top_k; ++j) {
        sum += weights.Row<float>(n)[j] * expert_out.Row<float>(n * top_k + j)[i];
      }
      acc.Row<float>(n)[i] += scale * sum;
    }
  }
}

void ReferenceBackend::SiluMul(const TensorView& gate, const TensorView& up,
                               const TensorView& out) {
  for (int64_t n = 0; n < gate.rows(); ++n) {
    for (int64_t i = 0; i < gate.cols(); ++i) {
      out.Row<float>(n)[i] = Silu(gate.Row<float>(n)[i]) * up.Row<float>(n)[i];
    }
  }
}

void ReferenceBackend::Multiply(const TensorView& a, const TensorView& b, const TensorView& out) {
  TC_CHECK(a.rows() == out.rows() && b.rows() == out.rows() && a.cols() == out.cols() &&
           b.cols() == out.cols());
  for (int64_t n = 0; n < out.rows(); ++n) {
    for (int64_t i = 0; i < out.cols(); ++i) {
      out.Row<float>(n)[i] = a.Row<float>(n)[i] * b.Row<float>(n)[i];
    }
  }
}

void ReferenceBackend::SigmoidMul(const TensorView& gate, const TensorView& x) {
  TC_CHECK(gate.rows() == x.rows() && (gate.cols() == x.cols() || gate.cols() == 1));
  for (int64_t n = 0; n < x.rows(); ++n) {
    for (int64_t i = 0; i < x.cols(); ++i) {
      x.Row<float>(n)[i] *= Sigmoid(gate.Row<float>(n)[gate.cols() == 1 ? 0 : i]);
    }
  }
}

void ReferenceBackend::CopyHeads(const TensorView& x, const TensorView& out) {
  TC_CHECK(x.rank == 3 && out.rank == 3 && x.shape[0] == out.shape[0] && x.cols() == out.cols() &&
           (x.shape[1] == out.shape[1] || x.shape[1] == 1));
  const int64_t heads = out.shape[1];
  for (int64_t r = 0; r < out.rows(); ++r) {
    const int64_t source = x.shape[1] == heads ? r : r / heads;
    std::copy_n(x.Row<float>(source), x.cols(), out.Row<float>(r));
  }
}

void ReferenceBackend::CausalConv(const TensorView& x, const TensorView& weight, bool silu,
                                  const StateArgs& state) {
  TC_CHECK(weight.rows() == x.cols() && state.state.cols() == (weight.cols() - 1) * x.cols());
  for (int64_t s = 0; s < state.slots.num_elems(); ++s) {
    ConvChannels(x, weight, silu, state, s, 0, x.cols());
  }
}

void ReferenceBackend::ConvChannels(const TensorView& x, const TensorView& weight, bool silu,
                                    const StateArgs& args, int64_t seq, int64_t first,
                                    int64_t last) {
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

void ReferenceBackend::GatedDeltaRule(const DeltaRuleArgs& args) {
  for (int64_t s = 0; s < args.state.slots.num_elems(); ++s) {
    for (int64_t h = 0; h < args.v.shape[1]; ++h) DeltaRuleHead(args, s, h);
  }
}

void ReferenceBackend::DeltaRuleHead(const DeltaRuleArgs& args, int64_t seq, int64_t head) {
  constexpr float kEps = 1e-6f;  // of the norms, as the reference implementation
  const int64_t key_dim = args.k.cols(), value_dim = args.v.cols(), num_heads = args.v.shape[1];
  const int64_t num_key_heads = args.k.shape[1], key_head = head / (num_heads / num_key_heads);
  TC_CHECK(num_heads % num_key_heads == 0 &&
           args.state.state.cols() == num_heads * key_dim * value_dim);
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

void ReferenceBackend::AddScaled(const TensorView& x, float scale, const TensorView& acc) {
  for (int64_t n = 0; n < x.rows(); ++n) {
    for (int64_t i = 0; i < x.cols(); ++i) acc.Row<float>(n)[i] += scale * x.Row<float>(n)[i];
  }
}

void ReferenceBackend::Fill(const TensorView& x, float value) {
  for (int64_t n = 0; n < x.rows(); ++n) std::fill_n(x.Row<float>(n), x.cols(), value);
}

void ReferenceBackend::Scale(const TensorView& x, float scale) {
  for (int64_t n = 0; n < x.rows(); ++n) {
    for (int64_t i = 0; i < x.cols(); ++i) x.Row<float>(n)[i] *= scale;
  }
}

void ReferenceBackend::Clamp(const TensorView& x, float limit) {
  for (int64_t n = 0; n < x.rows(); ++n) {
    for (int64_t i = 0; i < x.cols(); ++i) {
      float& value = x.Row<float>(n)[i];
      value = KeepNonFinite(std::clamp(value, -limit, limit), value);
    }
  }
}

void ReferenceBackend::MarkFaults(const TensorView& x, float limit, int32_t code,
                                  const TensorView& faults) {
  const int64_t num_tokens = faults.num_elems();
  TC_CHECK(num_tokens > 0 && x.rows() % num_tokens == 0 && code != 0);
  const int64_t rows_per_token = x.rows() / num_tokens;
  for (int64_t r = 0; r < x.rows(); ++r) {
    int32_t& fault = faults.Row<int32_t>(0)[r / rows_per_token];
    for (int64_t i = 0; i < x.cols() && fault == 0; ++i) {
      if (!(std::fabs(x.Row<float>(r)[i]) < limit)) fault = code;  // written so that NaN is one
    }
  }
}

void ReferenceBackend::GatherRows(const TensorView& x, const TensorView& rows,
                                  const TensorView& out) {
  for (int64_t i = 0; i < rows.num_elems(); ++i) {
    const int32_t row = rows.Row<int32_t>(0)[i];
    TC_CHECK(row >= 0 && row < x.rows());
    std::memcpy(out.Row<char>(i), x.Row<char>(row), static_cast<size_t>(x.row_bytes));
  }
}

}  // namespace thermocline
