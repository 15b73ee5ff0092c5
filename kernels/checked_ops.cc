#include "kernels/checked_ops.h"

#include <utility>

#include "kernels/check.h"

namespace thermocline {
namespace {

bool Is(const TensorView& view, DType dtype) {
  return view.dtype == dtype && view.layout == Layout::kRows;
}
bool IsF32(const TensorView& view) { return Is(view, DType::kF32); }

// The same number of rows and columns, both f32.
bool Alike(const TensorView& a, const TensorView& b) {
  return IsF32(a) && IsF32(b) && a.rows() == b.rows() && a.cols() == b.cols();
}

// One i32 for each of n tokens.
bool IsPerToken(const TensorView& view, int64_t n) {
  return Is(view, DType::kI32) && view.num_elems() == n;
}

bool IsVector(const TensorView& view, int64_t n) { return IsF32(view) && view.num_elems() == n; }

bool IsVectorOrEmpty(const TensorView& view, int64_t n) {
  return view.empty() || IsVector(view, n);
}

// A paged cache for rows of [heads, dim].
bool IsCache(const TensorView& cache, int64_t dim) {
  return cache.rank == 4 && cache.layout == Layout::kRows && cache.cols() == dim;
}

void CheckState(const StateArgs& args, int64_t num_tokens, int64_t elems) {
  TC_CHECK(IsF32(args.state) && args.state.cols() == elems);
  TC_CHECK(Is(args.slots, DType::kI32) && Is(args.cu_seqlens, DType::kI32) &&
           args.cu_seqlens.num_elems() == args.slots.num_elems() + 1);
  TC_CHECK(IsPerToken(args.positions, num_tokens));
}

class CheckedOps : public DenseOps {
 public:
  explicit CheckedOps(std::unique_ptr<DenseOps> inner) : inner_(std::move(inner)) {}

