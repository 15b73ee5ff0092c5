#include "kernels/reference/reference_backend.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <vector>

#include "kernels/host_memory.h"
#include "kernels/quant/float_bits.h"

namespace thermocline {
namespace {

float Silu(float x) { return x / (1.0f + std::exp(-x)); }

// Decodes row r of a weight matrix.
void DecodeRow(const TensorView& weight, int64_t r, std::vector<float>* row) {
  const WeightFormat& format = GetFormat(weight.dtype);
  row->resize(static_cast<size_t>(weight.cols()));
  format.decode(weight.Row<const uint8_t>(r), weight.cols() / format.block_elems, row->data());
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
    const float scale = 1.0f / std::sqrt(mean_square + eps);
    for (int64_t i = 0; i < cols; ++i) {
      out.Row<float>(n)[i] = in[i] * scale * weight.Row<float>(0)[i];
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
  const int64_t heads = k.shape[1], head_dim = k.shape[2];
  TC_CHECK(k_cache.shape[2] == heads && k_cache.shape[3] == head_dim);
  for (int64_t n = 0; n < k.shape[0]; ++n) {
    const int64_t slot = slots.Row<int32_t>(0)[n];
    TC_CHECK(slot >= 0 && slot < k_cache.shape[0] * k_cache.shape[1]);
    for (int64_t h = 0; h < heads; ++h) {
      const float *k_in = k.Row<float>(n * heads + h), *v_in = v.Row<float>(n * heads + h);
      for (int64_t i = 0; i < head_dim; ++i) {
        StoreElement(k_in[i], k_cache.dtype, k_cache.Row<char>(slot * heads + h), i);
        StoreElement(v_in[i], v_cache.dtype, v_cache.Row<char>(slot * heads + h), i);
      }
    }
  }
}

void ReferenceBackend::Attention(const AttentionArgs& args) {
  const int64_t num_heads = args.q.shape[1], head_dim = args.q.shape[2];
  const int64_t group = num_heads / args.k_cache.shape[2];
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
        scores.push_back(args.scale * Dot(q, row.data(), head_dim));
      }
      const float max = *std::max_element(scores.begin(), scores.end());
      float sum = 0.0f;
      for (float& score : scores) sum += (score = std::exp(score - max));
      std::fill(out, out + head_dim, 0.0f);
      for (int64_t p = first; p <= last; ++p) {
        DecodeRow(args.v_cache, CacheRow(args.v_cache, table, p, h / group), &row);
        const float probability = scores[static_cast<size_t>(p - first)] / sum;
        for (int64_t i = 0; i < head_dim; ++i) out[i] += probability * row[i];
      }
    }
  }
}

void ReferenceBackend::RouteTopK(const TensorView& logits, const RouteArgs& args,
                                 const TensorView& ids, const TensorView& weights) {
  const int64_t num_experts = logits.cols();
  TC_CHECK(args.top_k >= 1 && args.top_k <= num_experts && ids.cols() == args.top_k);
  std::vector<float> score(static_cast<size_t>(num_experts));
  std::vector<int32_t> order(static_cast<size_t>(num_experts));
  for (int64_t n = 0; n < logits.rows(); ++n) {
    const float* logit = logits.Row<float>(n);
    std::iota(order.begin(), order.end(), 0);
    std::partial_sort(
        order.begin(), order.begin() + args.top_k, order.end(),
        [&](int32_t a, int32_t b) { return logit[a] != logit[b] ? logit[a] > logit[b] : a < b; });
    const float max = logit[order[0]];
    float total = 0.0f, chosen = 0.0f;
    for (int64_t e = 0; e < num_experts; ++e) total += (score[e] = std::exp(logit[e] - max));
    for (int j = 0; j < args.top_k; ++j) chosen += score[order[j]];
    for (int j = 0; j < args.top_k; ++j) {
      ids.Row<int32_t>(n)[j] = order[j];
      // Softmax over the chosen logits equals the normalised choice from the full softmax.
      const bool over_chosen = args.normalize || !args.softmax_before_top_k;
      weights.Row<float>(n)[j] = score[order[j]] / (over_chosen ? chosen : total);
    }
  }
}

void ReferenceBackend::ExpertFfn(const TensorView& x, absl::Span<const ExpertWork> experts,
                                 const TensorView& out) {
  std::vector<float> row, hidden;
  for (const ExpertWork& expert : experts) {
    const int64_t width = expert.gate.rows(), num_rows = static_cast<int64_t>(expert.rows.size());
    TC_CHECK(expert.up.rows() == width && expert.down.cols() == width &&
             expert.rows.size() == expert.slots.size());
    hidden.assign(static_cast<size_t>(num_rows * width), 0.0f);
    for (int64_t f = 0; f < width; ++f) {
      DecodeRow(expert.gate, f, &row);
      for (int64_t i = 0; i < num_rows; ++i) {
        hidden[i * width + f] = Silu(Dot(row.data(), x.Row<float>(expert.rows[i]), x.cols()));
      }
      DecodeRow(expert.up, f, &row);
      for (int64_t i = 0; i < num_rows; ++i) {
        hidden[i * width + f] *= Dot(row.data(), x.Row<float>(expert.rows[i]), x.cols());
      }
    }
    for (int64_t d = 0; d < expert.down.rows(); ++d) {
      DecodeRow(expert.down, d, &row);
      for (int64_t i = 0; i < num_rows; ++i) {
        out.Row<float>(expert.slots[i])[d] = Dot(row.data(), &hidden[i * width], width);
      }
    }
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

void ReferenceBackend::AddScaled(const TensorView& x, float scale, const TensorView& acc) {
  for (int64_t n = 0; n < x.rows(); ++n) {
    for (int64_t i = 0; i < x.cols(); ++i) acc.Row<float>(n)[i] += scale * x.Row<float>(n)[i];
  }
}

void ReferenceBackend::Scale(const TensorView& x, float scale) {
  for (int64_t n = 0; n < x.rows(); ++n) {
    for (int64_t i = 0; i < x.cols(); ++i) x.Row<float>(n)[i] *= scale;
  }
}

void ReferenceBackend::Clamp(const TensorView& x, float limit) {
  for (int64_t n = 0; n < x.rows(); ++n) {
    for (int64_t i = 0; i < x.cols(); ++i) {
      x.Row<float>(n)[i] = std::clamp(x.Row<float>(n)[i], -limit, limit);
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
