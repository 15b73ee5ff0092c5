// Our own kernels against oneDNN's, in turns: what kernels/cpu/cpu_kernel_table.cc says of them.
// onednn_bench [THREADS]. Prints milliseconds of both and how fast oneDNN is, as a share of ours.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <random>
#include <string>

#include "kernels/cpu/topology.h"
#include "kernels/quant/registry.h"
#include "tests/support/packed_weight.h"
#include "tests/support/test_backend.h"

namespace thermocline {
namespace {

constexpr int64_t kTokens = 512, kHidden = 2048;

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

class Comparison {
 public:
  explicit Comparison(int num_threads) {
    for (const bool onednn : {false, true}) {
      BackendOptions options;
      options.onednn = onednn;
      backends_[onednn] = MakeTestBackend("cpu", num_threads, options);
    }
  }

  void Run(const std::string& what, const std::function<void(Backend*)>& once) {
    std::vector<double> ms[2];
    for (int round = 0; round < 9; ++round) {
      for (const bool onednn : {false, true}) {
        const auto start = std::chrono::steady_clock::now();
        once(backends_[onednn].get());
        const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
        if (round > 0) ms[onednn].push_back(seconds.count() * 1e3);
      }
    }
    const double ours = Median(ms[false]), theirs = Median(ms[true]);
    std::printf("%-32s %8.2f ms, oneDNN %8.2f ms: %.2f\n", what.c_str(), ours, theirs,
                ours / theirs);
  }

 private:
  std::unique_ptr<Backend> backends_[2];
};

void Products(Comparison* comparison, std::mt19937* random) {
  std::vector<float> x = RandomFloats(kTokens * kHidden, random), out(x.size());
  const PackedWeight weight(DType::kBF16, kHidden, kHidden, random);
  const std::vector<TokenRole> roles(kTokens, TokenRole::kPrompt);
  const Projection p = {weight.view, {}, MakeView(out.data(), DType::kF32, {kTokens, kHidden})};
  comparison->Run("products, bf16", [&](Backend* backend) {
    backend->dense->MatMul(MakeView(x.data(), DType::kF32, {kTokens, kHidden}), RolesView(roles),
                           {&p, 1});
  });
}

// Each token goes to eight experts of 64, drawn evenly.
void Experts(Comparison* comparison, std::mt19937* random) {
  constexpr int64_t kWidth = 1024, kExperts = 64, kTopK = 8;
  std::vector<float> x = RandomFloats(kTokens * kHidden, random),
                     out(static_cast<size_t>(kTokens * kTopK * kHidden));
  std::vector<PackedWeight> weights;
  std::vector<ExpertJob> jobs(kExperts);
  weights.reserve(3 * kExperts);
  for (ExpertJob& job : jobs) {
    for (TensorView* view : {&job.weights.gate, &job.weights.up, &job.weights.down}) {
      const bool down = view == &job.weights.down;
      weights.emplace_back(DType::kBF16, down ? kHidden : kWidth, down ? kWidth : kHidden, random);
      *view = weights.back().view;
    }
  }
  for (int32_t n = 0; n < kTokens; ++n) {
    for (int32_t k = 0; k < kTopK; ++k) {
      ExpertJob& job = jobs[(*random)() % kExperts];
      job.rows.push_back(n);
      job.out_rows.push_back(n * static_cast<int32_t>(kTopK) + k);
    }
  }
  comparison->Run("experts, bf16", [&](Backend* backend) {
    RunExperts(backend, MakeView(x.data(), DType::kF32, {kTokens, kHidden}), jobs,
               Activation::kSilu, MakeView(out.data(), DType::kF32, {kTokens * kTopK, kHidden}),
               std::vector<TokenRole>(kTokens, TokenRole::kPrompt));
  });
}

// The last kTokens of a prompt of kContext.
void Attention(Comparison* comparison, DType dtype, std::mt19937* random) {
  constexpr int64_t kHeads = 16, kDim = 128, kBlockSize = 16, kContext = 2048,
                    kBlocks = kContext / kBlockSize;
  std::vector<float> q = RandomFloats(kTokens * kHeads * kDim, random), out(q.size());
  const std::vector<float> rows = RandomFloats(kContext * kHeads * kDim, random);
  const TensorView shape = MakeView(nullptr, dtype, {kBlocks, kBlockSize, kHeads, kDim});
  std::vector<char> keys(static_cast<size_t>(shape.bytes())), values(keys.size());
  const std::vector<TokenRole> roles(kTokens, TokenRole::kPrompt);
  std::vector<int32_t> slots, tables, seq(kTokens, 0), positions;
  for (int32_t i = 0; i < kContext; ++i) slots.push_back(i);
  for (int32_t i = 0; i < kBlocks; ++i) tables.push_back(i);
  for (int32_t i = 0; i < kTokens; ++i) positions.push_back(int32_t{kContext - kTokens} + i);
  AttentionArgs args = {};
  args.q = MakeView(q.data(), DType::kF32, {kTokens, kHeads, kDim});
  args.roles = RolesView(roles);
  args.k_cache = shape;
  args.k_cache.data = keys.data();
  args.v_cache = shape;
  args.v_cache.data = values.data();
  args.block_tables = MakeView(tables.data(), DType::kI32, {1, kBlocks});
  args.seq_idx = MakeView(seq.data(), DType::kI32, {kTokens});
  args.positions = MakeView(positions.data(), DType::kI32, {kTokens});
  args.scale = 0.09f;
  args.out = MakeView(out.data(), DType::kF32, {kTokens, kHeads, kDim});
  const TensorView stored =
      MakeView(const_cast<float*>(rows.data()), DType::kF32, {kContext, kHeads, kDim});
  MakeTestBackend("cpu")->dense->StoreKv(
      stored, stored, MakeView(slots.data(), DType::kI32, {kContext}), args.k_cache, args.v_cache);
  comparison->Run("attention, " + std::string(GetFormat(dtype).name) + " cache",
                  [&](Backend* backend) { backend->dense->Attention(args); });
}

}  // namespace
}  // namespace thermocline

int main(int argc, char** argv) {
  using namespace thermocline;
  std::mt19937 random(1);
  Comparison comparison(argc > 1 ? std::atoi(argv[1]) : NumUsableCores());
  Products(&comparison, &random);
  Experts(&comparison, &random);
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16, DType::kQ8_0}) {
    Attention(&comparison, dtype, &random);
  }
}
