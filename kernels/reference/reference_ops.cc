#include "kernels/reference/reference_ops.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/check.h"
#include "kernels/checked_ops.h"
#include "kernels/host_device.h"
#include "kernels/quant/float_bits.h"
#include "kernels/quant/q8_0.h"
#include "kernels/reference/row_ops.h"

namespace thermocline {
namespace {

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

// Returns when `ready()`; until then does what a feed wants done. Without a feed it must be.
template <class Ready>
void WaitUntil(ExpertFeed* feed, const Ready& ready) {
  while (!ready()) {
    TC_CHECK(feed != nullptr) << "an expert that nobody brings";
    const uint32_t seen = feed->Epoch();
    feed->Tend();
    if (!ready() && !feed->Help()) feed->Sleep(seen, /*tends=*/true);
  }
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

void ReferenceOps::EmbedTokens(const TensorView& table, const TensorView& token_ids, float scale,
                               const TensorView& out) {
  for (int64_t n = 0; n < out.rows(); ++n) EmbedRow(table, token_ids, scale, out, n);
}

void ReferenceOps::LayerNorm(const TensorView& x, const TensorView& weight, const TensorView& bias,
                             float eps, const TensorView& out) {
  for (int64_t n = 0; n < x.rows(); ++n) LayerNormRow(x, weight, bias, eps, out, n);
}

void ReferenceOps::RouteTopK(const TensorView& logits, const RouteArgs& args, const TensorView& ids,
                             const TensorView& weights) {
  for (int64_t n = 0; n < logits.rows(); ++n) RouteRow(logits, args, ids, weights, n);
}

void ReferenceOps::IdentityExperts(const TensorView& x, const TensorView& ids, int num_experts,
                                   const TensorView& out) {
  for (int64_t r = 0; r < out.rows(); ++r) IdentityRow(x, ids, num_experts, out, r);
}

void ReferenceOps::Multiply(const TensorView& a, const TensorView& b, const TensorView& out) {
  for (int64_t n = 0; n < out.rows(); ++n) MultiplyRow(a, b, out, n);
}

void ReferenceOps::SigmoidMul(const TensorView& gate, const TensorView& x) {
  for (int64_t n = 0; n < x.rows(); ++n) SigmoidMulRow(gate, x, n);
}

void ReferenceOps::CopyHeads(const TensorView& x, const TensorView& out) {
  for (int64_t r = 0; r < out.rows(); ++r) CopyHeadRow(x, out, r);
}

void ReferenceOps::AddScaled(const TensorView& x, float scale, const TensorView& acc) {
  for (int64_t n = 0; n < x.rows(); ++n) AddScaledRow(x, scale, acc, n);
}

void ReferenceOps::Fill(const TensorView& x, float value) {
  for (int64_t n = 0; n < x.rows(); ++n) std::fill_n(x.Row<float>(n), x.cols(), value);
}

void ReferenceOps::Scale(const TensorView& x, float scale) {
  for (int64_t n = 0; n < x.rows(); ++n) ScaleRow(x, scale, n);
}

void ReferenceOps::Clamp(const TensorView& x, float limit) {
  for (int64_t n = 0; n < x.rows(); ++n) ClampRow(x, limit, n);
}

void ReferenceOps::ScatterRows(const TensorView& x, const TensorView& rows, const TensorView& out) {
  for (int64_t i = 0; i < x.rows(); ++i) ScatterRow(x, rows, out, i);
}

void ReferenceOps::GatherRows(const TensorView& x, const TensorView& rows, const TensorView& out) {
  for (int64_t i = 0; i < out.rows(); ++i) GatherRow(x, rows, out, i);
}

void ReferenceOps::RmsNorm(const TensorView& x, const TensorView& weight, float eps,
                           const TensorView& out) {
  const int64_t cols = x.cols();
  for (int64_t n = 0; n < x.rows(); ++n) {
    const float* in = x.Row<float>(n);
    const float mean_square = Dot(in, in, cols) / static_cast<float>(cols);
    const float scale = KeepNonFinite(1.0f / std::sqrt(mean_square + eps), mean_square);
    for (int64_t i = 0; i < cols; ++i) {
      out.Row<float>(n)[i] = in[i] * scale * weight.Row<float>(0)[i];
    }
  }
}

void ReferenceOps::MatMul(const TensorView& x, const TensorView& /*roles*/,
                          absl::Span<const Projection> projections) {
  std::vector<float> row;
  for (const Projection& p : projections) {
    for (int64_t r = 0; r < p.weight.rows(); ++r) {
      DecodeRow(p.weight, r, &row);
      const float bias = p.bias.empty() ? 0.0f : p.bias.Row<float>(0)[r];
      for (int64_t n = 0; n < x.rows(); ++n) {
        p.out.Row<float>(n)[r] = Dot(row.data(), x.Row<float>(n), x.cols()) + bias;
      }
    }
  }
}

void ReferenceOps::HeadMatMul(const TensorView& x, const TensorView& /*roles*/,
                              const TensorView& weight, const TensorView& out) {
  const int64_t heads = x.shape[1], rows_per_head = out.cols();
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

void ReferenceOps::Rope(const TensorView& x, const TensorView& positions, const RopeArgs& args) {
  const int64_t heads = x.shape[1], half = args.inv_freq.cols();
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

void ReferenceOps::StoreKv(const TensorView& k, const TensorView& v, const TensorView& slots,
                           const TensorView& k_cache, const TensorView& v_cache) {
  const int64_t heads = k.shape[1], num_slots = k_cache.shape[0] * k_cache.shape[1];
  const auto store = [&](const TensorView& x, const TensorView& cache) {
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

void ReferenceOps::Attention(const AttentionArgs& args) {
  const int64_t num_heads = args.q.shape[1], key_dim = args.q.shape[2], value_dim = args.out.cols();
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

void ReferenceOps::CombineExperts(const TensorView& expert_out, const TensorView& weights,
                                  float scale, const TensorView& acc) {
  const int64_t top_k = weights.cols();
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

void ReferenceOps::SiluMul(const TensorView& gate, const TensorView& up, const TensorView& out) {
  for (int64_t n = 0; n < gate.rows(); ++n) {
    for (int64_t i = 0; i < gate.cols(); ++i) {
      out.Row<float>(n)[i] = Silu(gate.Row<float>(n)[i]) * up.Row<float>(n)[i];
    }
  }
}

void ReferenceOps::CausalConv(const TensorView& x, const TensorView& weight, bool silu,
                              const StateArgs& state) {
  for (int64_t s = 0; s < state.slots.num_elems(); ++s) {
    ConvChannels(x, weight, silu, state, s, 0, x.cols());
  }
}

void ReferenceOps::GatedDeltaRule(const DeltaRuleArgs& args) {
  for (int64_t s = 0; s < args.state.slots.num_elems(); ++s) {
    for (int64_t h = 0; h < args.v.shape[1]; ++h) DeltaRuleHead(args, s, h);
  }
}

void ReferenceOps::MarkFaults(const TensorView& x, float limit, int32_t code,
                              const TensorView& faults) {
  const int64_t num_tokens = faults.num_elems();
  const int64_t rows_per_token = x.rows() / num_tokens;
  for (int64_t r = 0; r < x.rows(); ++r) {
    int32_t& fault = faults.Row<int32_t>(0)[r / rows_per_token];
    for (int64_t i = 0; i < x.cols() && fault == 0; ++i) {
      if (!(std::fabs(x.Row<float>(r)[i]) < limit)) fault = code;  // written so that NaN is one
    }
  }
}

void ReferenceExperts::Start(const ExpertBatch& batch, absl::Span<ExpertWork> experts) {
  batch_ = &batch;
  experts_ = experts;
}

// One expert after the other, each when it is there.
absl::Status ReferenceExperts::Finish(ExpertFeed* feed) {
  for (ExpertWork& work : experts_) {
    WaitUntil(feed, [&] {
      const Arrival* arrival = work.arrival.load(std::memory_order_acquire);
      return arrival != nullptr && arrival->gate_up_left.load(std::memory_order_acquire) == 0 &&
             arrival->down_left.load(std::memory_order_acquire) == 0;
    });
    if (work.arrival.load()->failed.load()) {
      for (const int32_t row : work.out_rows) {
        std::fill_n(batch_->out.Row<float>(row), batch_->out.cols(), 0.0f);
      }
    } else {
      Compute(&work);
    }
    work.done.store(true, std::memory_order_release);
    if (feed != nullptr) feed->Raise();
  }
  return absl::OkStatus();
}

void ReferenceExperts::Compute(ExpertWork* work) const {
  const ExpertWeights& w = work->weights;
  const int64_t width = w.gate.rows(), num_rows = static_cast<int64_t>(work->rows.size());
  std::vector<float> gate_row, up_row, row, hidden(static_cast<size_t>(num_rows * width));
  for (int64_t f = 0; f < width; ++f) {
    DecodeRow(w.gate, f, &gate_row);
    DecodeRow(w.up, f, &up_row);
    for (int64_t i = 0; i < num_rows; ++i) {
      const float* in = batch_->x.Row<float>(work->rows[i]);
      const float gate = Dot(gate_row.data(), in, w.gate.cols()) + BiasAt(w.gate_bias, f);
      const float up = Dot(up_row.data(), in, w.up.cols()) + BiasAt(w.up_bias, f);
      hidden[i * width + f] = Activate(batch_->activation, gate, up);
    }
  }
  for (int64_t d = 0; d < w.down.rows(); ++d) {
    DecodeRow(w.down, d, &row);
    for (int64_t i = 0; i < num_rows; ++i) {
      batch_->out.Row<float>(work->out_rows[i])[d] =
          Dot(row.data(), &hidden[i * width], width) + BiasAt(w.down_bias, d);
    }
  }
}

std::unique_ptr<Backend> MakeReferenceBackend() {
  auto backend = std::make_unique<Backend>();
  backend->name = "reference";
  backend->description = "reference: plain f32 loops, 1 thread";
  backend->device = std::make_unique<HostDevice>();
  backend->dense = MakeCheckedOps(std::make_unique<ReferenceOps>());
  backend->experts = std::make_unique<ReferenceExperts>();
  return backend;
}

}  // namespace thermocline
