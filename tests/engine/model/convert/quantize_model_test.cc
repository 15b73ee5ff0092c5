// GGUF to GGUF: which tensor gets which type, importance matrices, and that nothing is lost.
#include "engine/model/convert/quantize_model.h"

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "engine/formats/gguf_writer.h"
#include "engine/model/convert/importance_matrix.h"
#include "tests/support/golden.h"
#include "tests/support/temporary_file.h"

namespace thermocline {
namespace {

TensorRole Role(const std::string& name, std::vector<int64_t> shape, int layer = -1) {
  return {name, std::move(shape), layer, 16, false};
}

TEST(TypeFor, GivesMoreBitsWhereTheyMatter) {
  const DType q4 = DType::kQ4_K;
  EXPECT_EQ(TypeFor(q4, false, Role("blk.3.ffn_up.weight", {512, 256}, 3)), q4);
  EXPECT_EQ(TypeFor(q4, false, Role("output.weight", {512, 256})), DType::kQ6_K);
  EXPECT_EQ(TypeFor(q4, true, Role("output.weight", {512, 256})), q4);
  EXPECT_EQ(TypeFor(q4, false, Role("blk.0.attn_v.weight", {512, 256}, 0)), DType::kQ6_K);
  EXPECT_EQ(TypeFor(q4, false, Role("blk.2.attn_v.weight", {512, 256}, 2)), q4);
  EXPECT_EQ(TypeFor(q4, false, Role("blk.4.ffn_down_exps.weight", {8, 512, 256}, 4)), DType::kQ6_K);
  EXPECT_EQ(TypeFor(DType::kMXFP4, false, Role("blk.4.ffn_down_exps.weight", {8, 512, 256}, 4)),
            DType::kMXFP4);
  EXPECT_EQ(TypeFor(DType::kMXFP4, false, Role("blk.4.attn_q.weight", {512, 256}, 4)),
            DType::kQ8_0);
  TensorRole tied = Role("token_embd.weight", {512, 256});
  EXPECT_EQ(TypeFor(q4, false, tied), q4);
  tied.tied = true;
  EXPECT_EQ(TypeFor(q4, false, tied), DType::kQ6_K);
}

TEST(TypeFor, KeepsWhatIsSmallAndFallsBackWhereBlocksDoNotFit) {
  for (const char* name : {"output_norm.weight", "blk.0.attn_norm.weight", "blk.0.attn_q.bias",
                           "blk.0.ffn_gate_inp.weight", "blk.0.ssm_conv1d.weight"}) {
    EXPECT_EQ(TypeFor(DType::kQ4_K, true, Role(name, {512, 256}, 0)), DType::kF32) << name;
  }
  EXPECT_EQ(TypeFor(DType::kQ4_0, true, Role("blk.0.attn_q.weight", {256}, 0)), DType::kF32);
  EXPECT_EQ(TypeFor(DType::kQ4_K, true, Role("blk.0.attn_q.weight", {512, 96}, 0)), DType::kIQ4_NL);
  EXPECT_EQ(TypeFor(DType::kQ6_K, true, Role("blk.0.attn_q.weight", {512, 96}, 0)), DType::kQ8_0);
  EXPECT_EQ(TypeFor(DType::kQ4_0, true, Role("blk.0.attn_q.weight", {512, 40}, 0)), DType::kF16);
}

TEST(ParseQuantizedType, KnowsTheUsualSpellings) {
  EXPECT_EQ(*ParseQuantizedType("q4_k"), DType::kQ4_K);
  EXPECT_EQ(*ParseQuantizedType("Q4_K_M"), DType::kQ4_K);
  EXPECT_EQ(*ParseQuantizedType("mxfp4_moe"), DType::kMXFP4);
  const auto unknown = ParseQuantizedType("q3_k");
  EXPECT_NE(unknown.status().message().find("\"q3_k\""), std::string::npos);
  EXPECT_NE(unknown.status().message().find("iq4_nl"), std::string::npos);
}

class QuantizeModelTest : public testing::Test {
 protected:
  QuantizeModelTest() {
    options_.input = GoldenPath("quantised/qwen3_moe-q4_k_m.gguf");
    options_.output = file_.path();
    options_.requantize = true;
    options_.num_threads = 2;
  }
  TemporaryFile file_{"quantised.gguf"}, other_{"other.gguf"}, matrix_{"imatrix.dat"};
  QuantizeOptions options_;
};

TEST_F(QuantizeModelTest, F32IsWhatWasDecodedAndMetadataSurvive) {
  options_.type = DType::kF32;
  const auto result = QuantizeModel(options_);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->bytes_by_type.size(), 1u);
  const auto in = Checkpoint::Open(options_.input), out = Checkpoint::Open(file_.path());
  ASSERT_TRUE(out.ok()) << out.status();
  for (const auto& [key, value] : (*in)->metadata()) {
    if (key == "general.file_type") continue;
    EXPECT_EQ((*out)->metadata().at(key), value) << key;
    EXPECT_EQ((*out)->metadata_types().at(key).type, (*in)->metadata_types().at(key).type) << key;
  }
  EngineOptions engine;
  engine.activations = Activations::kF32;
  engine.kv_dtype = DType::kF32;
  engine.backend = "reference";
  engine.model_path = options_.input;
  const std::vector<int32_t> prompt = {1, 7, 30, 12, 90};
  std::vector<std::vector<float>> logits;
  for (const std::string& path : {options_.input, file_.path()}) {
    EngineOptions o;
    o.activations = Activations::kF32;
    o.kv_dtype = DType::kF32;
    o.backend = "reference";
    o.model_path = path;
    const auto model = MakeEngine(std::move(o));
    logits.push_back(Score(model.get(), prompt).logits.back());
  }
  EXPECT_EQ(logits[0], logits[1]);
}

TEST_F(QuantizeModelTest, TheSameWithAnyThreadsAndSmallerThanBefore) {
  options_.type = DType::kQ5_K;
  const auto result = QuantizeModel(options_);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_GT(result->bytes_by_type.at("Q5_K"), 0);
  options_.output = other_.path();
  options_.num_threads = 1;
  ASSERT_TRUE(QuantizeModel(options_).ok());
  const auto read = [](const std::string& path) { return *ReadWholeFile(path, 1 << 28); };
  EXPECT_EQ(read(file_.path()), read(other_.path()));
}

TEST_F(QuantizeModelTest, RulesDecideAndQuantisedTensorsStayUnlessAsked) {
  options_.type = DType::kQ8_0;
  options_.rules = {{"blk\\.0\\.attn_q\\.weight", DType::kF16},
                    {"blk.*attn_q.*", DType::kQ4_0},
                    {"attn_q", DType::kQ8_0}};  // not a whole name
  std::vector<std::string> warnings;
  options_.warn = [&](const std::string& message) { warnings.push_back(message); };
  ASSERT_TRUE(QuantizeModel(options_).ok());
  EXPECT_EQ(warnings, std::vector<std::string>{"rule \"attn_q\" decides no tensor"});
  const auto out = Checkpoint::Open(file_.path());
  ASSERT_TRUE(out.ok());
  EXPECT_EQ((*out)->Find("blk.0.attn_q.weight")->dtype, DType::kF16);
  EXPECT_EQ((*out)->Find("blk.1.attn_q.weight")->dtype, DType::kQ4_0);
  EXPECT_EQ((*out)->Find("blk.1.attn_k.weight")->dtype, DType::kQ8_0);

  options_.output = other_.path();
  options_.requantize = false;
  options_.rules.pop_back();
  warnings.clear();
  ASSERT_TRUE(QuantizeModel(options_).ok());
  EXPECT_EQ(warnings.size(), 1u);
  const auto kept = Checkpoint::Open(other_.path());
  EXPECT_EQ((*kept)->Find("blk.1.attn_k.weight")->dtype, DType::kQ4_K);
}

TEST_F(QuantizeModelTest, ErrorsNameTheCulpritAndLeaveNoFile) {
  const auto expect = [&](const char* part) {
    const auto result = QuantizeModel(options_);
    ASSERT_FALSE(result.ok());
    EXPECT_NE(result.status().message().find(part), std::string::npos) << result.status();
    EXPECT_FALSE(std::filesystem::exists(file_.path()));
    EXPECT_FALSE(std::filesystem::exists(file_.path() + ".partial"));
  };
  const QuantizeOptions good = options_;
  options_.rules = {{"blk.(", DType::kF16}};
  expect("blk.(");
  options_ = good;
  options_.num_threads = -1;
  expect("threads = -1");
  options_ = good;
  options_.input = GoldenPath("llama3-rope");
  expect("Hugging Face folder");
  options_ = good;
  options_.importance_path = "/nowhere/imatrix.dat";
  expect("/nowhere/imatrix.dat");
}

void WriteMatrix(const std::string& path, const std::string& name, const std::vector<float>& values,
                 int32_t calls) {
  std::ofstream out(path, std::ios::binary);
  const auto number = [&](int32_t v) { out.write(reinterpret_cast<const char*>(&v), 4); };
  number(1);
  number(static_cast<int32_t>(name.size()));
  out << name;
  number(calls);
  number(static_cast<int32_t>(values.size()));
  out.write(reinterpret_cast<const char*>(values.data()),
            static_cast<std::streamsize>(4 * values.size()));
}

TEST_F(QuantizeModelTest, AnImportanceMatrixMovesTheErrorToWhatMattersLess) {
  options_.type = DType::kQ4_0;
  options_.pure = true;
  ASSERT_TRUE(QuantizeModel(options_).ok());
  const std::string name = "blk.0.attn_q.weight";
  std::vector<float> importance(256, 0.001f);
  for (size_t i = 0; i < 256; i += 32) importance[i] = 1.0f;
  for (float& v : importance) v *= 5.0f;
  WriteMatrix(matrix_.path(), name, importance, 5);
  options_.importance_path = matrix_.path();
  options_.output = other_.path();
  ASSERT_TRUE(QuantizeModel(options_).ok());
  const auto in = Checkpoint::Open(options_.input);
  double errors[2] = {};
  for (int i = 0; i < 2; ++i) {
    const auto out = Checkpoint::Open(i == 0 ? file_.path() : other_.path());
    const auto decode = [&](const Checkpoint& checkpoint) {
      const TensorInfo& tensor = *checkpoint.Find(name);
      std::vector<uint8_t> bytes(static_cast<size_t>(tensor.bytes));
      EXPECT_TRUE(checkpoint.Read(tensor, 0, tensor.bytes, bytes.data()).ok());
      const WeightFormat& format = GetFormat(tensor.dtype);
      std::vector<float> values(static_cast<size_t>(tensor.num_elems()));
      format.decode(bytes.data(), tensor.num_elems() / format.block_elems, values.data());
      return values;
    };
    const std::vector<float> a = decode(**in), b = decode(**out);
    for (size_t k = 0; k < a.size(); k += 32) errors[i] += (a[k] - b[k]) * (a[k] - b[k]);
    const Metadata& metadata = (*out)->metadata();
    EXPECT_EQ(metadata.count("quantize.imatrix.entries_count"), static_cast<size_t>(i));
  }
  EXPECT_LT(errors[1], 0.8 * errors[0]);

  importance.pop_back();
  WriteMatrix(matrix_.path(), name, importance, 5);
  options_.replace = true;
  EXPECT_NE(QuantizeModel(options_).status().message().find("belongs to another model"),
            std::string::npos);
}

TEST_F(QuantizeModelTest, ImportanceMatricesAreReadFromBothFormatsAndCheckedThere) {
  WriteMatrix(matrix_.path(), "t", {2.0f, 4.0f}, 2);
  auto matrix = ImportanceMatrix::Read(matrix_.path());
  ASSERT_TRUE(matrix.ok()) << matrix.status();
  EXPECT_EQ(matrix->values.at("t"), (std::vector<float>{1.0f, 2.0f}));
  WriteMatrix(matrix_.path(), "t", {2.0f, -4.0f}, 2);
  EXPECT_FALSE(ImportanceMatrix::Read(matrix_.path()).ok());
  // Every truncation.
  WriteMatrix(matrix_.path(), "t", {2.0f, 4.0f}, 2);
  const std::string bytes = *ReadWholeFile(matrix_.path(), 1 << 20);
  for (size_t length = 0; length < bytes.size(); ++length) {
    std::ofstream(matrix_.path(), std::ios::binary) << bytes.substr(0, length);
    EXPECT_FALSE(ImportanceMatrix::Read(matrix_.path()).ok()) << length;
  }
  auto writer = GgufWriter::Create(other_.path(), true);
  ASSERT_TRUE(writer.ok());
  (*writer)->Add("imatrix.chunk_count", int64_t{9});
  (*writer)->AddTensor("t.in_sum2", DType::kF32, {2, 2});
  (*writer)->AddTensor("t.counts", DType::kF32, {2, 1});
  ASSERT_TRUE((*writer)->WriteHeader().ok());
  const float values[] = {2, 4, 8, 8, 2, 0};
  ASSERT_TRUE((*writer)->Write(values, 16).ok());
  ASSERT_TRUE((*writer)->Write(values + 4, 8).ok());
  ASSERT_TRUE((*writer)->Finish().ok());
  matrix = ImportanceMatrix::Read(other_.path());
  ASSERT_TRUE(matrix.ok()) << matrix.status();
  EXPECT_EQ(matrix->values.at("t"), (std::vector<float>{1.0f, 2.0f, 1.0f, 1.0f}));
  EXPECT_EQ(matrix->num_chunks, 9);
}

}  // namespace
}  // namespace thermocline
