// The reference checkpoints, from both formats, on both backends: hidden states layer by layer,
// logits, greedy continuations.
#include <gtest/gtest.h>

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "tests/support/golden.h"

namespace thermocline {
namespace {

struct GoldenCase {
  const char* folder;
  bool gguf;
  const char* backend;
};

std::string NameOf(const testing::TestParamInfo<GoldenCase>& info) {
  std::string name =
      absl::StrCat(info.param.folder, info.param.gguf ? "_gguf_" : "_hf_", info.param.backend);
  for (char& c : name) {
    if (c == '-') c = '_';
  }
  return name;
}

class GoldenTest : public testing::TestWithParam<GoldenCase> {
 protected:
  void SetUp() override {
    const std::string folder = GoldenPath(GetParam().folder);
    if (folder.empty()) GTEST_SKIP() << "golden data absent";
    path_ = GetParam().gguf ? folder + "/model-f32.gguf" : folder;
    std::error_code error;
    if (!std::filesystem::exists(path_, error)) GTEST_SKIP() << "no GGUF twin";
    auto reference = ReadPlainTensors(folder + "/reference.safetensors");
    ASSERT_TRUE(reference.ok()) << reference.status();
    reference_ = *std::move(reference);
  }

  EngineOptions Options() {
    EngineOptions options;
    options.model_path = path_;
    options.backend = GetParam().backend;
    options.backend_options.num_threads = 2;
    options.activations = Activations::kF32;
    options.kv_dtype = DType::kF32;
    return options;
  }
  double tolerance() const {
    return absl::string_view(GetParam().backend) == "reference" ? kReferenceTolerance
                                                                : kCpuTolerance;
  }

