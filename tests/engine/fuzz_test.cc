// Truncated and bit-flipped model files: always a Status or a working model, never a crash. Fixed
// seeds; run under AddressSanitizer in CI.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <random>

#include "engine/engine.h"
#include "engine/formats/checkpoint.h"
#include "engine/model/model.h"
#include "engine/text/tokenizer/tokenizer.h"
#include "engine/weights/expert_files.h"
#include "kernels/host_device.h"
#include "tests/support/golden.h"

namespace thermocline {
namespace {

namespace fs = std::filesystem;

std::string ReadFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(in), {});
}

class HostileFileTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("thermocline-fuzz-" + std::to_string(getpid()));
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  void Write(const std::string& name, absl::string_view bytes) {
    std::ofstream out(folder_ / name, std::ios::binary | std::ios::trunc);
    out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  }

  // Everything up to the first step: metadata, tokenizer, configuration, tensor table, weights.
  bool Load(const std::string& path) {
    absl::StatusOr<std::unique_ptr<Checkpoint>> checkpoint = Checkpoint::Open(path);
    if (!checkpoint.ok()) {
      EXPECT_FALSE(checkpoint.status().message().empty());
      return false;
    }
    (void)TokenizerOf(**checkpoint);
    absl::StatusOr<std::unique_ptr<Model>> model = MakeModel(**checkpoint);
    if (!model.ok()) return false;
    HostDevice device;
    absl::StatusOr<std::unique_ptr<WeightStore>> weights =
        WeightStore::Create(checkpoint->get(), TensorsOf(model->get()), &device);
    if (!weights.ok()) return false;
    const auto experts = ExpertFiles::Create(checkpoint->get(), (*weights)->table(),
                                             (*model)->dims().num_hidden_layers);
    WorkerPool pool(1);
    return experts.ok() && (*weights)->LoadDense(&pool, nullptr).ok();
  }

  fs::path folder_;
};

// Positions spread over the file, dense where the metadata is.
std::vector<size_t> Positions(size_t size, size_t dense_until, int count) {
  std::vector<size_t> positions;
  for (int i = 0; i < count / 2; ++i)
    positions.push_back(dense_until * static_cast<size_t>(i) / (static_cast<size_t>(count) / 2));
  for (int i = 0; i < count - count / 2; ++i)
    positions.push_back(size * static_cast<size_t>(i) / static_cast<size_t>(count - count / 2));
  return positions;
}

TEST_F(HostileFileTest, TruncatedGguf) {
  const std::string whole = ReadFile(GoldenPath("llama3-rope") + "/model-f32.gguf");
  ASSERT_FALSE(whole.empty());
  Write("m.gguf", whole);
  EXPECT_TRUE(Load((folder_ / "m.gguf").string()));
  for (size_t size : Positions(whole.size() - 1, 12000, 1000)) {
    Write("m.gguf", absl::string_view(whole).substr(0, size));
    EXPECT_FALSE(Load((folder_ / "m.gguf").string())) << size;
  }
}

TEST_F(HostileFileTest, FlippedBytesInGguf) {
  std::string bytes = ReadFile(GoldenPath("llama3-rope") + "/model-f32.gguf");
  std::mt19937 random(11);
  for (int i = 0; i < 10000; ++i) {
    const size_t at = i % 8 == 0 ? random() % bytes.size() : random() % 12000;  // mostly metadata
    const char original = bytes[at];
    bytes[at] = static_cast<char>(i % 2 == 0 ? random() : original ^ (1 << (random() % 8)));
    Write("m.gguf", bytes);
    (void)Load((folder_ / "m.gguf").string());
    bytes[at] = original;
  }
}

TEST_F(HostileFileTest, TruncatedSafetensors) {
  const std::string source = GoldenPath("llama3-rope");
  fs::copy_file(source + "/config.json", folder_ / "config.json");
  const std::string whole = ReadFile(source + "/model.safetensors");
  Write("model.safetensors", whole);
  EXPECT_TRUE(Load(folder_.string()));
  for (size_t size : Positions(whole.size() - 1, 3500, 1000)) {
    Write("model.safetensors", absl::string_view(whole).substr(0, size));
    EXPECT_FALSE(Load(folder_.string())) << size;
  }
}

TEST_F(HostileFileTest, FlippedBytesInSafetensorsAndConfig) {
  const std::string source = GoldenPath("llama3-rope");
  std::string weights = ReadFile(source + "/model.safetensors"),
              config = ReadFile(source + "/config.json");
  std::mt19937 random(12);
  for (int i = 0; i < 10000; ++i) {
    std::string& bytes = i % 3 == 0 ? config : weights;
    const size_t at = random() % std::min<size_t>(bytes.size(), 3500);
    const char original = bytes[at];
    bytes[at] = static_cast<char>(i % 2 == 0 ? random() : original ^ (1 << (random() % 8)));
    Write("config.json", config);
    Write("model.safetensors", weights);
    (void)Load(folder_.string());
    bytes[at] = original;
  }
}

