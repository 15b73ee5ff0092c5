// The reference checkpoints of tests/data/golden, from both formats, on both backends: hidden
// states layer by layer, logits, greedy continuations. No architecture is without one.
#include <gtest/gtest.h>

#include <filesystem>
#include <ostream>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "engine/model/model.h"
#include "tests/support/golden_checks.h"
#include "tests/support/golden_folders.h"
#include "tests/support/test_name.h"

namespace thermocline {
namespace {

struct GoldenCase {
  const char* folder;
  const char* gguf;  // the file in it, written by llama.cpp's converter; empty: the folder itself
  const char* backend;
};

std::string NameOf(const GoldenCase& golden) {
  return TestName(
      absl::StrCat(golden.folder, *golden.gguf != 0 ? "_gguf_" : "_hf_", golden.backend));
}

void PrintTo(const GoldenCase& golden, std::ostream* out) { *out << NameOf(golden); }

class GoldenTest : public testing::TestWithParam<GoldenCase> {
 protected:
  void SetUp() override { golden_ = LoadGolden(GoldenPath(GetParam().folder)); }

  EngineOptions Options() const {
    const std::string file = GetParam().gguf;
    return ExactOptions(file.empty() ? golden_.path : golden_.path + "/" + file,
                        GetParam().backend);
  }

  Golden golden_;
};

TEST_P(GoldenTest, HiddenStatesLayerByLayerThenLogits) {
  ExpectHiddenStatesAndLogits(golden_, Options());
}

TEST_P(GoldenTest, GreedyIsReproducedAloneAndAmongOthers) {
  ExpectGreedy(golden_, Options(), Options());
}

std::vector<GoldenCase> Cases() {
  std::vector<GoldenCase> cases;
  for (const char* backend : {"reference", "cpu"}) {
    for (const char* folder : kGoldenFolders) cases.push_back({folder, "", backend});
    cases.push_back({"granitemoeshared", "model-bf16.gguf", backend});
    cases.push_back({"llama3-rope", "model-f32.gguf", backend});
  }
  return cases;
}

INSTANTIATE_TEST_SUITE_P(All, GoldenTest, testing::ValuesIn(Cases()),
                         [](const auto& info) { return NameOf(info.param); });

// Latent attention in its two forms: absorbed, as everywhere above, and plain.
class PlainMlaTest : public GoldenTest {};

TEST_P(PlainMlaTest, AgreesWithTheAbsorbedForm) {
  EngineOptions plain_options = Options();
  plain_options.mla_form = MlaForm::kPlain;
  const auto absorbed = MakeEngine(Options()), plain = MakeEngine(std::move(plain_options));
  ASSERT_NE(absorbed, nullptr);
  ASSERT_NE(plain, nullptr);
  EXPECT_GT(plain->kv_bytes(), absorbed->kv_bytes());
  const double tolerance = ToleranceOf(GetParam().backend);
  const ScoreOutput expected = Score(absorbed.get(), golden_.prompt),
                    actual = Score(plain.get(), golden_.prompt);
  ExpectLogits(actual, golden_.logits, tolerance);
  for (size_t t = 0; t < golden_.prompt.size(); ++t) {
    ASSERT_LE(MaxError(actual.logits[t], expected.logits[t].data(), Largest(golden_.logits.f32)),
              tolerance);
  }
  EXPECT_EQ(Greedy(plain.get(), {golden_.prompt}, static_cast<int64_t>(golden_.greedy.size()))[0],
            golden_.greedy);
}

std::vector<GoldenCase> MlaCases() {
  std::vector<GoldenCase> cases;
  for (const char* folder :
       {"deepseek_v2", "deepseek_v2-group", "deepseek_v3", "kimi_k2", "longcat_flash"}) {
    for (const char* backend : {"reference", "cpu"}) cases.push_back({folder, "", backend});
  }
  return cases;
}

INSTANTIATE_TEST_SUITE_P(All, PlainMlaTest, testing::ValuesIn(MlaCases()),
                         [](const auto& info) { return NameOf(info.param); });

TEST(GoldenFolders, HoldEveryArchitectureOfTheRegistry) {
  std::set<std::string> architectures;
  for (const char* folder : kGoldenFolders) {
    const auto checkpoint = Checkpoint::Open(GoldenPath(folder));
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
    architectures.insert(ArchitectureName(ConfigReader(**checkpoint)));
  }
  for (absl::string_view name : absl::StrSplit(SupportedArchitectures(), ", "))
    EXPECT_EQ(architectures.count(std::string(name)), 1u) << name << " has no reference checkpoint";
}

TEST(GoldenFolders, AreAllRun) {
  const std::set<std::string> listed(std::begin(kGoldenFolders), std::end(kGoldenFolders));
  std::set<std::string> there;
  for (const auto& entry : std::filesystem::directory_iterator(GoldenPath(""))) {
    if (std::filesystem::exists(entry.path() / "config.json"))
      there.insert(entry.path().filename().string());
  }
  EXPECT_EQ(there, listed);
}

}  // namespace
}  // namespace thermocline