  std::string path_;
  std::map<std::string, PlainTensor> reference_;
};

TEST_P(GoldenTest, HiddenStatesLayerByLayerThenLogits) {
  const std::vector<int32_t> prompt = ToTokens(reference_["prompt"]);
  EngineOptions options = Options();
  int last_layer = 0;
  while (reference_.count(absl::StrCat("hidden.", last_layer + 1)) > 0) ++last_layer;
  options.hidden_observer = [&](int layer, const Batch&, absl::Span<const float> hidden) {
    // The reference reports the last one after the final norm, and llama.cpp none.
    if (layer >= last_layer) return;
    const PlainTensor& expected = reference_[absl::StrCat("hidden.", layer)];
    ASSERT_EQ(hidden.size(), expected.f32.size());
    const std::vector<float> actual(hidden.begin(), hidden.end());
    ASSERT_LE(MaxError(actual, expected.f32.data(), Largest(expected.f32)), tolerance())
        << "layer " << layer;
  };
  const std::unique_ptr<Engine> engine = MakeEngine(std::move(options));
  ASSERT_NE(engine, nullptr);
  const ScoreOutput output = Score(engine.get(), prompt);
  const PlainTensor& expected = reference_["logits"];
  ASSERT_EQ(output.logits.size(), prompt.size());
  const size_t vocab = static_cast<size_t>(expected.shape[1]);
  double worst = 0.0;
  for (size_t t = 0; t < prompt.size(); ++t) {
    worst = std::max(worst,
                     MaxError(output.logits[t], &expected.f32[t * vocab], Largest(expected.f32)));
  }
  EXPECT_LE(worst, tolerance());
  RecordProperty("worst_relative_error", absl::StrCat(worst));
}

TEST_P(GoldenTest, GreedyIsReproducedAloneAndAmongOthers) {
  if (reference_.count("greedy") == 0) GTEST_SKIP() << "no greedy continuation in the reference";
  const std::vector<int32_t> prompt = ToTokens(reference_["prompt"]),
                             greedy = ToTokens(reference_["greedy"]);
  const int64_t count = static_cast<int64_t>(greedy.size());
  EngineOptions options = Options();
  options.scheduler.max_batch_tokens = 33;  // prompts are cut into chunks that straddle sequences
  const std::unique_ptr<Engine> engine = MakeEngine(std::move(options));
  ASSERT_NE(engine, nullptr);
  EXPECT_EQ(Greedy(engine.get(), {prompt}, count)[0], greedy);
  // Among shorter prompts of the same text.
  std::vector<std::vector<int32_t>> prompts = {prompt};
  for (size_t n = 1; n < prompt.size(); n += 7)
    prompts.emplace_back(prompt.begin(), prompt.begin() + n);
  prompts.push_back(prompt);
  const auto outputs = Greedy(engine.get(), prompts, count);
  EXPECT_EQ(outputs.front(), greedy);
  EXPECT_EQ(outputs.back(), greedy);
  EXPECT_EQ(engine->Load().kv_blocks_used, 0);
}

// Latent attention in its two forms: absorbed, as everywhere above, and plain.
class PlainMlaTest : public GoldenTest {};

TEST_P(PlainMlaTest, AgreesWithTheAbsorbedForm) {
  const std::vector<int32_t> prompt = ToTokens(reference_["prompt"]);
  EngineOptions plain_options = Options();
  plain_options.mla_form = MlaForm::kPlain;
  const auto absorbed = MakeEngine(Options()), plain = MakeEngine(std::move(plain_options));
  ASSERT_NE(absorbed, nullptr);
  ASSERT_NE(plain, nullptr);
  EXPECT_GT(plain->kv_bytes(), absorbed->kv_bytes());
  const ScoreOutput expected = Score(absorbed.get(), prompt), actual = Score(plain.get(), prompt);
  const PlainTensor& reference = reference_["logits"];
  const size_t vocab = static_cast<size_t>(reference.shape[1]);
  for (size_t t = 0; t < prompt.size(); ++t) {
    const double largest = Largest(reference.f32);
    ASSERT_LE(MaxError(actual.logits[t], expected.logits[t].data(), largest), tolerance());
    ASSERT_LE(MaxError(actual.logits[t], &reference.f32[t * vocab], largest), tolerance());
  }
  const std::vector<int32_t> greedy = ToTokens(reference_["greedy"]);
  EXPECT_EQ(Greedy(plain.get(), {prompt}, static_cast<int64_t>(greedy.size()))[0], greedy);
}

std::vector<GoldenCase> MlaCases() {
  std::vector<GoldenCase> cases;
  for (const char* folder : {"deepseek_v2", "deepseek_v2-group", "deepseek_v3", "longcat_flash"}) {
    for (const char* backend : {"reference", "cpu"}) cases.push_back({folder, false, backend});
  }
  return cases;
}

INSTANTIATE_TEST_SUITE_P(All, PlainMlaTest, testing::ValuesIn(MlaCases()), NameOf);

std::vector<GoldenCase> Cases() {
  std::vector<GoldenCase> cases;
  for (const char* folder :
       {"bailing_moe", "bailing_moe_v2",   "deepseek_v2",    "deepseek_v2-group", "deepseek_v3",
        "dots1",       "ernie4_5_moe",     "glm4_moe",       "gpt_oss",           "gpt_oss-mxfp4",
        "granitemoe",  "granitemoeshared", "hunyuan_v1_moe", "lfm2_moe",          "llama",
        "llama3-rope", "longcat_flash",    "minimax_m2",     "mixtral",           "mixtral-swa",
        "olmoe",       "olmoe-clip",       "phimoe",         "qwen2_moe",         "qwen2_moe-plain",
        "qwen3",       "qwen3_moe",        "qwen3_moe-bf16", "qwen3_next"}) {
    for (bool gguf : {false, true}) {
      for (const char* backend : {"reference", "cpu"}) cases.push_back({folder, gguf, backend});
    }
  }
  return cases;
}

INSTANTIATE_TEST_SUITE_P(All, GoldenTest, testing::ValuesIn(Cases()), NameOf);

// Small models as llama.cpp's quantiser writes them.
class QuantisedGoldenTest : public testing::TestWithParam<std::tuple<const char*, const char*>> {};

TEST_P(QuantisedGoldenTest, LogitsAgree) {
  const auto [format, backend] = GetParam();
  const std::string model = GoldenPath(absl::StrCat("quantised/qwen3_moe-", format, ".gguf"));
  if (model.empty()) GTEST_SKIP() << "golden data absent";
  auto reference = ReadPlainTensors(
      GoldenPath(absl::StrCat("quantised/qwen3_moe-", format, ".reference.safetensors")));
  ASSERT_TRUE(reference.ok()) << reference.status();
  EngineOptions options;
  options.model_path = model;
  options.backend = backend;
  options.activations = Activations::kF32;
  options.kv_dtype = DType::kF32;
  const std::unique_ptr<Engine> engine = MakeEngine(std::move(options));
  ASSERT_NE(engine, nullptr);
  const ScoreOutput output = Score(engine.get(), ToTokens((*reference)["prompt"]));
  const PlainTensor& expected = (*reference)["logits"];
  const size_t vocab = static_cast<size_t>(expected.shape[1]);
  const double bound =
      absl::string_view(backend) == "reference" ? kReferenceTolerance : kCpuTolerance;
  ASSERT_EQ(output.logits.size(), static_cast<size_t>(expected.shape[0]));
  for (size_t t = 0; t < output.logits.size(); ++t) {
    ASSERT_LE(MaxError(output.logits[t], &expected.f32[t * vocab], Largest(expected.f32)), bound)
        << "token " << t;
  }
}

INSTANTIATE_TEST_SUITE_P(All, QuantisedGoldenTest,
                         testing::Combine(testing::Values("iq4_nl", "mxfp4", "q2_k", "q3_k_m",
                                                          "q4_0", "q4_k_m", "q5_k_m", "q6_k",
                                                          "q8_0"),
                                          testing::Values("reference", "cpu")),
                         [](const auto& info) {
                           return absl::StrCat(std::get<0>(info.param), "_",
                                               std::get<1>(info.param));
                         });

}  // namespace
}  // namespace thermocline
