// NaN and infinity end the request that they belong to, wherever they come up, and no other.
//
// The walk: one request's element of one tensor of one operation becomes NaN, +infinity or
// -infinity, in every layer, first where the prompt is computed, then in a step that generates. The
// request must end with an error that says so; its neighbour in the same batches must get the very
// logits that it gets when nothing is wrong.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <iterator>
#include <limits>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "kernels/quant/float_bits.h"
#include "tests/support/golden.h"
#include "tests/support/tampering_backend.h"
#include "tests/support/test_backend.h"

namespace thermocline {
namespace {

struct WalkCase {
  const char* model;
  const char* backend;
  DType kv_dtype = DType::kF32;
  MlaForm mla_form = MlaForm::kAbsorbed;
};

std::string NameOf(const testing::TestParamInfo<WalkCase>& info) {
  const WalkCase& c = info.param;
  std::string name = absl::StrCat(c.model, "_", c.backend, "_kv_", GetFormat(c.kv_dtype).name,
                                  c.mla_form == MlaForm::kPlain ? "_plain" : "");
  return absl::StrReplaceAll(name, {{"-", "_"}, {"/", "_"}, {".", "_"}});
}

void PrintTo(const WalkCase& c, std::ostream* out) { *out << c.model << " on " << c.backend; }

// How one request ended, and every row of logits it got.
struct Ending {
  FinishReason reason = FinishReason::kStop;
  absl::Status status;
  int num_tokens = 0;
  std::vector<float> logits;
};

class EndingSink : public ResponseSink {
 public:
  explicit EndingSink(Ending* ending) : ending_(ending) {}
  bool OnDelta(Delta delta) override {
    ending_->num_tokens += static_cast<int>(delta.tokens.size());
    return true;
  }
  void OnDone(const Result& result) override {
    ending_->reason = result.reason;
    ending_->status = result.status;
  }

 private:
  Ending* ending_;
};

class NonFiniteWalk : public testing::TestWithParam<WalkCase> {
 protected:
  static constexpr int kTokens = 3;  // three steps: the prompts, two that generate
  static constexpr int kTamperedSteps = 2;

  void SetUp() override {
    const std::string model = GoldenPath(GetParam().model);
    EngineOptions options;
    options.model_path = model;
    options.backend = GetParam().backend;
    options.num_threads = 1;
    options.kv_dtype = GetParam().kv_dtype;
    options.mla_form = GetParam().mla_form;
    options.kv_tokens = 64;
    options.scheduler.max_num_seqs = 2;
    options.dense_backend =
        MakeTamperingBackend(MakeTestBackend(GetParam().backend),
                             [this](const char* site, const TensorView& x,
                                    const TensorView& slots) { Visit(site, x, slots); });
    options.logits_observer = [this](RequestId id, int64_t, absl::Span<const float> logits) {
      std::vector<float>& all = (id == first_id_ ? first_ : second_).logits;
      all.insert(all.end(), logits.begin(), logits.end());
    };
    engine_ = MakeEngine(std::move(options));
    ASSERT_NE(engine_, nullptr);
  }

  // Runs both requests with the element of visit number `site` changed; -1: none.
  void Run(int site, float value) {
    site_ = site;
    value_ = value;
    num_visits_ = 0;
    first_ = second_ = {};
    first_id_ = Submit({1, 7, 3, 9, 4}, &first_);
    (void)Submit({2, 5, 8}, &second_);
    for (step_ = 0; engine_->Step(); ++step_) {
    }
    EXPECT_EQ(engine_->Snapshot().kv_blocks_used, 0);
  }

  RequestId Submit(std::vector<int32_t> prompt, Ending* ending) {
    GenerateRequest request;
    request.prompt = std::move(prompt);
    request.max_tokens = kTokens;
    request.forced = {6, 2, 1};
    request.ignore_eos = true;
    const auto id = engine_->Submit(std::move(request), std::make_unique<EndingSink>(ending));
    EXPECT_TRUE(id.ok()) << id.status();
    return *id;
  }

  void Visit(const char* site, const TensorView& x, const TensorView& slots) {
    if (step_ >= kTamperedSteps) return;
    const int visit = num_visits_++;
    if (static_cast<size_t>(visit) >= names_.size()) {
      names_.push_back(absl::StrCat(site, " in step ", step_));
    }
    if (visit == site_) SetElement(x, RowOf(x, slots));
  }

  // A row of the first request: of its second prompt token, or of the token it generates.
  int64_t RowOf(const TensorView& x, const TensorView& slots) const {
    const int64_t num_tokens = step_ == 0 ? 8 : 2, token = step_ == 0 ? 1 : 0;
    if (!slots.empty()) {
      // Rows of a sequence's state, or of a token's heads in the cache.
      const bool per_token = slots.num_elems() == num_tokens && x.rank == 4;
      const int64_t slot = slots.Row<int32_t>(0)[per_token ? token : 0];
      return x.rank == 4 ? slot * x.shape[2] + x.shape[2] - 1 : slot;
    }
    if (x.rows() % num_tokens != 0) return 0;  // only the tokens whose logits are wanted
    const int64_t per_token = x.rows() / num_tokens;
    return token * per_token + per_token - 1;
  }

  void SetElement(const TensorView& x, int64_t row) const {
    const int64_t i = x.cols() / 2;
    char* at = x.Row<char>(row) + BytesOf(x.dtype, x.dtype == DType::kQ8_0 ? i / 32 * 32 : i);
    if (x.dtype == DType::kF32) {
      std::memcpy(at, &value_, sizeof(value_));
      return;
    }
    // A 16-bit float, or the scale of a block.
    const uint16_t bits = x.dtype == DType::kBF16 ? FloatToBfloat16(value_) : FloatToHalf(value_);
    std::memcpy(at, &bits, sizeof(bits));
  }