  void EmbedTokens(const TensorView& table, const TensorView& token_ids, float scale,
                   const TensorView& out) override {
    TC_CHECK(IsF32(out) && out.cols() == table.cols() && IsPerToken(token_ids, out.rows()));
    inner_->EmbedTokens(table, token_ids, scale, out);
  }
  void RmsNorm(const TensorView& x, const TensorView& weight, float eps,
               const TensorView& out) override {
    TC_CHECK(Alike(x, out) && IsVector(weight, x.cols()));
    inner_->RmsNorm(x, weight, eps, out);
  }
  void LayerNorm(const TensorView& x, const TensorView& weight, const TensorView& bias, float eps,
                 const TensorView& out) override {
    TC_CHECK(Alike(x, out) && IsVector(weight, x.cols()) && IsVector(bias, x.cols()));
    inner_->LayerNorm(x, weight, bias, eps, out);
  }
  void MatMul(const TensorView& x, const TensorView& roles,
              absl::Span<const Projection> projections) override {
    TC_CHECK(IsF32(x) && IsPerToken(roles, x.rows()));
    for (const Projection& p : projections) {
      TC_CHECK(p.weight.cols() == x.cols() && IsF32(p.out) && p.out.cols() == p.weight.rows() &&
               p.out.rows() == x.rows() && IsVectorOrEmpty(p.bias, p.weight.rows()));
    }
    inner_->MatMul(x, roles, projections);
  }
  void HeadMatMul(const TensorView& x, const TensorView& roles, const TensorView& weight,
                  const TensorView& out) override {
    TC_CHECK(x.rank == 3 && IsF32(x) && out.rank == 3 && IsF32(out));
    TC_CHECK(out.shape[0] == x.shape[0] && out.shape[1] == x.shape[1] && weight.cols() == x.cols());
    TC_CHECK(weight.rows() == x.shape[1] * out.cols() && IsPerToken(roles, x.shape[0]));
    inner_->HeadMatMul(x, roles, weight, out);
  }
  void Rope(const TensorView& x, const TensorView& positions, const RopeArgs& args) override {
    TC_CHECK(x.rank == 3 && IsF32(x) && IsPerToken(positions, x.shape[0]));
    TC_CHECK(IsF32(args.inv_freq) && 2 * args.inv_freq.cols() <= x.shape[2]);
    inner_->Rope(x, positions, args);
  }
  void StoreKv(const TensorView& k, const TensorView& v, const TensorView& slots,
               const TensorView& k_cache, const TensorView& v_cache) override {
    const auto fits = [&](const TensorView& x, const TensorView& cache) {
      return x.rank == 3 && IsF32(x) && x.shape[0] == k.shape[0] && IsCache(cache, x.cols()) &&
             cache.shape[2] == x.shape[1];
    };
    TC_CHECK(fits(k, k_cache) && (v.empty() || fits(v, v_cache)));
    TC_CHECK(IsPerToken(slots, k.shape[0]));
    inner_->StoreKv(k, v, slots, k_cache, v_cache);
  }
  void Attention(const AttentionArgs& args) override {
    const TensorView &q = args.q, &out = args.out;
    TC_CHECK(q.rank == 3 && IsF32(q) && out.rank == 3 && IsF32(out));
    TC_CHECK(out.shape[0] == q.shape[0] && out.shape[1] == q.shape[1]);
    TC_CHECK(IsCache(args.k_cache, q.cols()) && IsCache(args.v_cache, out.cols()) &&
             args.k_cache.dtype == args.v_cache.dtype && q.shape[1] % args.k_cache.shape[2] == 0);
    TC_CHECK(IsPerToken(args.roles, q.shape[0]) && IsPerToken(args.seq_idx, q.shape[0]) &&
             IsPerToken(args.positions, q.shape[0]) && Is(args.block_tables, DType::kI32));
    TC_CHECK(IsVectorOrEmpty(args.sinks, q.shape[1]));
    inner_->Attention(args);
  }
  void RouteTopK(const TensorView& logits, const RouteArgs& args, const TensorView& ids,
                 const TensorView& weights) override {
    TC_CHECK(args.top_k >= 1 && args.top_k <= logits.cols() && IsF32(logits));
    TC_CHECK(Is(ids, DType::kI32) && ids.cols() == args.top_k && ids.rows() == logits.rows());
    TC_CHECK(IsF32(weights) && weights.cols() == args.top_k && weights.rows() == logits.rows());
    TC_CHECK(IsVectorOrEmpty(args.bias, logits.cols()));
    inner_->RouteTopK(logits, args, ids, weights);
  }
  void IdentityExperts(const TensorView& x, const TensorView& ids, int num_experts,
                       const TensorView& out) override {
    TC_CHECK(IsF32(x) && Is(ids, DType::kI32) && ids.rows() == x.rows());
    TC_CHECK(IsF32(out) && out.rows() == ids.num_elems() && out.cols() == x.cols());
    inner_->IdentityExperts(x, ids, num_experts, out);
  }
  void CombineExperts(const TensorView& expert_out, const TensorView& weights, float scale,
                      const TensorView& acc) override {
    TC_CHECK(IsF32(expert_out) && IsF32(weights) && IsF32(acc));
    TC_CHECK(weights.rows() == acc.rows() && expert_out.cols() == acc.cols() &&
             expert_out.rows() == acc.rows() * weights.cols());
    inner_->CombineExperts(expert_out, weights, scale, acc);
  }
  void SiluMul(const TensorView& gate, const TensorView& up, const TensorView& out) override {
    TC_CHECK(Alike(gate, up) && Alike(gate, out));
    inner_->SiluMul(gate, up, out);
  }
  void Multiply(const TensorView& a, const TensorView& b, const TensorView& out) override {
    TC_CHECK(Alike(a, b) && Alike(a, out));
    inner_->Multiply(a, b, out);
  }
  void SigmoidMul(const TensorView& gate, const TensorView& x) override {
    TC_CHECK(IsF32(gate) && IsF32(x) && gate.rows() == x.rows() &&
             (gate.cols() == x.cols() || gate.cols() == 1));
    inner_->SigmoidMul(gate, x);
  }
  void CopyHeads(const TensorView& x, const TensorView& out) override {
    TC_CHECK(x.rank == 3 && IsF32(x) && out.rank == 3 && IsF32(out) && x.shape[0] == out.shape[0]);
    TC_CHECK(x.cols() == out.cols() && (x.shape[1] == out.shape[1] || x.shape[1] == 1));
    inner_->CopyHeads(x, out);
  }
  void CausalConv(const TensorView& x, const TensorView& weight, bool silu,
                  const StateArgs& state) override {
    TC_CHECK(IsF32(x) && IsF32(weight) && weight.rows() == x.cols());
    CheckState(state, x.rows(), (weight.cols() - 1) * x.cols());
    inner_->CausalConv(x, weight, silu, state);
  }
  void GatedDeltaRule(const DeltaRuleArgs& args) override {
    const int64_t n = args.v.shape[0], heads = args.v.shape[1], dim = args.v.cols();
    TC_CHECK(args.v.rank == 3 && args.k.rank == 3 && IsF32(args.q) && IsF32(args.k) &&
             IsF32(args.v));
    TC_CHECK(args.q.shape == args.k.shape && args.k.shape[0] == n && heads % args.k.shape[1] == 0);
    TC_CHECK(args.beta.rows() == n && args.beta.cols() == heads && args.a.rows() == n &&
             args.a.cols() == heads);
    TC_CHECK(IsVector(args.a_scale, heads) && IsVector(args.dt_bias, heads));
    TC_CHECK(IsF32(args.out) && args.out.shape == args.v.shape);
    CheckState(args.state, n, heads * args.k.cols() * dim);
    inner_->GatedDeltaRule(args);
  }
  void AddScaled(const TensorView& x, float scale, const TensorView& acc) override {
    TC_CHECK(Alike(x, acc));
    inner_->AddScaled(x, scale, acc);
  }
  void Fill(const TensorView& x, float value) override {
    TC_CHECK(IsF32(x));
    inner_->Fill(x, value);
  }
  void Scale(const TensorView& x, float scale) override {
    TC_CHECK(IsF32(x));
    inner_->Scale(x, scale);
  }
  void Clamp(const TensorView& x, float limit) override {
    TC_CHECK(IsF32(x));
    inner_->Clamp(x, limit);
  }
  void MarkFaults(const TensorView& x, float limit, int32_t code,
                  const TensorView& faults) override {
    TC_CHECK(IsF32(x) && Is(faults, DType::kI32) && faults.num_elems() > 0 && code != 0 &&
             x.rows() % faults.num_elems() == 0);
    inner_->MarkFaults(x, limit, code, faults);
  }
  void GatherRows(const TensorView& x, const TensorView& rows, const TensorView& out) override {
    TC_CHECK(IsF32(x) && IsF32(out) && Is(rows, DType::kI32) && out.cols() == x.cols() &&
             out.rows() == rows.num_elems());
    inner_->GatherRows(x, rows, out);
  }
  void ScatterRows(const TensorView& x, const TensorView& rows, const TensorView& out) override {
    TC_CHECK(IsF32(x) && IsF32(out) && Is(rows, DType::kI32) && out.cols() == x.cols() &&
             x.rows() == rows.num_elems());
    inner_->ScatterRows(x, rows, out);
  }

 private:
  std::unique_ptr<DenseOps> inner_;
};

}  // namespace

std::unique_ptr<DenseOps> MakeCheckedOps(std::unique_ptr<DenseOps> inner) {
  return std::make_unique<CheckedOps>(std::move(inner));
}

}  // namespace thermocline
