// Backend's promise that NaN and infinity are kept: operation by operation, on the reference and on
// every instruction set of the CPU backend. One element of one token's input becomes NaN, +infinity
// or -infinity; the token's result must hold NaN or infinity, all other tokens' the same bits as
// before.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <random>

#include "absl/strings/str_cat.h"
#include "kernels/backend.h"
#include "kernels/cpu/isa.h"
#include "tests/support/packed_weight.h"
#include "tests/support/test_backend.h"

namespace thermocline {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr int64_t kTokens = 5;

// [tokens, cols] with one row a token.
using Rows = std::vector<float>;

struct Op {
  std::string name;
  // Columns a token of each input that may hold the value.
  std::vector<int64_t> inputs;
  int64_t out_cols;
  // Computes the result rows of all tokens.
  std::function<Rows(Backend*, std::vector<Rows>)> run;
  // The tokens from the changed one on depend on it (attention), not only it.
  bool later_tokens_too = false;
};

std::vector<std::string> BackendNames() {
  std::vector<std::string> names = {"reference"};
  for (const std::string& isa : AvailableIsaLevels()) names.push_back(isa);
  return names;
}

std::unique_ptr<Backend> Make(const std::string& name, Activations activations) {
  BackendOptions options;
  options.activations = activations;
  if (name != "reference") options.isa = name;
  return MakeTestBackend(name == "reference" ? "reference" : "cpu", 2, options);
}

TensorView View(Rows& rows, std::initializer_list<int64_t> shape) {
  return MakeView(rows.data(), DType::kF32, shape);
}

TensorView Ints(std::vector<int32_t>& values) {
  return MakeView(values.data(), DType::kI32, {static_cast<int64_t>(values.size())});
}

Op Elementwise(std::string name, int num_inputs, int64_t cols,
               std::function<void(Backend*, std::vector<TensorView>)> call, int result) {
  Op op{std::move(name), std::vector<int64_t>(static_cast<size_t>(num_inputs), cols), cols, {}};
  op.run = [=](Backend* backend, std::vector<Rows> in) {
    std::vector<TensorView> views;
    for (Rows& rows : in) views.push_back(View(rows, {kTokens, cols}));
    call(backend, views);
    return in[static_cast<size_t>(result)];
  };
  return op;
}

void AddElementwise(std::vector<Op>* ops) {
  constexpr int64_t kCols = 37;  // no whole vectors
  static Rows weight(kCols, 0.5f), bias(kCols, 0.25f);
  const auto vector = [](Rows& v) { return View(v, {kCols}); };
  using V = std::vector<TensorView>;
  ops->push_back(Elementwise(
      "RmsNorm", 1, kCols,
      [=](Backend* b, V v) { b->dense->RmsNorm(v[0], vector(weight), 1e-6f, v[0]); }, 0));
  ops->push_back(Elementwise(
      "LayerNorm", 1, kCols,
      [=](Backend* b, V v) {
        b->dense->LayerNorm(v[0], vector(weight), vector(bias), 1e-6f, v[0]);
      },
      0));
  ops->push_back(Elementwise(
      "SiluMul", 2, kCols, [](Backend* b, V v) { b->dense->SiluMul(v[0], v[1], v[0]); }, 0));
  ops->push_back(Elementwise(
      "Multiply", 2, kCols, [](Backend* b, V v) { b->dense->Multiply(v[0], v[1], v[0]); }, 0));
  ops->push_back(Elementwise(
      "SigmoidMul", 2, kCols, [](Backend* b, V v) { b->dense->SigmoidMul(v[0], v[1]); }, 1));
  ops->push_back(Elementwise(
      "AddScaled", 2, kCols, [](Backend* b, V v) { b->dense->AddScaled(v[0], 0.5f, v[1]); }, 1));
  ops->push_back(Elementwise(
      "Scale", 1, kCols, [](Backend* b, V v) { b->dense->Scale(v[0], 2.0f); }, 0));
  ops->push_back(Elementwise(
      "Clamp", 1, kCols, [](Backend* b, V v) { b->dense->Clamp(v[0], 0.5f); }, 0));
}

void AddProducts(std::vector<Op>* ops) {
  constexpr int64_t kIn = 256, kOut = 40, kHeads = 2;
  for (int d = 0; d < kNumDTypes; ++d) {
    const DType dtype = static_cast<DType>(d);
    if (!CanQuantize(dtype)) continue;
    std::mt19937 random(7);
    const auto weight = std::make_shared<PackedWeight>(dtype, kOut, kIn, &random);
    for (const TokenRole role : {TokenRole::kPrompt, TokenRole::kGenerated}) {
      ops->push_back(
          {absl::StrCat("MatMul ", GetFormat(dtype).name, " role ", int(role)),
           {kIn},
           kOut,
           [=](Backend* backend, std::vector<Rows> in) {
             Rows out(kTokens * kOut);
             const Projection p = {weight->view, {}, View(out, {kTokens, kOut})};
             const std::vector<TokenRole> roles(kTokens, role);
             backend->dense->MatMul(View(in[0], {kTokens, kIn}), RolesView(roles), {&p, 1});
             return out;
           }});
    }
    ops->push_back({absl::StrCat("HeadMatMul ", GetFormat(dtype).name),
                    {kHeads * kIn},
                    kOut,
                    [=](Backend* backend, std::vector<Rows> in) {
                      Rows out(kTokens * kOut);
                      const std::vector<TokenRole> roles(kTokens, TokenRole::kPrompt);
                      backend->dense->HeadMatMul(View(in[0], {kTokens, kHeads, kIn}),
                                                 RolesView(roles), weight->view,
                                                 View(out, {kTokens, kHeads, kOut / kHeads}));
                      return out;
                    }});
  }
}

void AddExperts(std::vector<Op>* ops) {
  constexpr int64_t kHidden = 64, kWidth = 96;
  for (const DType dtype : {DType::kF32, DType::kQ4_0}) {
    std::mt19937 random(8);
    const auto gate = std::make_shared<PackedWeight>(dtype, kWidth, kHidden, &random),
               up = std::make_shared<PackedWeight>(dtype, kWidth, kHidden, &random),
               down = std::make_shared<PackedWeight>(dtype, kHidden, kWidth, &random);
    for (const Activation activation : {Activation::kSilu, Activation::kSwigluOai}) {
      ops->push_back({absl::StrCat("ExpertFfn ", GetFormat(dtype).name, " ", int(activation)),
                      {kHidden},
                      kHidden,
                      [=](Backend* backend, std::vector<Rows> in) {
                        Rows out(kTokens * kHidden);
                        std::vector<int32_t> rows(kTokens);
                        for (size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<int32_t>(i);
                        ExpertJob job;
                        job.weights.gate = gate->view;
                        job.weights.up = up->view;
                        job.weights.down = down->view;
                        job.rows = job.out_rows = rows;
                        RunExperts(backend, View(in[0], {kTokens, kHidden}), {job}, activation,
                                   View(out, {kTokens, kHidden}));
                        return out;
                      }});
    }
  }
  // Both limits of gpt-oss's activation, reached from finite inputs through the biases alone, so
  // that nothing else in the expert is not finite.
  ops->push_back(
      {"ExpertFfn gate and up alone", {2}, 4, [](Backend* backend, std::vector<Rows> in) {
         static std::mt19937 random(9);
         static const PackedWeight zero(DType::kF32, 1, 4, &random);
         Rows out(kTokens * 4), x(kTokens * 4, 0.0f);
         for (int32_t n = 0; n < kTokens; ++n) {
           PackedWeight down(DType::kF32, 4, 1, &random);
           std::vector<int32_t> row = {n};
           Rows gate_bias = {in[0][static_cast<size_t>(2 * n)]},
                up_bias = {in[0][static_cast<size_t>(2 * n + 1)]};
           std::fill_n(reinterpret_cast<float*>(down.panels.data()),
                       down.panels.size() / sizeof(float), 1.0f);
           ExpertJob job;
           job.weights.gate = job.weights.up = zero.view;
           job.weights.down = down.view;
           job.weights.gate_bias = View(gate_bias, {1});
           job.weights.up_bias = View(up_bias, {1});
           job.rows = job.out_rows = row;
           RunExperts(backend, View(x, {kTokens, 4}), {job}, Activation::kSwigluOai,
                      View(out, {kTokens, 4}));
         }
         return out;
       }});
  ops->push_back(
      {"CombineExperts", {2 * kHidden, 2}, kHidden, [](Backend* backend, std::vector<Rows> in) {
         Rows acc(kTokens * kHidden, 1.0f);
         backend->dense->CombineExperts(View(in[0], {kTokens * 2, kHidden}),
                                        View(in[1], {kTokens, 2}), 1.0f,
                                        View(acc, {kTokens, kHidden}));
         return acc;
       }});
  ops->push_back(
      {"IdentityExperts", {kHidden}, kHidden, [](Backend* backend, std::vector<Rows> in) {
         Rows out(kTokens * kHidden);
         std::vector<int32_t> ids(kTokens, 9);
         backend->dense->IdentityExperts(View(in[0], {kTokens, kHidden}),
                                         MakeView(ids.data(), DType::kI32, {kTokens, 1}), 8,
                                         View(out, {kTokens, kHidden}));
         return out;
       }});
}

void AddRouting(std::vector<Op>* ops) {
  constexpr int64_t kExperts = 8;
  struct Kind {
    const char* name;
    RouteArgs::Score score;
    int num_groups = 1;
    bool bias = false;
  };
  using Score = RouteArgs::Score;
  for (const Kind& kind : {Kind{"softmax", Score::kSoftmax},
                           {"softmax of chosen", Score::kSoftmaxOfChosen},
                           {"sigmoid", Score::kSigmoid},
                           {"sigmoid in groups", Score::kSigmoid, 4, true},
                           {"sparse mixer", Score::kSparseMixer}}) {
    Op op{absl::StrCat("RouteTopK ", kind.name), {kExperts}, 2, {}};
    op.run = [kind](Backend* backend, std::vector<Rows> in) {
      RouteArgs args;
      args.top_k = 2;
      args.score = kind.score;
      args.num_groups = kind.num_groups;
      args.top_k_groups = kind.num_groups > 1 ? 2 : 1;
      args.group_by_best_two = true;
      args.normalize = true;
      args.jitter = 0.01f;
      Rows bias(kExperts, 0.1f), weights(kTokens * 2);
      if (kind.bias) args.bias = View(bias, {kExperts});
      std::vector<int32_t> ids(kTokens * 2);
      backend->dense->RouteTopK(View(in[0], {kTokens, kExperts}), args,
                                MakeView(ids.data(), DType::kI32, {kTokens, 2}),
                                View(weights, {kTokens, 2}));
      for (size_t i = 0; i < ids.size(); ++i) {
        EXPECT_TRUE(ids[i] >= 0 && ids[i] < kExperts && ids[i] != ids[i ^ 1]) << "no expert";
      }
      return weights;
    };
    ops->push_back(std::move(op));
  }
}

// Queries, keys and values of one sequence, stored and attended in one call.
void AddAttention(std::vector<Op>* ops) {
  constexpr int64_t kHeads = 4, kKvHeads = 2, kDim = 32;
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16, DType::kQ8_0}) {
    for (const TokenRole role : {TokenRole::kPrompt, TokenRole::kGenerated}) {
      for (const bool sinks : {false, true}) {
        Op op{absl::StrCat("Attention over ", GetFormat(dtype).name, " role ", int(role),
                           sinks ? " with sinks" : ""),
              {kHeads * kDim, kKvHeads * kDim, kKvHeads * kDim},
              kHeads * kDim,
              {},
              /*later_tokens_too=*/true};
        op.run = [=](Backend* backend, std::vector<Rows> in) {
          std::vector<char> cache[2];
          TensorView caches[2];
          for (int i = 0; i < 2; ++i) {
            caches[i] = MakeView(nullptr, dtype, {2, 4, kKvHeads, kDim});
            cache[i].resize(static_cast<size_t>(caches[i].bytes()));
            caches[i].data = cache[i].data();
          }
          std::vector<int32_t> slots = {0, 1, 2, 3, 4}, table = {0, 1}, seq(kTokens, 0);
          backend->dense->StoreKv(View(in[1], {kTokens, kKvHeads, kDim}),
                                  View(in[2], {kTokens, kKvHeads, kDim}), Ints(slots), caches[0],
                                  caches[1]);
          Rows out(kTokens * kHeads * kDim), sink(kHeads, 0.5f);
          const std::vector<TokenRole> roles(kTokens, role);
          AttentionArgs args;
          args.q = View(in[0], {kTokens, kHeads, kDim});
          args.roles = RolesView(roles);
          args.k_cache = caches[0];
          args.v_cache = caches[1];
          args.block_tables = MakeView(table.data(), DType::kI32, {1, 2});
          args.seq_idx = Ints(seq);
          args.positions = Ints(slots);
          if (sinks) args.sinks = View(sink, {kHeads});
          args.scale = 0.2f;
          args.out = View(out, {kTokens, kHeads, kDim});
          backend->dense->Attention(args);
          return out;
        };
        ops->push_back(std::move(op));
      }
    }
  }
}

