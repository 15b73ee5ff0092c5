// The goldens must not notice where experts and KV blocks lie, who runs beside them, or how prompts
// are cut.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <ostream>

#include "absl/strings/str_cat.h"
#include "engine/model/convert/random_model.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/onednn_matmul.h"
#include "tests/support/counting_backend.h"
#include "tests/support/fake_device.h"
#include "tests/support/golden_checks.h"
#include "tests/support/test_backend.h"
#include "tests/support/test_name.h"

namespace thermocline {
namespace {

EngineOptions ReferenceOptions(const Golden& golden) {
  return ExactOptions(golden.path, "reference");
}

void ExpectGolden(Engine* engine, const Golden& golden) {
  ASSERT_NE(engine, nullptr);
  ExpectLogits(Score(engine, golden.prompt), golden.logits, kReferenceTolerance);
  EXPECT_EQ(
      Greedy(engine, {golden.prompt, golden.prompt}, static_cast<int64_t>(golden.greedy.size())),
      (std::vector<std::vector<int32_t>>{golden.greedy, golden.greedy}));
  EXPECT_EQ(engine->Snapshot().kv_blocks_used, 0);
}

class ExpertPlacementTest : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    golden_ = LoadGolden(GoldenPath(GetParam()));
    auto probe = MakeEngine(ReferenceOptions(golden_));
    num_experts_ = static_cast<int>(probe->dims().num_experts);
    top_k_ = static_cast<int>(probe->dims().num_experts_per_tok);
  }
  Golden golden_;
  int num_experts_ = 0, top_k_ = 0;
};

TEST_P(ExpertPlacementTest, ZeroHalfAndAllExpertsOnTheDevice) {
  for (int on_device : {0, num_experts_ / 2, num_experts_}) {
    EngineOptions options = ReferenceOptions(golden_);
    FakeDeviceStats stats;
    options.device_backend = MakeFakeDevice(MakeReferenceBackend(), {.seed = 3, .stats = &stats});
    options.device_experts = on_device;
    options.host_experts = std::max(1, num_experts_ - on_device);
    options.poison_evicted = true;
    const auto engine = MakeEngine(std::move(options));
    ExpectGolden(engine.get(), golden_);
    EXPECT_EQ(stats.num_experts > 0, on_device > 0);
  }
}

TEST_P(ExpertPlacementTest, TheWholeModelOnTheDeviceWithExpertsOnTheHost) {
  EngineOptions options = ReferenceOptions(golden_);
  options.dense_backend = MakeFakeDevice(MakeReferenceBackend());
  const auto engine = MakeEngine(std::move(options));
  ExpectGolden(engine.get(), golden_);
}

TEST_P(ExpertPlacementTest, TopKPlusOneSlotsWithRandomEvictionAndPoison) {
  for (const char* backend : {"reference", "cpu"}) {
    EngineOptions options = ReferenceOptions(golden_);
    options.backend = backend;
    options.host_experts = std::min(num_experts_, top_k_ + 1);
    options.expert_policy = "random";
    options.poison_evicted = true;
    const auto engine = MakeEngine(std::move(options));
    ExpectGolden(engine.get(), golden_);
    int64_t evictions = 0;
    for (const ExpertStats& stats : engine->Snapshot().experts) evictions += stats.evictions;
    EXPECT_GT(evictions, 0);
  }
}

TEST_P(ExpertPlacementTest, KvBlocksOfAnySizeInAnyOrder) {
  for (int block_size : {1, 16}) {
    EngineOptions options = ReferenceOptions(golden_);
    options.block_size = block_size;
    options.kv_tokens = 512;
    options.shuffle_kv_seed = 9;
    const auto engine = MakeEngine(std::move(options));
    ExpectGolden(engine.get(), golden_);
  }
}

