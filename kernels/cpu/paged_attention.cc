#include "kernels/cpu/paged_attention.h"

#include <algorithm>

#include "kernels/check.h"

namespace thermocline {
namespace {

// Query heads of a generated token's task: several key/value heads together, whose rows lie next to
// each other. A large group (latent attention has one) is cut, so that all threads have work even
// for one token.
constexpr int64_t kHeadsPerTask = 16;
constexpr int64_t kTasksPerThread = 2;
// Queries of a tile, tokens times heads: enough to pay for converting the keys and values.
constexpr int64_t kTileQueries = 96;
static_assert(kTileQueries <= OneDnnAttention::kMaxQueries);

int64_t LastOf(const AttentionArgs& args, int64_t token) {
  return args.positions.Row<int32_t>(0)[token];
}

int64_t FirstOf(const AttentionArgs& args, int64_t token) {
  return args.window > 0 ? std::max<int64_t>(0, LastOf(args, token) - args.window + 1) : 0;
}

const int32_t* BlockTableOf(const AttentionArgs& args, int64_t token) {
  return args.block_tables.Row<int32_t>(args.seq_idx.Row<int32_t>(0)[token]);
}

// What both kernels want to know of the cache.
template <class Args>
void FillCache(const AttentionArgs& args, int64_t token, int64_t head, Args* a) {
  a->key_dim = args.q.cols();
  a->value_dim = args.out.cols();
  a->k_cache = static_cast<const uint8_t*>(args.k_cache.data);
  a->v_cache = static_cast<const uint8_t*>(args.v_cache.data);
  a->cache_dtype = args.k_cache.dtype;
  a->k_row_bytes = args.k_cache.row_bytes;
  a->v_row_bytes = args.v_cache.row_bytes;
  a->num_kv_heads = args.k_cache.shape[2];
  a->head = head / (args.q.shape[1] / args.k_cache.shape[2]);
  a->block_size = args.k_cache.shape[1];
  a->block_table = BlockTableOf(args, token);
  a->scale = args.scale;
}

// Room for `size` floats, aligned to a cache line.
float* Aligned(std::vector<float>* storage, int64_t size) {
  constexpr size_t kLineFloats = 16;
  const size_t wanted = static_cast<size_t>(size) + kLineFloats;
  if (storage->size() < wanted) storage->resize(wanted);
  const size_t past = reinterpret_cast<uintptr_t>(storage->data()) / sizeof(float) % kLineFloats;
  return storage->data() + (kLineFloats - past) % kLineFloats;
}

}  // namespace

PagedAttention::PagedAttention(const CpuKernels& kernels, const CpuKernelTable& table,
                               WorkerPool* pool)
    : kernels_(kernels),
      table_(table),
      pool_(pool),
      workers_(static_cast<size_t>(pool->num_threads())) {}

void PagedAttention::AddTasks(const AttentionArgs& args, int64_t first_token, int64_t num_tokens,
                              int64_t heads_per_task) {
  const int64_t num_heads = args.q.shape[1], group = num_heads / args.k_cache.shape[2];
  // Whole groups, or parts of one.
  const int64_t span = std::max(group, heads_per_task / group * group);
  for (int64_t first = 0; first < num_heads; first += span) {
    const int64_t end = std::min(num_heads, first + span);
    const int64_t step = heads_per_task < group ? heads_per_task : span;
    for (int64_t h = first; h < end; h += step) {
      tasks_.push_back({first_token, num_tokens, h, std::min(step, end - h)});
    }
  }
}

void PagedAttention::PlanTasks(const AttentionArgs& args) {
  tasks_.clear();
  const int64_t group = args.q.shape[1] / args.k_cache.shape[2];
  const int64_t tile_heads = std::min(group, kTileQueries);
  const int64_t tile_tokens = std::max<int64_t>(1, kTileQueries / tile_heads);
  // Few tokens: smaller tasks, so that all threads have some.
  const int64_t wanted = kTasksPerThread * pool_->num_threads();
  const int64_t parts = (wanted + args.q.shape[0] - 1) / args.q.shape[0];
  const int64_t heads = std::clamp<int64_t>(args.q.shape[1] / parts, 1, kHeadsPerTask);
  const int32_t* seq_idx = args.seq_idx.Row<int32_t>(0);
  // Last tokens first: they attend most, and the tail of a region should be short.
  for (int64_t end = args.q.shape[0]; end > 0;) {
    int64_t begin = end - 1;
    if (args.roles.Row<TokenRole>(0)[begin] == TokenRole::kGenerated) {
      AddTasks(args, begin, 1, heads);
    } else {
      const auto belongs = [&](int64_t n) {
        return seq_idx[n] == seq_idx[end - 1] &&
               args.roles.Row<TokenRole>(0)[n] == TokenRole::kPrompt;
      };
      while (begin > 0 && end - begin < tile_tokens && belongs(begin - 1)) --begin;
      AddTasks(args, begin, end - begin, tile_heads);
    }
    end = begin;
  }
}

void PagedAttention::AttendOne(const AttentionArgs& args, const Task& task, Worker* worker) const {
  const int64_t row = task.first_token * args.q.shape[1] + task.first_head;
  const int64_t group = args.q.shape[1] / args.k_cache.shape[2];
  AttendArgs a = {};
  FillCache(args, task.first_token, task.first_head, &a);
  a.q = args.q.Row<float>(row);
  a.group = static_cast<int>(std::min(group, task.num_heads));
  a.num_heads = static_cast<int>(task.num_heads) / a.group;
  a.first = FirstOf(args, task.first_token);
  a.last = LastOf(args, task.first_token);
  a.sinks = args.sinks.empty() ? nullptr : args.sinks.Row<float>(0) + task.first_head;
  a.scores = Aligned(&worker->scratch, task.num_heads * ((a.last - a.first + 1 + 15) / 16 * 16));
  a.out = args.out.Row<float>(row);
  kernels_.attend(&a);
}

void PagedAttention::AttendTile(const AttentionArgs& args, const Task& task, Worker* worker) const {
  worker->q.clear();
  worker->sinks.clear();
  worker->first.clear();
  worker->last.clear();
  worker->out.clear();
  for (int64_t n = task.first_token; n < task.first_token + task.num_tokens; ++n) {
    for (int64_t h = task.first_head; h < task.first_head + task.num_heads; ++h) {
      worker->q.push_back(args.q.Row<float>(n * args.q.shape[1] + h));
      worker->out.push_back(args.out.Row<float>(n * args.q.shape[1] + h));
      worker->first.push_back(FirstOf(args, n));
      worker->last.push_back(LastOf(args, n));
      if (!args.sinks.empty()) worker->sinks.push_back(args.sinks.Row<float>(0) + h);
    }
  }
  AttendTileArgs a = {};
  FillCache(args, task.first_token, task.first_head, &a);
  a.q = worker->q.data();
  a.num_queries = static_cast<int>(worker->q.size());
  a.first = worker->first.data();
  a.last = worker->last.data();
  a.sinks = args.sinks.empty() ? nullptr : worker->sinks.data();
  a.out = worker->out.data();
  const CpuKernel kernel = table_.Serving(KernelUse::kAttention, a.cache_dtype, TokenRole::kPrompt);
  // If the library refuses, ours rounds otherwise, but it is right.
  if (kernel == CpuKernel::kOneDnn && worker->onednn.Run(kernels_, a).ok()) return;
  a.scratch = Aligned(&worker->scratch,
                      kernels_.attend_tile_scratch(a.num_queries, a.key_dim, a.value_dim));
  kernels_.attend_tile(&a);
}

void PagedAttention::Run(const AttentionArgs& args) {
  PlanTasks(args);
  pool_->ParallelFor(static_cast<int64_t>(tasks_.size()), [&](int64_t i, int worker) {
    const Task& task = tasks_[static_cast<size_t>(i)];
    Worker* memory = &workers_[static_cast<size_t>(worker)];
    if (args.roles.Row<TokenRole>(0)[task.first_token] == TokenRole::kGenerated) {
      AttendOne(args, task, memory);
    } else {
      AttendTile(args, task, memory);
    }
  });
}

}  // namespace thermocline