void AddState(std::vector<Op>* ops) {
  // Each token is a sequence of its own, in the middle of its life.
  static std::vector<int32_t> slots = {0, 1, 2, 3, 4}, cu = {0, 1, 2, 3, 4, 5}, positions(5, 3);
  const auto args = [](Rows& state, int64_t elems) {
    return StateArgs{View(state, {kTokens, elems}), Ints(slots), Ints(cu), Ints(positions)};
  };
  constexpr int64_t kChannels = 24, kKernel = 3;
  ops->push_back({"CausalConv",
                  {kChannels, (kKernel - 1) * kChannels},
                  kChannels,
                  [=](Backend* backend, std::vector<Rows> in) {
                    Rows weight(kChannels * kKernel, 0.3f);
                    backend->dense->CausalConv(View(in[0], {kTokens, kChannels}),
                                               View(weight, {kChannels, kKernel}), true,
                                               args(in[1], (kKernel - 1) * kChannels));
                    return in[0];
                  }});
  constexpr int64_t kKey = 4, kValue = 6, kHeads = 2;
  ops->push_back(
      {"GatedDeltaRule",
       {kHeads * kKey, kHeads * kKey, kHeads * kValue, kHeads, kHeads, kHeads * kKey * kValue},
       kHeads * kValue,
       [=](Backend* backend, std::vector<Rows> in) {
         Rows a_scale(kHeads, -0.5f), dt_bias(kHeads, 0.1f), out(kTokens * kHeads * kValue);
         backend->dense->GatedDeltaRule({.q = View(in[0], {kTokens, kHeads, kKey}),
                                         .k = View(in[1], {kTokens, kHeads, kKey}),
                                         .v = View(in[2], {kTokens, kHeads, kValue}),
                                         .beta = View(in[3], {kTokens, kHeads}),
                                         .a = View(in[4], {kTokens, kHeads}),
                                         .a_scale = View(a_scale, {kHeads}),
                                         .dt_bias = View(dt_bias, {kHeads}),
                                         .state = args(in[5], kHeads * kKey * kValue),
                                         .out = View(out, {kTokens, kHeads, kValue})});
         return out;
       }});
}