// Experts placed by hand: the same answers; those on disk are read again whenever they are needed.
TEST_P(ExpertPlacementTest, AsAFileSaysIt) {
  EngineOptions options = ReferenceOptions(golden_);
  options.placement = "* * disk\n* 0 host";
  options.poison_evicted = true;
  const auto engine = MakeEngine(std::move(options));
  ExpectGolden(engine.get(), golden_);
  const auto bytes_read = [&] {
    int64_t bytes = 0;
    for (const ExpertStats& stats : engine->Snapshot().experts) bytes += stats.bytes_read;
    return bytes;
  };
  const int64_t before = bytes_read();
  ExpectGolden(engine.get(), golden_);
  EXPECT_GT(bytes_read(), before);
  const EngineSnapshot snapshot = engine->Snapshot();
  for (size_t l = 0; l < snapshot.resident.size(); ++l) {
    if (snapshot.resident[l].empty() || engine->expert_files().layouts()[l].bytes == 0) continue;
    EXPECT_TRUE(snapshot.resident[l][0]) << "layer " << l;
    EXPECT_EQ(std::count(snapshot.resident[l].begin(), snapshot.resident[l].end(), true), 1);
    EXPECT_EQ(snapshot.experts[l].evictions, 0);
  }
}

INSTANTIATE_TEST_SUITE_P(All, ExpertPlacementTest,
                         testing::Values("qwen3_moe", "granitemoeshared", "olmoe-clip",
                                         "mixtral-swa", "granitemoe", "qwen3_moe-bf16",
                                         "deepseek_v3", "kimi_k2", "gpt_oss-mxfp4", "longcat_flash",
                                         "lfm2_moe", "qwen3_next"),
                         kNamedByItself);

TEST(StepOps, EachDenseMatrixIsMultipliedOncePerStepAndKvIsReadInPlace) {
  const Golden golden = LoadGolden(GoldenPath("qwen3_moe"));
  EngineOptions options = ReferenceOptions(golden);
  OperationCounts counts;
  options.dense_backend = MakeCountingBackend(&counts);
  constexpr int kSequences = 5;
  const auto engine = MakeEngine(std::move(options));
  ASSERT_NE(engine, nullptr);
  std::vector<std::vector<int32_t>> prompts;
  for (int i = 0; i < kSequences; ++i) prompts.push_back({1 + i, 5, 9});
  counts.StartSteps();
  (void)Greedy(engine.get(), prompts, 4);
  // 3 layers of q, k, v, o and the router, and the head; every step holds all sequences, so rows
  // are 15 once, then 5.
  ASSERT_EQ(counts.steps(), 4);
  for (int step = 0; step < counts.steps(); ++step) {
    const std::map<const void*, std::vector<int64_t>>& calls = counts.matmuls(step);
    EXPECT_EQ(calls.size(), 3u * 5u + 1u);
    for (const auto& [weight, rows] : calls) {
      ASSERT_EQ(rows.size(), 1u) << "a matrix was multiplied more than once in a step";
      EXPECT_TRUE(rows[0] == kSequences || (step == 0 && rows[0] == 3 * kSequences));
    }
  }
  EXPECT_TRUE(counts.attention_reads_stored_kv());
  EXPECT_EQ(counts.kv_bytes_copied(), 0);
}

// FNV-1a over the bits of a row of logits.
uint64_t Hash(absl::Span<const float> logits) {
  uint64_t hash = 1469598103934665603ull;
  for (float value : logits) {
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    hash = (hash ^ bits) * 1099511628211ull;
  }
  return hash;
}

using Hashes = std::map<std::pair<RequestId, int64_t>, uint64_t>;

// Runs `prompts` (the first one is watched) and returns the hashes of the first request's rows by
// position.
std::map<int64_t, uint64_t> HashesOfFirst(EngineOptions options,
                                          const std::vector<std::vector<int32_t>>& prompts) {
  Hashes hashes;
  options.logits_observer = [&](RequestId id, int64_t position, absl::Span<const float> logits) {
    hashes[{id, position}] = Hash(logits);
  };
  const auto engine = MakeEngine(std::move(options));
  (void)Greedy(engine.get(), prompts, 12);
  std::map<int64_t, uint64_t> first;
  for (const auto& [key, hash] : hashes) {
    if (key.first == 1) first[key.second] = hash;
  }
  return first;
}

struct ContractCase {
  const char* model;
  const char* isa;  // "": the best that the machine has
};

std::string NameOf(const ContractCase& contract) {
  return TestName(absl::StrCat(contract.model, "_", *contract.isa != 0 ? contract.isa : "best"));
}

void PrintTo(const ContractCase& contract, std::ostream* out) { *out << NameOf(contract); }

class NumericContractTest : public testing::TestWithParam<ContractCase> {};

