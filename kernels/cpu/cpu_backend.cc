#include "kernels/cpu/cpu_backend.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/topology.h"
#include "kernels/quant/blocks.h"

namespace thermocline {
namespace {

constexpr int64_t kRowsPerTask = 128;      // output rows of a matrix a task computes
constexpr int64_t kTasksPerThread = 2;     // at least, where the matrices allow it
constexpr int64_t kInlineElems = 1 << 14;  // elementwise work below this stays on the caller
constexpr int kMaxThreads = 1024;

}  // namespace

absl::StatusOr<std::unique_ptr<Backend>> CpuBackend::Create(const BackendOptions& options) {
  if (options.num_threads < 0 || options.num_threads > kMaxThreads) {
    return absl::InvalidArgumentError(absl::StrCat(
        "threads = ", options.num_threads, ", but 0 (all cores) to ", kMaxThreads, " are allowed"));
  }
  absl::StatusOr<const CpuKernels*> kernels = SelectKernels(options.isa);
  if (!kernels.ok()) return kernels.status();
  const int num_threads = options.num_threads > 0 ? options.num_threads : NumUsableCores();
  return std::unique_ptr<Backend>(new CpuBackend(**kernels, num_threads, options));
}

CpuBackend::CpuBackend(const CpuKernels& kernels, int num_threads, const BackendOptions& options)
    : kernels_(kernels),
      activations_(options.activations),
      use_onednn_(OneDnnMatMul::Available() && activations_ == Activations::kInt8 &&
                  options.onednn.value_or(OneDnnMatMul::IsFaster())),
      dot_(kernels, options.activations, options.kernel_table),
      pool_(num_threads, options.pin_threads && MayPin(num_threads)),
      expert_ffn_(kernels, dot_, &pool_),
      attention_(kernels, &pool_),
      workers_(static_cast<size_t>(num_threads)) {}

std::string CpuBackend::Describe() const {
  return absl::StrCat("cpu: ", kernels_.name, ", ", pool_.num_threads(), " threads, activations ",
                      activations_ == Activations::kF32 ? "f32" : "int8", " on quantised weights",
                      use_onednn_ ? ", bf16 prompts through oneDNN" : "");
}

void CpuBackend::ForRows(int64_t num_rows, int64_t cols, absl::FunctionRef<void(int64_t)> fn) {
  const int64_t rows_per_task = std::max<int64_t>(1, kInlineElems / cols);
  pool_.Run((num_rows + rows_per_task - 1) / rows_per_task, [&](int64_t task, int) {
    const int64_t end = std::min(num_rows, (task + 1) * rows_per_task);
    for (int64_t n = task * rows_per_task; n < end; ++n) fn(n);
  });
}

void CpuBackend::RmsNorm(const TensorView& x, const TensorView& weight, float eps,
                         const TensorView& out) {
  TC_CHECK(weight.cols() == x.cols() && out.cols() == x.cols() && out.rows() == x.rows());
  ForRows(x.rows(), x.cols(), [&](int64_t n) {
    kernels_.rms_norm(x.Row<float>(n), weight.Row<float>(0), eps, x.cols(), out.Row<float>(n));
  });
}

void CpuBackend::LayerNorm(const TensorView& x, const TensorView& weight, const TensorView& bias,
                           float eps, const TensorView& out) {
  TC_CHECK(out.rows() == x.rows());
  ForRows(x.rows(), x.cols(), [&](int64_t n) {
    const TensorView in = MakeView(x.Row<float>(n), DType::kF32, {1, x.cols()});
    ReferenceBackend::LayerNorm(in, weight, bias, eps,
                                MakeView(out.Row<float>(n), DType::kF32, {1, out.cols()}));
  });
}

void CpuBackend::SiluMul(const TensorView& gate, const TensorView& up, const TensorView& out) {
  ForRows(gate.rows(), gate.cols(), [&](int64_t n) {
    kernels_.silu_mul(gate.Row<float>(n), up.Row<float>(n), gate.cols(), out.Row<float>(n));
  });
}

void CpuBackend::MarkFaults(const TensorView& x, float limit, int32_t code,
                            const TensorView& faults) {
  const int64_t num_tokens = faults.num_elems();
  TC_CHECK(num_tokens > 0 && x.rows() % num_tokens == 0 && code != 0);
  const int64_t rows_per_token = x.rows() / num_tokens;
  // A look at an element costs a fraction of what ForRows counts.
  ForRows(num_tokens, std::max<int64_t>(1, rows_per_token * x.cols() / 8), [&](int64_t n) {
    int32_t& fault = faults.Row<int32_t>(0)[n];
    for (int64_t r = n * rows_per_token; r < (n + 1) * rows_per_token && fault == 0; ++r) {
      // Written so that NaN is a fault.
      if (!(kernels_.largest_magnitude(x.Row<float>(r), x.cols()) < limit)) fault = code;
    }
  });
}

void CpuBackend::CausalConv(const TensorView& x, const TensorView& weight, bool silu,
                            const StateArgs& state) {
  constexpr int64_t kChannelsPerTask = 256;
  TC_CHECK(weight.rows() == x.cols() && state.state.cols() == (weight.cols() - 1) * x.cols());
  const int64_t num_chunks = (x.cols() + kChannelsPerTask - 1) / kChannelsPerTask;
  pool_.Run(state.slots.num_elems() * num_chunks, [&](int64_t task, int) {
    const int64_t first = task % num_chunks * kChannelsPerTask;
    ConvChannels(x, weight, silu, state, task / num_chunks, first,
                 std::min(x.cols(), first + kChannelsPerTask));
  });
}

void CpuBackend::GatedDeltaRule(const DeltaRuleArgs& args) {
  const int64_t heads = args.v.shape[1];
  pool_.Run(args.state.slots.num_elems() * heads,
            [&](int64_t task, int) { DeltaRuleHead(args, task / heads, task % heads); });
}

void CpuBackend::CombineExperts(const TensorView& expert_out, const TensorView& weights,
                                float scale, const TensorView& acc) {
  const int64_t top_k = weights.cols();
  TC_CHECK(expert_out.rows() == acc.rows() * top_k);
  const auto combine = [&](int64_t n, int worker) {
    std::vector<float>& sum = workers_[static_cast<size_t>(worker)].result;
    sum.assign(static_cast<size_t>(acc.cols()), 0.0f);
    for (int64_t j = 0; j < top_k; ++j) {
      kernels_.axpy(expert_out.Row<float>(n * top_k + j), weights.Row<float>(n)[j], acc.cols(),
                    sum.data());
    }
    kernels_.axpy(sum.data(), scale, acc.cols(), acc.Row<float>(n));
  };
  pool_.Run(acc.rows(), combine);
}

void CpuBackend::UpdateRopeTable(const TensorView& positions, const RopeArgs& args) {
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
  ForRows(positions.num_elems(), 32 * args.inv_freq.cols(), [&](int64_t row) {
    const size_t r = static_cast<size_t>(row);
    for (size_t i = 0; i < half; ++i) {
      const float angle = static_cast<float>(position[r]) * inv_freq[i];
      rope_.cosine[r * half + i] = std::cos(angle) * args.scale;
      rope_.sine[r * half + i] = std::sin(angle) * args.scale;
    }
  });
}

void CpuBackend::Rope(const TensorView& x, const TensorView& positions, const RopeArgs& args) {
  const int64_t heads = x.shape[1], half = args.inv_freq.cols();
  TC_CHECK(x.rank == 3 && x.shape[0] == positions.num_elems() && 2 * half <= x.shape[2]);
  UpdateRopeTable(positions, args);
  ForRows(x.shape[0], heads * x.shape[2], [&](int64_t n) {
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

void CpuBackend::StoreKv(const TensorView& k, const TensorView& v, const TensorView& slots,
                         const TensorView& k_cache, const TensorView& v_cache) {
  const int64_t heads = k.shape[1], num_slots = k_cache.shape[0] * k_cache.shape[1];
  const auto store = [&](const TensorView& x, const TensorView& cache, int64_t n) {
    const auto encode = kernels_.encode_row[static_cast<int>(cache.dtype)];
    TC_CHECK(cache.shape[2] == heads && x.shape[1] == heads && cache.shape[3] == x.cols() &&
             encode != nullptr);
    const int64_t slot = slots.Row<int32_t>(0)[n];
    TC_CHECK(slot >= 0 && slot < num_slots);
    for (int64_t h = 0; h < heads; ++h) {
      encode(x.Row<float>(n * heads + h), x.cols(), cache.Row<char>(slot * heads + h));
    }
  };
  ForRows(k.shape[0], heads * k.cols(), [&](int64_t n) {
    store(k, k_cache, n);
    if (!v.empty()) store(v, v_cache, n);
  });
}

void CpuBackend::RouteTopK(const TensorView& logits, const RouteArgs& args, const TensorView& ids,
                           const TensorView& weights) {
  // Choosing costs several passes over the logits.
  ForRows(logits.rows(), 8 * logits.cols(), [&](int64_t n) {
    const auto row = [n](const TensorView& view) {
      TensorView one = view;
      one.data = view.Row<void>(n);
      one.shape[0] = 1;
      return one;
    };
    ReferenceBackend::RouteTopK(row(logits), args, row(ids), row(weights));
  });
}

void CpuBackend::EmbedTokens(const TensorView& table, const TensorView& token_ids, float scale,
                             const TensorView& out) {
  TC_CHECK(out.rows() == token_ids.num_elems());
  ForRows(out.rows(), 16 * out.cols(), [&](int64_t n) {
    TensorView row = out;
    row.data = out.Row<void>(n);
    row.shape[0] = 1;
    const TensorView id = MakeView(token_ids.Row<int32_t>(0) + n, DType::kI32, {1});
    ReferenceBackend::EmbedTokens(table, id, scale, row);
  });
}

void CpuBackend::Attention(const AttentionArgs& args) { attention_.Run(args); }

void CpuBackend::QuantizeRows(const TensorView& x, const FormsNeeded& needed) {
  if (!needed.small && !needed.super) return;
  if (needed.small) small_.Reset(ActivationForm::kSmallInt8, x.rows(), x.cols());
  if (needed.super) super_.Reset(ActivationForm::kSuperInt8, x.rows(), x.cols());
  ForRows(x.rows(), x.cols(), [&](int64_t n) {
    if (needed.small) small_.Fill(kernels_, n, x.Row<float>(n));
    if (needed.super) super_.Fill(kernels_, n, x.Row<float>(n));
  });
}

void CpuBackend::AddToken(const TensorView& x, int64_t n, const FormsNeeded& needed,
                          TokenRows* tokens) const {
  tokens->f32.push_back(x.Row<float>(n));
  if (needed.small) tokens->small.push_back(small_.row(n));
  if (needed.super) tokens->super.push_back(super_.row(n));
}

void CpuBackend::MatMul(const TensorView& x, absl::Span<const TokenRole> roles,
                        absl::Span<const Projection> projections) {
  TC_CHECK(static_cast<int64_t>(roles.size()) == x.rows());
  FormsNeeded needed;
  for (const Projection& p : projections) {
    TC_CHECK(p.weight.cols() == x.cols() && p.out.cols() == p.weight.rows() &&
             p.out.rows() == x.rows());
    dot_.Note(p.weight, &needed);
  }
  QuantizeRows(x, needed);
  std::vector<int32_t> prompt_rows, generated_rows, all_rows;
  TokenRows all, generated;
  for (int32_t n = 0; n < x.rows(); ++n) {
    all_rows.push_back(n);
    AddToken(x, n, needed, &all);
    if (roles[n] == TokenRole::kPrompt) {
      prompt_rows.push_back(n);
    } else {
      generated_rows.push_back(n);
      AddToken(x, n, needed, &generated);
    }
  }
  if (use_onednn_) RunOneDnn(x, prompt_rows, projections);

  // What oneDNN does not serve: all rows of other weights, the generated tokens of its own.
  struct Task {
    const Projection* projection;
    bool all;
    int64_t first, last;
  };
  std::vector<Task> tasks;
  int64_t num_rows = 0;
  for (const Projection& p : projections) num_rows += p.weight.rows();
  // Small matrices in smaller pieces, so that all threads have some.
  const int64_t share = num_rows / (kTasksPerThread * pool_.num_threads());
  const int64_t rows_per_task =
      std::clamp<int64_t>(share / kPanelRows * kPanelRows, kPanelRows, kRowsPerTask);
  for (const Projection& p : projections) {
    const bool served = use_onednn_ && OneDnnMatMul::CanServe(p.weight);
    if (served && generated_rows.empty()) continue;
    for (int64_t r = 0; r < p.weight.rows(); r += rows_per_task) {
      tasks.push_back({&p, !served, r, std::min(p.weight.rows(), r + rows_per_task)});
    }
  }
  pool_.Run(static_cast<int64_t>(tasks.size()), [&](int64_t i, int worker_idx) {
    const Task& task = tasks[static_cast<size_t>(i)];
    Worker& worker = workers_[static_cast<size_t>(worker_idx)];
    worker.out.clear();
    for (int32_t n : task.all ? all_rows : generated_rows) {
      worker.out.push_back(task.projection->out.Row<float>(n) + task.first);
    }
    // Threads take turns, mostly.
    const size_t follower = static_cast<size_t>(i + pool_.num_threads());
    const uint8_t* next = nullptr;
    if (follower < tasks.size()) {
      next = PanelOf(tasks[follower].projection->weight, tasks[follower].first);
    }
    dot_.Run(task.projection->weight, task.projection->bias, task.first, task.last,
             task.all ? all : generated, next, worker.out.data(), &worker.scratch);
  });
}

void CpuBackend::HeadMatMul(const TensorView& x, absl::Span<const TokenRole> roles,
                            const TensorView& weight, const TensorView& out) {
  const int64_t heads = x.shape[1], rows_per_head = out.cols();
  TC_CHECK(x.rank == 3 && out.rank == 3 && out.shape[0] == x.shape[0] && out.shape[1] == heads &&
           weight.cols() == x.cols() && weight.rows() == heads * rows_per_head &&
           static_cast<int64_t>(roles.size()) == x.shape[0]);
  FormsNeeded needed;
  dot_.Note(weight, &needed);
  QuantizeRows(x, needed);
  const int64_t chunks = (rows_per_head + kRowsPerTask - 1) / kRowsPerTask;
  pool_.Run(heads * chunks, [&](int64_t task, int worker_idx) {
    Worker& worker = workers_[static_cast<size_t>(worker_idx)];
    const int64_t h = task / chunks, first = task % chunks * kRowsPerTask;
    const int64_t last = std::min(rows_per_head, first + kRowsPerTask);
    TokenRows tokens;
    worker.out.clear();
    for (int64_t n = 0; n < x.shape[0]; ++n) {
      AddToken(x, n * heads + h, needed, &tokens);
      worker.out.push_back(out.Row<float>(n * heads + h) + first);
    }
    dot_.Run(weight, {}, h * rows_per_head + first, h * rows_per_head + last, tokens, nullptr,
             worker.out.data(), &worker.scratch);
  });
}

void CpuBackend::RunOneDnn(const TensorView& x, absl::Span<const int32_t> prompt_rows,
                           absl::Span<const Projection> projections) {
  constexpr int64_t kPanel = OneDnnMatMul::kTokensPerCall, kChunk = OneDnnMatMul::kMaxWeightRows;
  const int64_t num_prompt = static_cast<int64_t>(prompt_rows.size());
  const int64_t num_panels = (num_prompt + kPanel - 1) / kPanel;
  for (const Projection& p : projections) {
    if (num_prompt == 0 || !OneDnnMatMul::CanServe(p.weight)) continue;
    const int64_t num_chunks = (p.weight.rows() + kChunk - 1) / kChunk;
    pool_.Run(num_panels * num_chunks, [&](int64_t task, int worker_idx) {
      Worker& worker = workers_[static_cast<size_t>(worker_idx)];
      const int64_t panel = task / num_chunks, first = task % num_chunks * kChunk;
      const int64_t num_rows = std::min(kChunk, p.weight.rows() - first);
      const int64_t begin = panel * kPanel, count = std::min(kPanel, num_prompt - begin);
      worker.panel.assign(static_cast<size_t>(kPanel * x.cols()), 0.0f);
      worker.result.resize(static_cast<size_t>(kPanel * num_rows));
      for (int64_t i = 0; i < count; ++i) {
        std::memcpy(&worker.panel[static_cast<size_t>(i * x.cols())],
                    x.Row<float>(prompt_rows[begin + i]),
                    static_cast<size_t>(x.cols()) * sizeof(float));
      }
      const absl::Status ran =
          worker.onednn.Run(p.weight, first, num_rows, worker.panel.data(), worker.result.data());
      if (!ran.ok()) {  // ours rounds otherwise, but it is right
        TokenRows tokens;
        worker.out.clear();
        for (int32_t n :
             prompt_rows.subspan(static_cast<size_t>(begin), static_cast<size_t>(count))) {
          tokens.f32.push_back(x.Row<float>(n));
          worker.out.push_back(p.out.Row<float>(n) + first);
        }
        dot_.Run(p.weight, p.bias, first, first + num_rows, tokens, nullptr, worker.out.data(),
                 &worker.scratch);
        return;
      }
      for (int64_t i = 0; i < count; ++i) {
        float* out = p.out.Row<float>(prompt_rows[begin + i]) + first;
        std::memcpy(out, &worker.result[static_cast<size_t>(i * num_rows)],
                    static_cast<size_t>(num_rows) * sizeof(float));
        if (!p.bias.empty()) kernels_.axpy(p.bias.Row<float>(0) + first, 1.0f, num_rows, out);
      }
    });
  }
}

void CpuBackend::ExpertFfn(const TensorView& x, absl::Span<const ExpertWork> experts,
                           Activation activation, const TensorView& out) {
  FormsNeeded needed;
  for (const ExpertWork& e : experts) {
    dot_.Note(e.gate, &needed);
    dot_.Note(e.up, &needed);
  }
  QuantizeRows(x, needed);
  expert_ffn_.Run({.experts = experts,
                   .activation = activation,
                   .x = x,
                   .out = out,
                   .small = needed.small ? &small_ : nullptr,
                   .super = needed.super ? &super_ : nullptr});
}

}  // namespace thermocline