void AddMoves(std::vector<Op>* ops) {
  constexpr int64_t kHeads = 2, kDim = 8;
  ops->push_back(
      {"Rope", {kHeads * kDim}, kHeads * kDim, [](Backend* backend, std::vector<Rows> in) {
         Rows inv_freq = {1.0f, 0.5f, 0.25f, 0.125f};
         std::vector<int32_t> positions = {1, 2, 3, 4, 5};
         RopeArgs args;
         args.inv_freq = View(inv_freq, {kDim / 2});
         backend->dense->Rope(View(in[0], {kTokens, kHeads, kDim}), Ints(positions), args);
         return in[0];
       }});
  ops->push_back({"CopyHeads", {kDim}, kHeads * kDim, [](Backend* backend, std::vector<Rows> in) {
                    Rows out(kTokens * kHeads * kDim);
                    backend->dense->CopyHeads(View(in[0], {kTokens, 1, kDim}),
                                              View(out, {kTokens, kHeads, kDim}));
                    return out;
                  }});
  ops->push_back({"EmbedTokens", {kDim}, kDim, [](Backend* backend, std::vector<Rows> in) {
                    Rows out(kTokens * kDim);
                    std::vector<int32_t> ids = {0, 1, 2, 3, 4};
                    backend->dense->EmbedTokens(View(in[0], {kTokens, kDim}), Ints(ids), 2.0f,
                                                View(out, {kTokens, kDim}));
                    return out;
                  }});
  ops->push_back({"GatherRows", {kDim}, kDim, [](Backend* backend, std::vector<Rows> in) {
                    Rows out(kTokens * kDim);
                    std::vector<int32_t> rows = {0, 1, 2, 3, 4};
                    backend->dense->GatherRows(View(in[0], {kTokens, kDim}), Ints(rows),
                                               View(out, {kTokens, kDim}));
                    return out;
                  }});
}