TEST_P(NumericContractTest, LogitsAreTheSameAloneAmongOthersWithAnyThreadsAndChunks) {
  const std::string model = GetParam().model, isa = GetParam().isa;
  if (!isa.empty() && !SelectKernels(isa).ok()) GTEST_SKIP() << "this machine lacks " << isa;
  const std::string path = model == "demo" ? DemoPath() : GoldenPath(model);
  const auto options = [&](int threads, int chunk) {
    EngineOptions o;
    o.model_path = path;
    o.num_threads = threads;
    o.backend_options.isa = isa;
    o.kv_tokens = 4096;
    o.scheduler.max_batch_tokens = chunk;
    return o;
  };
  // Ids that the smallest vocabulary, of 48, has.
  std::vector<std::vector<int32_t>> prompts;
  for (int i = 0; i < 32; ++i) {
    prompts.emplace_back();
    for (int t = 0; t < 20 + 2 * i; ++t) prompts.back().push_back(3 + (7 * t + 11 * i) % 45);
  }
  const auto alone = HashesOfFirst(options(1, 512), {prompts[0]});
  ASSERT_GE(alone.size(), 12u);
  EXPECT_EQ(HashesOfFirst(options(2, 512), {prompts[0]}), alone) << "threads";
  for (int chunk : {1, 7, 64})
    EXPECT_EQ(HashesOfFirst(options(2, chunk), {prompts[0]}), alone) << "chunks of " << chunk;
  // Decoding batches of 2 to 32; few neighbours where a level or the model is slow.
  const bool slow = isa == "scalar" || model == "demo";
  for (size_t batch : slow ? std::vector<size_t>{7} : std::vector<size_t>{2, 3, 8, 13, 32}) {
    const std::vector<std::vector<int32_t>> some(prompts.begin(),
                                                 prompts.begin() + static_cast<ptrdiff_t>(batch));
    EXPECT_EQ(HashesOfFirst(options(2, 512), some), alone) << "batch of " << batch;
    EXPECT_EQ(HashesOfFirst(options(1, 33), some), alone) << "batch of " << batch << " in chunks";
    for (int wide_from : {1, 4, 1000}) {
      EngineOptions calibrated = options(2, 100);
      calibrated.backend_options.calibration.wide_from.fill(wide_from);
      EXPECT_EQ(HashesOfFirst(std::move(calibrated), some), alone)
          << "batch of " << batch << ", wide tiles from " << wide_from;
    }
  }
}

std::vector<ContractCase> ContractCases() {
  return {{"demo", ""},
          {"qwen3_moe", ""},
          {"quantised/qwen3_moe-q4_k_m.gguf", ""},
          {"qwen3_moe", "scalar"},
          {"quantised/qwen3_moe-q4_k_m.gguf", "scalar"},
          {"demo", "avx2"},
          {"quantised/qwen3_moe-q4_k_m.gguf", "avx2"},
          {"deepseek_v3", ""},
          {"kimi_k2", ""},
          {"llama3-rope", ""},
          {"gpt_oss-mxfp4", ""},
          {"lfm2_moe", ""},
          {"qwen3_next", ""}};
}

INSTANTIATE_TEST_SUITE_P(All, NumericContractTest, testing::ValuesIn(ContractCases()),
                         [](const auto& info) { return NameOf(info.param); });

// Where experts, KV blocks and dense weights lie must not show in a bit of the logits, with the
// kernels that serve: `base` computed in host memory against every other place.
class PlacesTest : public testing::TestWithParam<ContractCase> {
 protected:
  void SetUp() override {
    isa_ = GetParam().isa;
    if (!isa_.empty() && !SelectKernels(isa_).ok()) GTEST_SKIP() << "this machine lacks " << isa_;
    const auto probe = MakeEngine(Options());
    dims_ = probe->dims();
    num_experts_ = static_cast<int>(dims_.num_experts);
    top_k_ = static_cast<int>(dims_.num_experts_per_tok);
    latent_ = dims_.mixers[0].latent;
    for (int i = 0; i < 3; ++i) {
      prompts_.emplace_back();
      for (int t = 0; t < 21 + 5 * i; ++t) prompts_.back().push_back(3 + (7 * t + 11 * i) % 45);
    }
  }
  EngineOptions Options() const {
    EngineOptions options;
    options.model_path = GoldenPath(GetParam().model);
    options.backend_options.isa = isa_;
    options.num_threads = 2;
    options.kv_tokens = 512;
    options.scheduler.max_batch_tokens = 40;
    options.poison_evicted = true;
    return options;
  }
  // Another CPU backend, as a device of its own.
  static std::unique_ptr<Backend> Device(const EngineOptions& like) {
    BackendOptions options = like.backend_options;
    options.activations = Activations::kInt8;
    return MakeFakeDevice(MakeTestBackend("cpu", 2, options));
  }
  std::map<int64_t, uint64_t> Hashes(EngineOptions options) const {
    options.activations = Activations::kInt8;
    return HashesOfFirst(std::move(options), prompts_);
  }

