#include "kernels/cpu/cpu_ops.h"

#include <algorithm>
#include <atomic>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "kernels/checked_ops.h"
#include "kernels/cpu/cpu_experts.h"
#include "kernels/cpu/isa.h"
#include "kernels/host_device.h"
#include "kernels/quant/blocks.h"
#include "kernels/reference/row_ops.h"

namespace thermocline {
namespace {

constexpr int64_t kRowsPerTask = 128;   // output rows of a matrix a task computes
constexpr int64_t kTasksPerThread = 2;  // at least, where the matrices allow it

}  // namespace

CpuOps::CpuOps(const CpuKernels& kernels, const CpuKernelTable& table, const WeightDot& dot,
               WorkerPool* pool)
    : kernels_(kernels),
      dot_(dot),
      pool_(pool),
      attention_(kernels, table, pool),
      workers_(static_cast<size_t>(pool->num_threads())) {}

void CpuOps::RmsNorm(const TensorView& x, const TensorView& weight, float eps,
                     const TensorView& out) {
  pool_->ForRows(x.rows(), x.cols(), [&](int64_t n) {
    kernels_.rms_norm(x.Row<float>(n), weight.Row<float>(0), eps, x.cols(), out.Row<float>(n));
  });
}

void CpuOps::LayerNorm(const TensorView& x, const TensorView& weight, const TensorView& bias,
                       float eps, const TensorView& out) {
  pool_->ForRows(x.rows(), x.cols(),
                 [&](int64_t n) { LayerNormRow(x, weight, bias, eps, out, n); });
}

void CpuOps::RouteTopK(const TensorView& logits, const RouteArgs& args, const TensorView& ids,
                       const TensorView& weights) {
  // Choosing costs several passes over the logits.
  pool_->ForRows(logits.rows(), 8 * logits.cols(),
                 [&](int64_t n) { RouteRow(logits, args, ids, weights, n); });
}

void CpuOps::EmbedTokens(const TensorView& table, const TensorView& token_ids, float scale,
                         const TensorView& out) {
  pool_->ForRows(out.rows(), 16 * out.cols(),
                 [&](int64_t n) { EmbedRow(table, token_ids, scale, out, n); });
}

void CpuOps::IdentityExperts(const TensorView& x, const TensorView& ids, int num_experts,
                             const TensorView& out) {
  pool_->ForRows(out.rows(), out.cols(),
                 [&](int64_t r) { IdentityRow(x, ids, num_experts, out, r); });
}

void CpuOps::Multiply(const TensorView& a, const TensorView& b, const TensorView& out) {
  pool_->ForRows(out.rows(), out.cols(), [&](int64_t n) { MultiplyRow(a, b, out, n); });
}

void CpuOps::SigmoidMul(const TensorView& gate, const TensorView& x) {
  // An exponential costs tens of simple operations.
  pool_->ForRows(x.rows(), 16 * x.cols(), [&](int64_t n) { SigmoidMulRow(gate, x, n); });
}

void CpuOps::CopyHeads(const TensorView& x, const TensorView& out) {
  pool_->ForRows(out.rows(), out.cols(), [&](int64_t r) { CopyHeadRow(x, out, r); });
}

void CpuOps::AddScaled(const TensorView& x, float scale, const TensorView& acc) {
  pool_->ForRows(x.rows(), x.cols(), [&](int64_t n) { AddScaledRow(x, scale, acc, n); });
}

void CpuOps::Fill(const TensorView& x, float value) {
  for (int64_t n = 0; n < x.rows(); ++n) std::fill_n(x.Row<float>(n), x.cols(), value);
}

void CpuOps::Scale(const TensorView& x, float scale) {
  pool_->ForRows(x.rows(), x.cols(), [&](int64_t n) { ScaleRow(x, scale, n); });
}

void CpuOps::Clamp(const TensorView& x, float limit) {
  pool_->ForRows(x.rows(), x.cols(), [&](int64_t n) { ClampRow(x, limit, n); });
}

void CpuOps::ScatterRows(const TensorView& x, const TensorView& rows, const TensorView& out) {
  pool_->ForRows(x.rows(), x.cols(), [&](int64_t i) { ScatterRow(x, rows, out, i); });
}

void CpuOps::GatherRows(const TensorView& x, const TensorView& rows, const TensorView& out) {
  pool_->ForRows(out.rows(), out.cols(), [&](int64_t i) { GatherRow(x, rows, out, i); });
}

void CpuOps::SiluMul(const TensorView& gate, const TensorView& up, const TensorView& out) {
  pool_->ForRows(gate.rows(), gate.cols(), [&](int64_t n) {
    kernels_.silu_mul(gate.Row<float>(n), up.Row<float>(n), gate.cols(), out.Row<float>(n));
  });
}

void CpuOps::MarkFaults(const TensorView& x, float limit, int32_t code, const TensorView& faults) {
  const int64_t num_tokens = faults.num_elems();
  const int64_t rows_per_token = x.rows() / num_tokens;
  // A look at an element costs a fraction of what ForRows counts.
  pool_->ForRows(num_tokens, std::max<int64_t>(1, rows_per_token * x.cols() / 8), [&](int64_t n) {
    int32_t& fault = faults.Row<int32_t>(0)[n];
    for (int64_t r = n * rows_per_token; r < (n + 1) * rows_per_token && fault == 0; ++r) {
      // Written so that NaN is a fault.
      if (!(kernels_.largest_magnitude(x.Row<float>(r), x.cols()) < limit)) fault = code;
    }
  });
}

void CpuOps::CausalConv(const TensorView& x, const TensorView& weight, bool silu,
                        const StateArgs& state) {
  constexpr int64_t kChannelsPerTask = 256;
  const int64_t num_chunks = (x.cols() + kChannelsPerTask - 1) / kChannelsPerTask;
  pool_->ParallelFor(state.slots.num_elems() * num_chunks, [&](int64_t task, int) {
    const int64_t first = task % num_chunks * kChannelsPerTask;
    ConvChannels(x, weight, silu, state, task / num_chunks, first,
                 std::min(x.cols(), first + kChannelsPerTask));
  });
}

void CpuOps::GatedDeltaRule(const DeltaRuleArgs& args) {
  const int64_t heads = args.v.shape[1];
  pool_->ParallelFor(args.state.slots.num_elems() * heads,
                     [&](int64_t task, int) { DeltaRuleHead(args, task / heads, task % heads); });
}

void CpuOps::CombineExperts(const TensorView& expert_out, const TensorView& weights, float scale,
                            const TensorView& acc) {
  const int64_t top_k = weights.cols();
  const auto combine = [&](int64_t n, int worker) {
    std::vector<float>& sum = workers_[static_cast<size_t>(worker)].sum;
    sum.assign(static_cast<size_t>(acc.cols()), 0.0f);
    for (int64_t j = 0; j < top_k; ++j) {
      kernels_.axpy(expert_out.Row<float>(n * top_k + j), weights.Row<float>(n)[j], acc.cols(),
                    sum.data());
    }
    kernels_.axpy(sum.data(), scale, acc.cols(), acc.Row<float>(n));
  };
  pool_->ParallelFor(acc.rows(), combine);
}

void CpuOps::UpdateRopeTable(const TensorView& positions, const RopeArgs& args) {
  const int32_t* position = positions.Row<int32_t>(0);
  const float* inv_freq = args.inv_freq.Row<float>(0);
  const size_t n = static_cast<size_t>(positions.num_elems()),
               half = static_cast<size_t>(args.inv_freq.cols());
  if (rope_.scale == args.scale && rope_.positions.size() == n && rope_.inv_freq.size() == half &&
      std::equal(rope_.positions.begin(), rope_.positions.end(), position) &&
      std::equal(rope_.inv_freq.begin(), rope_.inv_freq.end(), inv_freq)) {
    return;
  }
  rope_.positions.assign(position, position + n);
  rope_.inv_freq.assign(inv_freq, inv_freq + half);
  rope_.scale = args.scale;
  rope_.cosine.resize(n * half);
  rope_.sine.resize(n * half);
  // A sine costs tens of the elements that ForRows counts.
  pool_->ForRows(positions.num_elems(), 32 * args.inv_freq.cols(), [&](int64_t row) {
    const size_t r = static_cast<size_t>(row);
    for (size_t i = 0; i < half; ++i) {
      const float angle = static_cast<float>(position[r]) * inv_freq[i];
      rope_.cosine[r * half + i] = std::cos(angle) * args.scale;
      rope_.sine[r * half + i] = std::sin(angle) * args.scale;
    }
  });
}

void CpuOps::Rope(const TensorView& x, const TensorView& positions, const RopeArgs& args) {
  const int64_t heads = x.shape[1], half = args.inv_freq.cols();
  UpdateRopeTable(positions, args);
  pool_->ForRows(x.shape[0], heads * x.shape[2], [&](int64_t n) {
    const float* cosine = &rope_.cosine[static_cast<size_t>(n * half)];
    const float* sine = &rope_.sine[static_cast<size_t>(n * half)];
    for (int64_t h = 0; h < heads; ++h) {
      float* head = x.Row<float>(n * heads + h);
      const int64_t step = args.interleaved ? 2 : 1, pair = args.interleaved ? 1 : half;
      for (int64_t i = 0; i < half; ++i) {
        float &a = head[step * i], &b = head[step * i + pair];
        const float first = a, second = b;
        a = first * cosine[i] - second * sine[i];
        b = second * cosine[i] + first * sine[i];
      }
    }
  });
}

void CpuOps::StoreKv(const TensorView& k, const TensorView& v, const TensorView& slots,
                     const TensorView& k_cache, const TensorView& v_cache) {
  const int64_t heads = k.shape[1], num_slots = k_cache.shape[0] * k_cache.shape[1];
  const auto store = [&](const TensorView& x, const TensorView& cache, int64_t n) {
    const auto encode = kernels_.encode_row[static_cast<int>(cache.dtype)];
    TC_CHECK(encode != nullptr);
    const int64_t slot = slots.Row<int32_t>(0)[n];
    TC_CHECK(slot >= 0 && slot < num_slots);
    for (int64_t h = 0; h < heads; ++h) {
      encode(x.Row<float>(n * heads + h), x.cols(), cache.Row<char>(slot * heads + h));
    }
  };
  pool_->ForRows(k.shape[0], heads * k.cols(), [&](int64_t n) {
    store(k, k_cache, n);
    if (!v.empty()) store(v, v_cache, n);
  });
}

void CpuOps::Attention(const AttentionArgs& args) { attention_.Run(args); }

void CpuOps::RoundRows(const TensorView& x, const Forms& needed) {
  rounded_.Reset(needed, x.rows(), x.cols());
  if (!needed.any()) return;
  pool_->ForRows(x.rows(), x.cols(),
                 [&](int64_t n) { rounded_.Fill(kernels_, n, x.Row<float>(n)); });
}

CpuOps::Group CpuOps::MakeGroup(const TensorView& x, TokenRole role,
                                absl::Span<const int32_t> rows) const {
  Group group = {role, {rows.begin(), rows.end()}, {}};
  for (const int32_t n : rows) rounded_.AppendTo(n, x.Row<float>(n), &group.tokens);
  return group;
}

void CpuOps::MatMul(const TensorView& x, const TensorView& roles,
                    absl::Span<const Projection> projections) {
  Forms needed;
  bool by_role = false;
  int64_t num_rows = 0;
  for (const Projection& p : projections) {
    dot_.Note(p.weight, &needed);
    by_role |= dot_.RolesDiffer(p.weight);
    num_rows += p.weight.rows();
  }
  RoundRows(x, needed);
  std::vector<int32_t> all, of_role[2];
  for (int32_t n = 0; n < x.rows(); ++n) {
    all.push_back(n);
    if (by_role) of_role[static_cast<size_t>(roles.Row<TokenRole>(0)[n])].push_back(n);
  }
  // Where roles differ: the generated tokens, and the prompt's in pieces, which are tasks of their
  // own.
  const Group everybody = MakeGroup(x, TokenRole::kGenerated, all);
  std::vector<Group> groups;
  for (const TokenRole role : {TokenRole::kPrompt, TokenRole::kGenerated}) {
    const absl::Span<const int32_t> rows = of_role[static_cast<size_t>(role)];
    const size_t piece =
        role == TokenRole::kPrompt ? size_t{OneDnnMatMul::kTokensPerCall} : rows.size();
    for (size_t i = 0; i < rows.size(); i += piece) {
      groups.push_back(MakeGroup(x, role, rows.subspan(i, piece)));
    }
  }

  struct Task {
    const Projection* projection;
    const Group* group;
    int64_t first, last;
  };
  std::vector<Task> tasks;
  const auto add_tasks = [&](const Projection& p, const Group& group, int64_t rows_per_task) {
    for (int64_t r = 0; r < p.weight.rows(); r += rows_per_task) {
      tasks.push_back({&p, &group, r, std::min(p.weight.rows(), r + rows_per_task)});
    }
  };
  // Small matrices in smaller pieces, so that all threads have some.
  const int64_t share = num_rows / (kTasksPerThread * pool_->num_threads());
  const int64_t rows_per_task =
      std::clamp<int64_t>(share / kPanelRows * kPanelRows, kPanelRows, kRowsPerTask);
  for (const Projection& p : projections) {
    if (!dot_.RolesDiffer(p.weight)) {
      add_tasks(p, everybody, rows_per_task);
      continue;
    }
    for (const Group& group : groups) {
      const bool prompt = group.role == TokenRole::kPrompt;
      add_tasks(p, group, prompt ? OneDnnMatMul::kMaxWeightRows : rows_per_task);
    }
  }
  pool_->ParallelFor(static_cast<int64_t>(tasks.size()), [&](int64_t i, int worker_idx) {
    const Task& task = tasks[static_cast<size_t>(i)];
    Worker& worker = workers_[static_cast<size_t>(worker_idx)];
    worker.out.clear();
    for (int32_t n : task.group->rows) {
      worker.out.push_back(task.projection->out.Row<float>(n) + task.first);
    }
    // Threads take turns, mostly.
    const size_t follower = static_cast<size_t>(i + pool_->num_threads());
    const uint8_t* next = nullptr;
    if (follower < tasks.size()) {
      next = PanelOf(tasks[follower].projection->weight, tasks[follower].first);
    }
    dot_.Run(task.projection->weight, task.projection->bias, task.first, task.last,
             task.group->role, task.group->tokens, next, worker.out.data(), &worker.scratch);
  });
}

// Both roles by the generated tokens' kernel.
void CpuOps::HeadMatMul(const TensorView& x, const TensorView& /*roles*/, const TensorView& weight,
                        const TensorView& out) {
  const int64_t heads = x.shape[1], rows_per_head = out.cols();
  Forms needed;
  dot_.Note(weight, &needed);
  RoundRows(x, needed);
  const int64_t chunks = (rows_per_head + kRowsPerTask - 1) / kRowsPerTask;
  pool_->ParallelFor(heads * chunks, [&](int64_t task, int worker_idx) {
    Worker& worker = workers_[static_cast<size_t>(worker_idx)];
    const int64_t h = task / chunks, first = task % chunks * kRowsPerTask;
    const int64_t last = std::min(rows_per_head, first + kRowsPerTask);
    TokenRows tokens;
    worker.out.clear();
    for (int64_t n = 0; n < x.shape[0]; ++n) {
      const int64_t row = n * heads + h;
      rounded_.AppendTo(row, x.Row<float>(row), &tokens);
      worker.out.push_back(out.Row<float>(row) + first);
    }
    dot_.Run(weight, {}, h * rows_per_head + first, h * rows_per_head + last, TokenRole::kGenerated,
             tokens, nullptr, worker.out.data(), &worker.scratch);
  });
}

absl::StatusOr<std::unique_ptr<Backend>> MakeCpuBackend(WorkerPool* pool,
                                                        const BackendOptions& options) {
  absl::StatusOr<const CpuKernels*> kernels = SelectKernels(options.isa);
  if (!kernels.ok()) return kernels.status();
  const CpuKernelTable table(options.activations, options.onednn);
  const WeightDot products(**kernels, table, KernelUse::kProduct, options.calibration),
      experts(**kernels, table, KernelUse::kExperts, options.calibration);
  auto backend = std::make_unique<Backend>();
  backend->name = "cpu";
  backend->description = absl::StrCat(
      "cpu: ", (*kernels)->name, ", ", pool->num_threads(), " threads, activations ",
      options.activations == Activations::kF32 ? "f32" : "int8", " on quantised weights");
  backend->device = std::make_unique<HostDevice>();
  backend->dense = MakeCheckedOps(std::make_unique<CpuOps>(**kernels, table, products, pool));
  backend->experts = std::make_unique<CpuExperts>(**kernels, experts, pool);
  backend->kernels = table.Rows();
  const Forms forms = {.small = true, .super = true, .bfloat16 = table.uses_onednn()};
  const int num_threads = pool->num_threads();
  backend->workspace_bytes = [forms, num_threads](const StepSizes& sizes) {
    return RoundedBytes(forms, sizes.product_elems) + 2 * BytesOf(DType::kF32, sizes.rope_elems) +
           CpuExperts::WorkspaceBytes(sizes, forms, num_threads);
  };
  return backend;
}

}  // namespace thermocline