class NonFiniteOps : public testing::TestWithParam<std::string> {
 protected:
  static std::vector<Op> AllOps() {
    std::vector<Op> ops;
    AddElementwise(&ops);
    AddProducts(&ops);
    AddExperts(&ops);
    AddRouting(&ops);
    AddAttention(&ops);
    AddState(&ops);
    AddMoves(&ops);
    return ops;
  }
  static bool AllFinite(const Rows& out, int64_t token, int64_t cols) {
    for (int64_t i = token * cols; i < (token + 1) * cols; ++i) {
      if (!std::isfinite(out[static_cast<size_t>(i)])) return false;
    }
    return true;
  }
  static void Check(Backend* backend, const Op& op) {
    std::mt19937 random(11);
    std::vector<Rows> inputs;
    for (int64_t cols : op.inputs) inputs.push_back(RandomFloats(kTokens * cols, &random));
    const Rows clean = op.run(backend, inputs);
    constexpr int64_t kToken = 2;
    for (size_t i = 0; i < inputs.size(); ++i) {
      for (int64_t c : {int64_t{0}, op.inputs[i] - 1}) {
        for (const float value : {kNan, kInfinity, -kInfinity}) {
          std::vector<Rows> changed = inputs;
          changed[i][static_cast<size_t>(kToken * op.inputs[i] + c)] = value;
          const Rows out = op.run(backend, changed);
          for (int64_t n = 0; n < kTokens; ++n) {
            const std::string where =
                absl::StrCat(op.name, ": ", value, " in input ", i, " column ", c, ", row ", n);
            // A query is the token's own; keys and values are all later tokens'.
            if (op.later_tokens_too && i == 2 && n < kToken) continue;  // a value may spread
            const bool reached = n == kToken || (op.later_tokens_too && i > 0 && n > kToken);
            ASSERT_EQ(AllFinite(out, n, op.out_cols), !reached) << where;
            if (reached) continue;
            for (int64_t j = n * op.out_cols; j < (n + 1) * op.out_cols; ++j) {
              ASSERT_EQ(out[static_cast<size_t>(j)], clean[static_cast<size_t>(j)]) << where;
            }
          }
        }
      }
    }
  }
};