  std::unique_ptr<Engine> engine_;
  int site_ = -1, num_visits_ = 0, step_ = 0;
  float value_ = 0.0f;
  std::vector<std::string> names_;
  RequestId first_id_ = 0;
  Ending first_, second_;
};

TEST_P(NonFiniteWalk, EndsItsRequestWithAnErrorAndNoOther) {
  Run(-1, 0.0f);
  ASSERT_TRUE(first_.status.ok()) << first_.status;
  ASSERT_TRUE(second_.status.ok()) << second_.status;
  ASSERT_EQ(second_.num_tokens, kTokens);
  const std::vector<float> second_logits = second_.logits;
  const int num_sites = num_visits_;
  ASSERT_GT(num_sites, 40);
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (int site = 0; site < num_sites; ++site) {
    for (const float value : {std::numeric_limits<float>::quiet_NaN(), kInfinity, -kInfinity}) {
      Run(site, value);
      const std::string where = absl::StrCat(value, " in visit ", site, ", ", names_[site]);
      ASSERT_EQ(first_.reason, FinishReason::kError) << where;
      ASSERT_EQ(first_.status.code(), absl::StatusCode::kInternal) << where;
      ASSERT_NE(first_.status.message().find("NaN or infinity"), std::string::npos)
          << where << ": " << first_.status;
      // Layer and position, or position alone of what belongs to no layer.
      const bool in_layer = first_.status.message().find(" of layer ") != std::string::npos;
      const bool in_none = absl::StartsWith(first_.status.message(), "the embedding ") ||
                           absl::StartsWith(first_.status.message(), "the logits ");
      ASSERT_NE(in_layer, in_none) << where << ": " << first_.status;
      ASSERT_LT(first_.num_tokens, kTokens) << where;
      ASSERT_TRUE(second_.status.ok()) << where << ": " << second_.status;
      ASSERT_TRUE(second_.logits == second_logits) << where;
    }
  }
}

std::vector<WalkCase> Cases() {
  std::vector<WalkCase> cases;
  for (const char* backend : {"reference", "cpu"}) {
    for (const char* model :
         {"llama3-rope", "qwen3_moe", "gpt_oss-mxfp4", "deepseek_v3", "lfm2_moe", "qwen3_next",
          "longcat_flash", "olmoe-clip", "granitemoeshared", "phimoe", "qwen2_moe"}) {
      cases.push_back({model, backend});
    }
    cases.push_back({"deepseek_v3", backend, DType::kF32, MlaForm::kPlain});
    for (const DType kv : {DType::kF16, DType::kBF16}) cases.push_back({"qwen3_moe", backend, kv});
    cases.push_back({"quantised/qwen3_moe-q4_k_m.gguf", backend, DType::kQ8_0});
  }
  return cases;
}

INSTANTIATE_TEST_SUITE_P(All, NonFiniteWalk, testing::ValuesIn(Cases()), NameOf);

// Keys and values that are finite but not in the cache's type.
class TooLargeForTheCache : public NonFiniteWalk {};

TEST_P(TooLargeForTheCache, EndsItsRequestAndNamesTypeAndLimit) {
  Run(-1, 0.0f);
  ASSERT_TRUE(first_.status.ok()) << first_.status;
  const auto store = std::find(names_.begin(), names_.end(), "StoreKv.k_cache in step 0");
  const auto last_before = [&](const char* name) {
    return static_cast<int>(std::find(std::reverse_iterator(store), names_.rend(), name).base() -
                            names_.begin()) -
           1;
  };
  const DType type = GetParam().kv_dtype;
  // Halfway from the largest number of the type to what would be next, which rounds up.
  const float limit = type == DType::kF16    ? 65520.0f
                      : type == DType::kBF16 ? 0x1.FFp127f
                                             : 127.0f * 65504.0f;
  const std::pair<const char*, int> sites[] = {{"keys", last_before("Rope.x in step 0")},
                                               {"values", last_before("MatMul.out in step 0")}};
  for (const auto& [what, site] : sites) {
    ASSERT_GE(site, 0);
    for (const float value : {limit, -limit}) {
      Run(site, value);
      EXPECT_EQ(first_.status.code(), absl::StatusCode::kInternal) << what;
      const std::string part =
          absl::StrCat("the ", what, " of layer 0 at position 1 hold NaN or infinity, or numbers ",
                       "too large for a KV cache of ", GetFormat(type).name,
                       ", which holds magnitudes below ", limit, ";");
      EXPECT_NE(first_.status.message().find(part), std::string::npos) << first_.status;
      EXPECT_TRUE(second_.status.ok()) << second_.status;
    }
    Run(site, std::nextafter(limit, 0.0f));
    EXPECT_EQ(first_.status.message().find("KV cache"), std::string::npos) << first_.status;
  }
}

INSTANTIATE_TEST_SUITE_P(All, TooLargeForTheCache,
                         testing::Values(WalkCase{"qwen3_moe", "reference", DType::kF16},
                                         WalkCase{"qwen3_moe", "cpu", DType::kF16},
                                         WalkCase{"qwen3_moe", "cpu", DType::kBF16},
                                         WalkCase{"quantised/qwen3_moe-q4_k_m.gguf", "cpu",
                                                  DType::kQ8_0}),
                         NameOf);

}  // namespace
}  // namespace thermocline
