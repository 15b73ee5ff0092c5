#include "kernels/cpu/cpu_backend.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "kernels/cpu/isa.h"
#include "kernels/quant/blocks.h"

namespace thermocline {
namespace {

constexpr int64_t kRowsPerTask = 32;       // output rows of a matrix a task computes
constexpr int64_t kInlineElems = 1 << 14;  // elementwise work below this stays on the caller
constexpr int64_t kMaxHeadsPerTask = 16;   // of attention over one token
constexpr int kMaxThreads = 1024;

int NumUsableCores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return 1;
  return std::max(1, CPU_COUNT(&set));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Backend>> CpuBackend::Create(const BackendOptions& options) {
  if (options.num_threads < 0 || options.num_threads > kMaxThreads) {
    return absl::InvalidArgumentError(absl::StrCat(
        "threads = ", options.num_threads, ", but 0 (all cores) to ", kMaxThreads, " are allowed"));
  }
  absl::StatusOr<const CpuKernels*> kernels = SelectKernels(options.isa);
  if (!kernels.ok()) return kernels.status();
  const int num_threads = options.num_threads > 0 ? options.num_threads : NumUsableCores();
  return std::unique_ptr<Backend>(new CpuBackend(**kernels, num_threads, options.activations));
}

CpuBackend::CpuBackend(const CpuKernels& kernels, int num_threads, Activations activations)
    : kernels_(kernels),
      activations_(activations),
      pool_(num_threads),
      workers_(static_cast<size_t>(num_threads)) {}

std::string CpuBackend::Describe() const {
  return absl::StrCat("cpu: ", kernels_.name, ", ", pool_.num_threads(), " threads, activations ",
                      activations_ == Activations::kF32 ? "f32" : "int8", " on quantised weights, ",
                      OneDnnMatMul::Available() ? "oneDNN" : "no oneDNN");
}

ActivationForm CpuBackend::FormFor(const TensorView& weight) const {
  const int block_elems = GetFormat(weight.dtype).block_elems;
  if (activations_ == Activations::kF32 || block_elems == 1) return ActivationForm::kF32;
  return block_elems == kSuperBlockElems ? ActivationForm::kSuperInt8 : ActivationForm::kSmallInt8;
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

void CpuBackend::Rope(const TensorView& x, const TensorView& positions, const RopeArgs& args) {
  // The same arithmetic as the reference, with the tokens spread over the threads.
  TC_CHECK(x.rank == 3 && x.shape[0] == positions.num_elems());
  pool_.Run(x.shape[0], [&](int64_t n, int) {
    TensorView token = x;
    token.data = x.Row<float>(n * x.shape[1]);
    token.shape[0] = 1;
    const TensorView position = MakeView(positions.Row<int32_t>(0) + n, DType::kI32, {1});
    ReferenceBackend::Rope(token, position, args);
  });
}

void CpuBackend::Attention(const AttentionArgs& args) {
  const int64_t num_heads = args.q.shape[1];
  const int64_t num_kv_heads = args.k_cache.shape[2], group = num_heads / num_kv_heads;
  TC_CHECK(num_heads % num_kv_heads == 0 && args.k_cache.cols() == args.q.cols() &&
           args.v_cache.cols() == args.out.cols());
  // Heads that share keys go together; a large group (latent attention has one) is cut, so that all
  // threads have work even for one token.
  const int64_t chunk = std::min(group, kMaxHeadsPerTask);
  const int64_t chunks = (group + chunk - 1) / chunk, tasks_per_token = num_kv_heads * chunks;
  pool_.Run(args.q.shape[0] * tasks_per_token, [&](int64_t task, int worker) {
    // Last tokens first: they attend most, and the tail of a region should be short.
    const int64_t n = args.q.shape[0] - 1 - task / tasks_per_token;
    const int64_t kv_head = task % tasks_per_token / chunks;
    const int64_t first_head = kv_head * group + task % chunks * chunk;
    const int64_t num_queries = std::min(chunk, (kv_head + 1) * group - first_head);
    const int64_t last = args.positions.Row<int32_t>(0)[n];
    const int64_t first = args.window > 0 ? std::max<int64_t>(0, last - args.window + 1) : 0;
    const int64_t stride = (last - first + 1 + 15) / 16 * 16;
    std::vector<float>& scores = workers_[static_cast<size_t>(worker)].scores;
    if (static_cast<int64_t>(scores.size()) < num_queries * stride)
      scores.resize(num_queries * stride);
    AttendArgs a = {};
    a.q = args.q.Row<float>(n * num_heads + first_head);
    a.num_queries = static_cast<int>(num_queries);
    a.key_dim = args.q.cols();
    a.value_dim = args.out.cols();
    a.k_cache = static_cast<const uint8_t*>(args.k_cache.data);
    a.v_cache = static_cast<const uint8_t*>(args.v_cache.data);
    a.cache_dtype = args.k_cache.dtype;
    a.k_row_bytes = args.k_cache.row_bytes;
    a.v_row_bytes = args.v_cache.row_bytes;
    a.num_kv_heads = num_kv_heads;
    a.head = kv_head;
    a.block_size = args.k_cache.shape[1];
    a.block_table = args.block_tables.Row<int32_t>(args.seq_idx.Row<int32_t>(0)[n]);
    a.first = first;
    a.last = last;
    a.sinks = args.sinks.empty() ? nullptr : args.sinks.Row<float>(0) + first_head;
    a.scale = args.scale;
    a.scores = scores.data();
    a.out = args.out.Row<float>(n * num_heads + first_head);
    kernels_.attend(&a);
  });
}

void CpuBackend::QuantizeRows(const TensorView& x, bool need_small, bool need_super) {
  if (!need_small && !need_super) return;
  if (need_small) small_.Reset(ActivationForm::kSmallInt8, x.rows(), x.cols());
  if (need_super) super_.Reset(ActivationForm::kSuperInt8, x.rows(), x.cols());
  const auto quantize = [&](int64_t n, int) {
    if (need_small) small_.Fill(kernels_, n, x.Row<float>(n));
    if (need_super) super_.Fill(kernels_, n, x.Row<float>(n));
  };
  if (x.num_elems() < kInlineElems) {
    for (int64_t n = 0; n < x.rows(); ++n) quantize(n, 0);
  } else {
    pool_.Run(x.rows(), quantize);
  }
}

void CpuBackend::DotRows(const TensorView& weight, int64_t first_row, int64_t last_row,
                         const Inputs& inputs, float* const* out, Worker* worker) const {
  const int num_tokens = static_cast<int>(inputs.f32.size());
  const int dtype = static_cast<int>(weight.dtype);
  const ActivationForm form = FormFor(weight);
  if (form != ActivationForm::kF32) {
    const QuantizedRow* rows =
        form == ActivationForm::kSmallInt8 ? inputs.small.data() : inputs.super.data();
    kernels_.dot_int8[dtype](weight.Row<const uint8_t>(first_row), weight.row_bytes,
                             static_cast<int>(last_row - first_row), weight.cols(), rows,
                             num_tokens, out);
    return;
  }
  worker->decoded.resize(static_cast<size_t>(weight.cols()));
  worker->out.assign(out, out + num_tokens);
  for (int64_t r = first_row; r < last_row; ++r) {
    const float* row = weight.Row<const float>(r);
    if (weight.dtype != DType::kF32) {
      kernels_.decode_row[dtype](weight.Row<const uint8_t>(r), weight.cols(),
                                 worker->decoded.data());
      row = worker->decoded.data();
    }
    kernels_.dot_f32(row, weight.cols(), inputs.f32.data(), num_tokens, worker->out.data());
    for (float*& slot : worker->out) ++slot;
  }
}

void CpuBackend::AddBias(const TensorView& bias, int64_t first, int64_t count,
                         absl::Span<float* const> rows) const {
  if (bias.empty()) return;
  for (float* row : rows) kernels_.axpy(bias.Row<float>(0) + first, 1.0f, count, row);
}

void CpuBackend::MatMul(const TensorView& x, absl::Span<const TokenRole> roles,
                        absl::Span<const Projection> projections) {
  TC_CHECK(static_cast<int64_t>(roles.size()) == x.rows());
  std::vector<int32_t> prompt_rows, generated_rows, all_rows;
  for (int32_t n = 0; n < x.rows(); ++n) {
    (roles[n] == TokenRole::kPrompt ? prompt_rows : generated_rows).push_back(n);
    all_rows.push_back(n);
  }
  bool need_small = false, need_super = false;
  int64_t num_chunks = 0;
  for (const Projection& p : projections) {
    TC_CHECK(p.weight.cols() == x.cols() && p.out.cols() == p.weight.rows() &&
             p.out.rows() == x.rows());
    need_small |= FormFor(p.weight) == ActivationForm::kSmallInt8;
    need_super |= FormFor(p.weight) == ActivationForm::kSuperInt8;
    num_chunks += (p.weight.rows() + kRowsPerTask - 1) / kRowsPerTask;
  }
  QuantizeRows(x, need_small, need_super);
  RunOneDnn(x, prompt_rows, projections);

  // What oneDNN does not serve: all rows of other weights, the generated tokens of its own.
  const auto gather = [&](const std::vector<int32_t>& rows) {
    Inputs inputs;
    for (int32_t n : rows) {
      inputs.f32.push_back(x.Row<float>(n));
      if (need_small) inputs.small.push_back(small_.row(n));
      if (need_super) inputs.super.push_back(super_.row(n));
    }
    return inputs;
  };
  const Inputs all = gather(all_rows), generated = gather(generated_rows);
  pool_.Run(num_chunks, [&](int64_t task, int worker) {
    size_t i = 0;
    int64_t chunk = task;
    for (;; ++i) {
      const int64_t chunks = (projections[i].weight.rows() + kRowsPerTask - 1) / kRowsPerTask;
      if (chunk < chunks) break;
      chunk -= chunks;
    }
    const Projection& p = projections[i];
    const bool shared = OneDnnMatMul::Serves(p.weight, activations_);
    const std::vector<int32_t>& rows = shared ? generated_rows : all_rows;
    if (rows.empty()) return;
    const int64_t first = chunk * kRowsPerTask;
    const int64_t last = std::min(p.weight.rows(), first + kRowsPerTask);
    std::vector<float*> out;
    out.reserve(rows.size());
    for (int32_t n : rows) out.push_back(p.out.Row<float>(n) + first);
    DotRows(p.weight, first, last, shared ? generated : all, out.data(),
            &workers_[static_cast<size_t>(worker)]);
    AddBias(p.bias, first, last - first, out);
  });
}

void CpuBackend::HeadMatMul(const TensorView& x, absl::Span<const TokenRole> roles,
                            const TensorView& weight, const TensorView& out) {
  const int64_t heads = x.shape[1], rows_per_head = out.cols();
  TC_CHECK(x.rank == 3 && out.rank == 3 && out.shape[0] == x.shape[0] && out.shape[1] == heads &&
           weight.cols() == x.cols() && weight.rows() == heads * rows_per_head &&
           static_cast<int64_t>(roles.size()) == x.shape[0]);
  const bool need_small = FormFor(weight) == ActivationForm::kSmallInt8;
  const bool need_super = FormFor(weight) == ActivationForm::kSuperInt8;
  QuantizeRows(x, need_small, need_super);
  const int64_t chunks = (rows_per_head + kRowsPerTask - 1) / kRowsPerTask;
  pool_.Run(heads * chunks, [&](int64_t task, int worker) {
    const int64_t h = task / chunks, first = task % chunks * kRowsPerTask;
    const int64_t last = std::min(rows_per_head, first + kRowsPerTask);
    Inputs inputs;
    std::vector<float*> rows;
    for (int64_t n = 0; n < x.shape[0]; ++n) {
      const int64_t row = n * heads + h;
      inputs.f32.push_back(x.Row<float>(row));
      if (need_small) inputs.small.push_back(small_.row(row));
      if (need_super) inputs.super.push_back(super_.row(row));
      rows.push_back(out.Row<float>(row) + first);
    }
    DotRows(weight, h * rows_per_head + first, h * rows_per_head + last, inputs, rows.data(),
            &workers_[static_cast<size_t>(worker)]);
  });
}

void CpuBackend::RunOneDnn(const TensorView& x, absl::Span<const int32_t> prompt_rows,
                           absl::Span<const Projection> projections) {
  constexpr int64_t kPanel = OneDnnMatMul::kPanelRows, kChunk = OneDnnMatMul::kMaxWeightRows;
  const int64_t num_prompt = static_cast<int64_t>(prompt_rows.size());
  const int64_t num_panels = (num_prompt + kPanel - 1) / kPanel;
  for (const Projection& p : projections) {
    if (num_prompt == 0 || !OneDnnMatMul::Serves(p.weight, activations_)) continue;
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
      worker.onednn.Run(p.weight, first, num_rows, worker.panel.data(), worker.result.data());
      for (int64_t i = 0; i < count; ++i) {
        float* out = p.out.Row<float>(prompt_rows[begin + i]) + first;
        std::memcpy(out, &worker.result[static_cast<size_t>(i * num_rows)],
                    static_cast<size_t>(num_rows) * sizeof(float));
        if (!p.bias.empty()) kernels_.axpy(p.bias.Row<float>(0) + first, 1.0f, num_rows, out);
      }
    });
  }
}

// ---- experts: one parallel region for the whole layer ----

// Tokens of expert e are pairs [first_pair[e], first_pair[e + 1]). `pending` counts its gate/up
// tasks still to finish; when it reaches zero the hidden activations are quantised and the expert's
// down tasks may run.
struct CpuBackend::MoeState {
  Activation activation = Activation::kSilu;
  std::vector<int64_t> first_pair;
  int64_t width = 0;
  std::vector<Inputs> inputs;
  std::vector<Inputs> hidden;
  std::unique_ptr<std::atomic<int>[]> pending;
  std::unique_ptr<std::atomic<bool>[]> ready;
};

void CpuBackend::GateUpTask(const ExpertWork& expert, int64_t first_row, int64_t last_row,
                            int expert_idx, MoeState* moe, Worker* worker) {
  const int64_t num_pairs = static_cast<int64_t>(expert.rows.size());
  const int64_t base = moe->first_pair[expert_idx];
  std::vector<float*> gate, up;
  for (int64_t i = 0; i < num_pairs; ++i) {
    gate.push_back(&gate_out_[static_cast<size_t>((base + i) * moe->width + first_row)]);
    up.push_back(&up_out_[static_cast<size_t>((base + i) * moe->width + first_row)]);
  }
  DotRows(expert.gate, first_row, last_row, moe->inputs[expert_idx], gate.data(), worker);
  DotRows(expert.up, first_row, last_row, moe->inputs[expert_idx], up.data(), worker);
  const int64_t count = last_row - first_row;
  AddBias(expert.gate_bias, first_row, count, gate);
  AddBias(expert.up_bias, first_row, count, up);
  const auto activate =
      moe->activation == Activation::kSwigluOai ? kernels_.swiglu_oai : kernels_.silu_mul;
  for (int64_t i = 0; i < num_pairs; ++i) activate(gate[i], up[i], count, gate[i]);
  // acq_rel: the last one sees what the others wrote.
  if (moe->pending[expert_idx].fetch_sub(1, std::memory_order_acq_rel) != 1) return;
  const ActivationForm form = FormFor(expert.down);
  for (int64_t i = 0; i < num_pairs && form != ActivationForm::kF32; ++i) {
    QuantizedActivations& hidden =
        form == ActivationForm::kSmallInt8 ? hidden_small_ : hidden_super_;
    hidden.Fill(kernels_, base + i, &gate_out_[static_cast<size_t>((base + i) * moe->width)]);
  }
  moe->ready[expert_idx].store(true, std::memory_order_release);
}

void CpuBackend::DownTask(const ExpertWork& expert, int64_t first_row, int64_t last_row,
                          int expert_idx, const TensorView& out, MoeState* moe, Worker* worker) {
  // Tasks are handed out in order, so every gate/up task is done or running: this wait is short.
  while (!moe->ready[expert_idx].load(std::memory_order_acquire)) std::this_thread::yield();
  std::vector<float*> rows;
  for (int32_t slot : expert.slots) rows.push_back(out.Row<float>(slot) + first_row);
  DotRows(expert.down, first_row, last_row, moe->hidden[expert_idx], rows.data(), worker);
  AddBias(expert.down_bias, first_row, last_row - first_row, rows);
}

void CpuBackend::ExpertFfn(const TensorView& x, absl::Span<const ExpertWork> experts,
                           Activation activation, const TensorView& out) {
  if (experts.empty()) return;
  const size_t num_experts = experts.size();
  MoeState moe;
  moe.activation = activation;
  moe.width = experts[0].gate.rows();
  moe.inputs.resize(num_experts);
  moe.hidden.resize(num_experts);
  moe.pending = std::make_unique<std::atomic<int>[]>(num_experts);
  moe.ready = std::make_unique<std::atomic<bool>[]>(num_experts);
  bool need_small = false, need_super = false, down_small = false, down_super = false;
  int64_t num_pairs = 0;
  for (const ExpertWork& e : experts) {
    TC_CHECK(e.gate.rows() == moe.width && e.up.rows() == moe.width && e.down.cols() == moe.width &&
             e.rows.size() == e.slots.size());
    moe.first_pair.push_back(num_pairs);
    num_pairs += static_cast<int64_t>(e.rows.size());
    for (const TensorView* w : {&e.gate, &e.up}) {
      need_small |= FormFor(*w) == ActivationForm::kSmallInt8;
      need_super |= FormFor(*w) == ActivationForm::kSuperInt8;
    }
    down_small |= FormFor(e.down) == ActivationForm::kSmallInt8;
    down_super |= FormFor(e.down) == ActivationForm::kSuperInt8;
  }
  QuantizeRows(x, need_small, need_super);
  const size_t hidden_elems = static_cast<size_t>(num_pairs * moe.width);
  if (gate_out_.size() < hidden_elems) gate_out_.resize(hidden_elems);
  if (up_out_.size() < hidden_elems) up_out_.resize(hidden_elems);
  if (down_small) hidden_small_.Reset(ActivationForm::kSmallInt8, num_pairs, moe.width);
  if (down_super) hidden_super_.Reset(ActivationForm::kSuperInt8, num_pairs, moe.width);

  struct Task {
    int expert_idx;
    bool down;
    int64_t first_row, last_row;
  };
  std::vector<Task> tasks;
  const auto add_tasks = [&](int e, bool down, int64_t num_rows) {
    int count = 0;
    for (int64_t r = 0; r < num_rows; r += kRowsPerTask, ++count) {
      tasks.push_back({e, down, r, std::min(num_rows, r + kRowsPerTask)});
    }
    return count;
  };
  for (size_t e = 0; e < num_experts; ++e) {
    for (size_t i = 0; i < experts[e].rows.size(); ++i) {
      const int32_t n = experts[e].rows[i];
      const int64_t pair = moe.first_pair[e] + static_cast<int64_t>(i);
      moe.inputs[e].f32.push_back(x.Row<float>(n));
      if (need_small) moe.inputs[e].small.push_back(small_.row(n));
      if (need_super) moe.inputs[e].super.push_back(super_.row(n));
      moe.hidden[e].f32.push_back(&gate_out_[static_cast<size_t>(pair * moe.width)]);
      if (down_small) moe.hidden[e].small.push_back(hidden_small_.row(pair));
      if (down_super) moe.hidden[e].super.push_back(hidden_super_.row(pair));
    }
    moe.ready[e].store(false, std::memory_order_relaxed);
    moe.pending[e].store(add_tasks(static_cast<int>(e), false, moe.width),
                         std::memory_order_relaxed);
  }
  for (size_t e = 0; e < num_experts; ++e) {
    add_tasks(static_cast<int>(e), true, experts[e].down.rows());
  }
  pool_.Run(static_cast<int64_t>(tasks.size()), [&](int64_t i, int worker_idx) {
    const Task& task = tasks[static_cast<size_t>(i)];
    const ExpertWork& expert = experts[static_cast<size_t>(task.expert_idx)];
    Worker* worker = &workers_[static_cast<size_t>(worker_idx)];
    if (task.down) {
      DownTask(expert, task.first_row, task.last_row, task.expert_idx, out, &moe, worker);
    } else {
      GateUpTask(expert, task.first_row, task.last_row, task.expert_idx, &moe, worker);
    }
  });
}

}  // namespace thermocline