TEST_P(NonFiniteOps, AreKeptByEveryOperation) {
  for (const Activations activations : {Activations::kInt8, Activations::kF32}) {
    const auto backend = Make(GetParam(), activations);
    for (const Op& op : AllOps()) {
      Check(backend.get(), op);
      if (HasFatalFailure()) return;
    }
  }
}

// All bits set are NaN in a float, and in the scale of every block.
TEST_P(NonFiniteOps, AWeightThatIsNotFiniteReachesEveryRow) {
  constexpr int64_t kIn = 256, kOut = 40;
  const auto backend = Make(GetParam(), Activations::kInt8);
  std::mt19937 random(13);
  Rows x = RandomFloats(kTokens * kIn, &random), out(kTokens * kOut);
  for (int d = 0; d < kNumDTypes; ++d) {
    const DType dtype = static_cast<DType>(d);
    if (!CanQuantize(dtype)) continue;
    PackedWeight weight(dtype, kOut, kIn, &random);
    std::fill(weight.panels.begin(), weight.panels.end(), uint8_t{0xFF});
    for (const TokenRole role : {TokenRole::kPrompt, TokenRole::kGenerated}) {
      const Projection p = {weight.view, {}, View(out, {kTokens, kOut})};
      backend->dense->MatMul(View(x, {kTokens, kIn}),
                             RolesView(std::vector<TokenRole>(kTokens, role)), {&p, 1});
      for (const float value : out) ASSERT_FALSE(std::isfinite(value)) << GetFormat(dtype).name;
    }
  }
  Rows norm(kIn, 1.0f);
  norm[3] = NAN;
  backend->dense->RmsNorm(View(x, {kTokens, kIn}), View(norm, {kIn}), 1e-6f,
                          View(x, {kTokens, kIn}));
  for (int64_t n = 0; n < kTokens; ++n) EXPECT_FALSE(AllFinite(x, n, kIn));
}