TEST_F(HostileFileTest, TokenizerJsonFlippedAndTruncated) {
  // A small but complete tokenizer.json.
  const std::string good =
      R"({"added_tokens":[{"id":5,"content":"<s>","special":true}],"normalizer":{"type":"NFC"},)"
      R"("pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":"\\p{L}+|\\s+"},"behavior":"Isolated","invert":false},{"type":"ByteLevel","add_prefix_space":false,"use_regex":false}]},)"
      R"("model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2,"Ġ":3,"Ġa":4},"merges":["a b",["Ġ","a"]]}})";
  Write("tokenizer.json", good);
  const auto tokenizer = TokenizerFromFolder(folder_.string());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ(*(*tokenizer)->Encode("ab a<s>", true), (std::vector<int32_t>{2, 3, 0, 5}));
  std::mt19937 random(13);
  for (size_t size = 0; size < good.size(); ++size) {
    Write("tokenizer.json", absl::string_view(good).substr(0, size));
    (void)TokenizerFromFolder(folder_.string());
    std::string bytes = good;
    bytes[size] = static_cast<char>(random());
    Write("tokenizer.json", bytes);
    const auto flipped = TokenizerFromFolder(folder_.string());
    if (flipped.ok()) (void)(*flipped)->Encode("ab a<s> \xF0\x9F\x98\x80", true);
  }
}

TEST_F(HostileFileTest, GgufVersions2And3AreReadAndOthersRefused) {
  std::string bytes = ReadFile(GoldenPath("llama3-rope") + "/model-f32.gguf");
  for (const char version : {1, 2, 3, 4}) {
    bytes[4] = version;
    Write("m.gguf", bytes);
    EXPECT_EQ(Load((folder_ / "m.gguf").string()), version == 2 || version == 3)
        << static_cast<int>(version);
  }
}

// Writes the tensors of `header` that `keep` chooses, with their bytes, as a safetensors file.
void WritePart(const fs::path& path, const nlohmann::json& header, absl::string_view data,
               const std::function<bool(int)>& keep) {
  nlohmann::json part;
  std::string bytes;
  int number = 0;
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__" || !keep(number++)) continue;
    const size_t begin = entry["data_offsets"][0], end = entry["data_offsets"][1];
    part[name] = entry;
    part[name]["data_offsets"] = {bytes.size(), bytes.size() + end - begin};
    bytes += std::string(data.substr(begin, end - begin));
  }
  const std::string text = part.dump();
  const uint64_t length = text.size();
  std::ofstream out(path, std::ios::binary);
  out.write(reinterpret_cast<const char*>(&length), 8);
  out << text << bytes;
}

TEST_F(HostileFileTest, SafetensorsShardedByAnIndexAreTheSameModel) {
  const std::string source = GoldenPath("llama3-rope");
  const std::string whole = ReadFile(source + "/model.safetensors");
  uint64_t length = 0;
  std::memcpy(&length, whole.data(), 8);
  const nlohmann::json header = nlohmann::json::parse(whole.substr(8, length));
  const absl::string_view data = absl::string_view(whole).substr(8 + length);
  fs::copy_file(source + "/config.json", folder_ / "config.json");
  WritePart(folder_ / "a.safetensors", header, data, [](int n) { return n % 2 == 0; });
  WritePart(folder_ / "b.safetensors", header, data, [](int n) { return n % 2 == 1; });
  nlohmann::json index;
  for (const auto& [name, entry] : header.items()) {
    index["weight_map"][name] = name < "model.layers.1" ? "a.safetensors" : "b.safetensors";
  }
  Write("model.safetensors.index.json", index.dump());
  const auto score = [](const std::string& path) {
    EngineOptions options;
    options.model_path = path;
    return Score(MakeEngine(std::move(options)).get(), {1, 2, 3}).logits;
  };
  EXPECT_EQ(score(folder_.string()), score(source));
  fs::remove(folder_ / "b.safetensors");
  EXPECT_FALSE(Load(folder_.string()));
  index["weight_map"]["x"] = "../outside.safetensors";
  Write("model.safetensors.index.json", index.dump());
  EXPECT_FALSE(Load(folder_.string()));
}

TEST(Checkpoint, NamesWhatIsWrong) {
  EXPECT_EQ(Checkpoint::Open("/nowhere/model.gguf").status().code(), absl::StatusCode::kNotFound);
  const std::string wrong = GoldenPath("llama3-rope") + "/config.json";
  EXPECT_NE(Checkpoint::Open(wrong).status().message().find("neither a .gguf file nor a folder"),
            std::string::npos);
}

TEST(Checkpoint, RefusesShapesThatOverflow) {
  EXPECT_FALSE(CheckedTensorBytes(DType::kF32, {int64_t{1} << 40, int64_t{1} << 40}).ok());
  EXPECT_FALSE(CheckedTensorBytes(DType::kF32, {int64_t{1} << 62}).ok());
  EXPECT_FALSE(CheckedTensorBytes(DType::kQ4_K, {4, 100}).ok());
  EXPECT_FALSE(CheckedTensorBytes(DType::kF32, {}).ok());
  EXPECT_FALSE(CheckedTensorBytes(DType::kF32, {0}).ok());
  EXPECT_EQ(*CheckedTensorBytes(DType::kQ4_K, {4, 512}), 4 * 2 * 144);
}

TEST(MakeModel, AnUnknownArchitectureListsTheSupportedOnes) {
  Checkpoint checkpoint(Checkpoint::Kind::kHuggingFace, "nowhere");
  *checkpoint.mutable_config() = {{"model_type", "abacus"}};
  const auto model = MakeModel(checkpoint);
  ASSERT_EQ(model.status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_NE(model.status().message().find("\"abacus\""), std::string::npos);
  EXPECT_NE(model.status().message().find("granitemoe"), std::string::npos);
}

}  // namespace
}  // namespace thermocline
