// The reference checkpoints as they were made, with F32 weights and all of the vocabulary, and
// small models as llama.cpp's quantiser writes them. All but one are too big for the repository and
// lie in
// ../shared; tests/data/golden has what golden_test.cc needs of them.
#include <gtest/gtest.h>

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "tests/support/golden_checks.h"
#include "tests/support/test_name.h"

namespace thermocline {
namespace {

class OriginalTest : public testing::TestWithParam<const char*> {};

TEST_P(OriginalTest, IsReproducedFromBothFormatsOnBothBackends) {
  const std::string folder = SharedPath(absl::StrCat("golden/", GetParam()));
  if (folder.empty())
    GTEST_SKIP() << "../shared/golden is not there: checkpoints as they were made, 46 MB";
  const Golden golden = LoadGolden(folder);
  std::vector<std::string> models = {folder};
  // llama.cpp reads some of these shapes differently; those have no twin.
  if (std::filesystem::exists(folder + "/model-f32.gguf"))
    models.push_back(folder + "/model-f32.gguf");
  for (const std::string& model : models) {
    for (const char* backend : {"reference", "cpu"}) {
      SCOPED_TRACE(model + " on " + backend);
      ExpectHiddenStatesAndLogits(golden, ExactOptions(model, backend));
      ExpectGreedy(golden, ExactOptions(model, backend), ExactOptions(model, backend));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, OriginalTest,
                         testing::Values("deepseek_v2", "deepseek_v2-group", "deepseek_v3", "dots1",
                                         "ernie4_5_moe", "glm4_moe", "gpt_oss", "gpt_oss-mxfp4",
                                         "granitemoe", "granitemoeshared", "hunyuan_v1_moe",
                                         "lfm2_moe", "llama", "llama3-rope", "longcat_flash",
                                         "minimax_m2", "mixtral", "mixtral-swa", "olmoe",
                                         "olmoe-clip", "phimoe", "qwen2_moe", "qwen2_moe-plain",
                                         "qwen3", "qwen3_moe", "qwen3_moe-bf16", "qwen3_next"),
                         kNamedByItself);

// `path`: without what follows the name of the format.
void ExpectQuantisedIsReproduced(const std::string& path) {
  auto reference = ReadPlainTensors(path + ".reference.safetensors");
  ASSERT_TRUE(reference.ok()) << reference.status();
  for (const char* backend : {"reference", "cpu"}) {
    SCOPED_TRACE(backend);
    const auto engine = MakeEngine(ExactOptions(path + ".gguf", backend));
    ASSERT_NE(engine, nullptr);
    ExpectLogits(Score(engine.get(), ToTokens((*reference)["prompt"])), (*reference)["logits"],
                 ToleranceOf(backend));
  }
}

// One of the nine is in the repository.
TEST(QuantisedGolden, LogitsOfQ4KMAgree) {
  ExpectQuantisedIsReproduced(GoldenPath("quantised/qwen3_moe-q4_k_m"));
}

class QuantisedGoldenTest : public testing::TestWithParam<const char*> {};

TEST_P(QuantisedGoldenTest, LogitsAgree) {
  const std::string folder = SharedPath("golden/quantised");
  if (folder.empty())
    GTEST_SKIP() << "../shared/golden is not there: models by llama.cpp's quantiser, 12 MB";
  ExpectQuantisedIsReproduced(absl::StrCat(folder, "/qwen3_moe-", GetParam()));
}

INSTANTIATE_TEST_SUITE_P(All, QuantisedGoldenTest,
                         testing::Values("iq4_nl", "mxfp4", "q2_k", "q3_k_m", "q4_0", "q5_k_m",
                                         "q6_k", "q8_0"),
                         kNamedByItself);

}  // namespace
}  // namespace thermocline