  std::string isa_;
  ModelDims dims_;
  int num_experts_ = 0, top_k_ = 0;
  bool latent_ = false;
  std::vector<std::vector<int32_t>> prompts_;
};

TEST_P(PlacesTest, NoPlaceShowsInTheLogits) {
  for (const DType kv_dtype : {DType::kF16, DType::kF32, DType::kBF16, DType::kQ8_0}) {
    for (const MlaForm form : {MlaForm::kAbsorbed, MlaForm::kPlain}) {
      if (form == MlaForm::kPlain && !latent_) continue;
      const auto options = [&] {
        EngineOptions o = Options();
        o.kv_dtype = kv_dtype;
        o.mla_form = form;
        return o;
      };
      if (!KvCache::CheckType(dims_, kv_dtype).ok()) continue;
      const std::map<int64_t, uint64_t> base = Hashes(options());
      ASSERT_GE(base.size(), 12u);
      SCOPED_TRACE(absl::StrCat("KV cache of ", GetFormat(kv_dtype).name,
                                form == MlaForm::kPlain ? ", plain" : ""));
      for (int block_size : {1, 7, 64}) {
        EngineOptions o = options();
        o.block_size = block_size;
        o.shuffle_kv_seed = 5;
        EXPECT_EQ(Hashes(std::move(o)), base) << "KV blocks of " << block_size;
      }
      for (int slots : {top_k_, num_experts_ / 2, 1}) {
        for (const char* policy : {"lru", "random"}) {
          EngineOptions o = options();
          o.host_experts = std::max(slots, 1);
          o.expert_policy = policy;
          EXPECT_EQ(Hashes(std::move(o)), base) << slots << " slots a layer, " << policy;
        }
      }
      for (int on_device : {1, num_experts_ / 2, num_experts_}) {
        EngineOptions o = options();
        o.device_backend = Device(o);
        o.device_experts = on_device;
        o.host_experts = std::max(1, num_experts_ - on_device);
        EXPECT_EQ(Hashes(std::move(o)), base) << on_device << " experts on a device";
      }
      EngineOptions o = options();
      o.dense_backend = Device(o);
      EXPECT_EQ(Hashes(std::move(o)), base) << "dense weights on a device";
      o = options();
      o.dense_backend = Device(o);
      o.device_backend = Device(o);
      o.device_experts = num_experts_ / 2;
      o.host_experts = 1;
      EXPECT_EQ(Hashes(std::move(o)), base) << "dense weights and half the experts on devices";
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, PlacesTest,
                         testing::Values(ContractCase{"qwen3_moe", ""},
                                         ContractCase{"quantised/qwen3_moe-q4_k_m.gguf", ""},
                                         ContractCase{"quantised/qwen3_moe-q4_k_m.gguf", "avx2"},
                                         ContractCase{"deepseek_v3", ""},
                                         ContractCase{"gpt_oss-mxfp4", ""},
                                         ContractCase{"longcat_flash", ""},
                                         ContractCase{"qwen3_next", ""}),
                         [](const auto& info) { return NameOf(info.param); });

// With every kernel that the library has, whether or not this machine would choose it: of a model
// whose matrices are large enough for it.
TEST(NumericContract, OneDnnsKernelsAreNoException) {
  if (!OneDnnMatMul::Available()) GTEST_SKIP() << "oneDNN has no product of our panels here";
  const std::string path = testing::TempDir() + "/thermocline_tiny_bf16.gguf";
  ASSERT_TRUE(WriteRandomModel("tiny:bf16", path).ok());
  std::vector<std::vector<int32_t>> prompts;
  for (int i = 0; i < 3; ++i) {
    prompts.emplace_back();
    for (int t = 0; t < 300 + 5 * i; ++t) prompts.back().push_back((7 * t + 11 * i) % 4096);
  }
  for (const DType kv_dtype : {DType::kF16, DType::kBF16}) {
    const auto options = [&](bool onednn) {
      EngineOptions o;
      o.model_path = path;
      o.activations = Activations::kInt8;
      o.backend_options.onednn = onednn;
      o.kv_dtype = kv_dtype;
      o.kv_tokens = 2048;
      o.num_threads = 2;
      o.scheduler.max_batch_tokens = 512;
      return o;
    };
    SCOPED_TRACE(GetFormat(kv_dtype).name);
    const auto base = HashesOfFirst(options(true), prompts);
    ASSERT_GE(base.size(), 12u);
    EXPECT_NE(HashesOfFirst(options(false), prompts), base) << "it was not used";
    EXPECT_EQ(HashesOfFirst(options(true), {prompts[0]}), base) << "alone";
    for (const int chunk : {13, 64, 300}) {
      EngineOptions o = options(true);
      o.scheduler.max_batch_tokens = chunk;
      o.num_threads = 3;
      EXPECT_EQ(HashesOfFirst(std::move(o), prompts), base) << "steps of " << chunk;
    }
    for (const int slots : {1, 4}) {
      EngineOptions o = options(true);
      o.host_experts = slots;
      o.poison_evicted = true;
      EXPECT_EQ(HashesOfFirst(std::move(o), prompts), base) << slots << " slots a layer";
    }
    EngineOptions o = options(true);
    BackendOptions device = o.backend_options;
    o.dense_backend = MakeFakeDevice(MakeTestBackend("cpu", 2, device));
    o.device_backend = MakeFakeDevice(MakeTestBackend("cpu", 2, device));
    o.device_experts = 8;
    o.host_experts = 2;
    EXPECT_EQ(HashesOfFirst(std::move(o), prompts), base) << "dense weights and experts on devices";
  }
}

// Vector lengths differ, sums do not.
TEST(NumericContract, InstructionSetsGiveTheSameBits) {
  std::vector<int32_t> prompt;
  for (int t = 0; t < 40; ++t) prompt.push_back(3 + 7 * t % 45);
  for (const char* model : {"qwen3_moe", "quantised/qwen3_moe-q4_k_m.gguf", "deepseek_v3",
                            "gpt_oss-mxfp4", "qwen3_moe-bf16", "qwen3_next", "lfm2_moe"}) {
    std::map<int64_t, uint64_t> scalar;
    for (const char* isa : {"scalar", "avx2", "avx512"}) {
      if (!SelectKernels(isa).ok()) continue;
      EngineOptions options;
      options.model_path = GoldenPath(model);
      options.backend_options.isa = isa;
      options.backend_options.onednn = false;
      options.activations = Activations::kInt8;
      options.kv_tokens = 512;
      const auto hashes = HashesOfFirst(std::move(options), {prompt});
      ASSERT_GE(hashes.size(), 12u);
      if (scalar.empty()) scalar = hashes;
      EXPECT_EQ(hashes, scalar) << model << " with " << isa;
    }
  }
}

// A pool too small for all: sequences are preempted and recomputed, and nobody's logits change. The
// fixed-size state of recurrent layers starts anew with them.
TEST(NumericContract, PreemptionDoesNotShow) {
  for (const std::string& model : {DemoPath(), GoldenPath("qwen3_next"), GoldenPath("lfm2_moe")}) {
    const auto options = [&](int64_t kv_tokens) {
      EngineOptions o;
      o.model_path = model;
      o.kv_tokens = kv_tokens;
      return o;
    };
    std::vector<std::vector<int32_t>> prompts(4);
    for (size_t i = 0; i < prompts.size(); ++i) {
      for (int t = 0; t < 60; ++t)
        prompts[i].push_back((100 + static_cast<int32_t>(i) * 37 + t * 3) % 64);
    }
    const auto roomy = MakeEngine(options(4096)),
               tight = MakeEngine(options(272));  // 17 blocks; four sequences need 4 * 5
    EXPECT_EQ(Greedy(tight.get(), prompts, 20), Greedy(roomy.get(), prompts, 20)) << model;
    EXPECT_GT(tight->Snapshot().num_preemptions, 0) << model;
    EXPECT_EQ(roomy->Snapshot().num_preemptions, 0) << model;
  }
}

}  // namespace
}  // namespace thermocline