// Finite numbers whose squares overflow must not become zeros.
TEST_P(NonFiniteOps, ANormThatOverflowsIsNotFinite) {
  const auto backend = Make(GetParam(), Activations::kF32);
  Rows x(2 * 24, 1.0f), weight(24, 1.0f);
  std::fill_n(x.begin() + 24, 24, 1e30f);
  backend->dense->RmsNorm(View(x, {2, 24}), View(weight, {24}), 1e-6f, View(x, {2, 24}));
  EXPECT_NEAR(x[0], 1.0f, 1e-5f);
  EXPECT_FALSE(AllFinite(x, 1, 24));
}

// Stored in a narrower type, a number may become infinite: attention must not drop it.
TEST_P(NonFiniteOps, ANumberTooLargeForTheCacheShows) {
  const auto backend = Make(GetParam(), Activations::kF32);
  std::vector<Op> ops;
  AddAttention(&ops);
  for (const Op& op : ops) {
    const bool f16 =
        op.name.find("F16") != std::string::npos && op.name.find("BF16") == std::string::npos;
    if (!f16) continue;
    std::mt19937 random(12);
    std::vector<Rows> inputs;
    for (int64_t cols : op.inputs) inputs.push_back(RandomFloats(kTokens * cols, &random));
    for (const float value : {65503.0f, 65520.0f, -65520.0f}) {
      inputs[1][static_cast<size_t>(op.inputs[1]) * 3] = value;
      const Rows out = op.run(backend.get(), inputs);
      EXPECT_TRUE(AllFinite(out, 2, op.out_cols)) << op.name;
      EXPECT_EQ(AllFinite(out, 3, op.out_cols), std::fabs(value) < 65504.0f) << op.name << value;
    }
  }
}

TEST_P(NonFiniteOps, MarkFaultsKeepsTheFirstCodeAndTakesTheLimitLiterally) {
  const auto backend = Make(GetParam(), Activations::kF32);
  // Two rows a token: 0 is fine, 1 reaches the limit, 2 holds NaN in its second row, 3 has a code.
  Rows x = {1, -1, 9.99f, 1, /**/ -10, 0, 0, 0, /**/ 0, 0, 0, kNan, /**/ 0, 99, 0, 0};
  std::vector<int32_t> faults = {0, 0, 0, 5};
  backend->dense->MarkFaults(View(x, {8, 2}), 10.0f, 7, Ints(faults));
  EXPECT_EQ(faults, (std::vector<int32_t>{0, 7, 7, 5}));
  // Columns of longer rows: what lies beside them does not count.
  TensorView columns = View(x, {4, 4});
  columns.shape[1] = 2;
  faults = {0, 0, 0, 0};
  backend->dense->MarkFaults(columns, kInfinity, 3, Ints(faults));
  EXPECT_EQ(faults, (std::vector<int32_t>{0, 0, 0, 0}));
  x[5] = -kInfinity;
  backend->dense->MarkFaults(columns, kInfinity, 3, Ints(faults));
  EXPECT_EQ(faults, (std::vector<int32_t>{0, 3, 0, 0}));
}

INSTANTIATE_TEST_SUITE_P(Backends, NonFiniteOps, testing::ValuesIn(BackendNames()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace thermocline
