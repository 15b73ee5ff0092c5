// Experts in pieces: whatever the file stores, and in whichever order the pieces come, the slot
// holds the panels of the expert's matrices; bytes that have changed are noticed.
#include "engine/weights/expert_files.h"

#include <gtest/gtest.h>

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <random>

#include "absl/strings/str_cat.h"
#include "engine/weights/weight_store.h"
#include "kernels/host_device.h"
#include "tests/support/golden.h"
#include "tests/support/golden_folders.h"
#include "tests/support/model_bytes.h"
#include "tests/support/temporary_file.h"
#include "tests/support/test_name.h"

namespace thermocline {
namespace {

struct Opened {
  std::unique_ptr<Checkpoint> checkpoint;
  std::unique_ptr<Model> model;
  HostDevice device;
  std::unique_ptr<WeightStore> weights;
  std::unique_ptr<ExpertFiles> files;

  explicit Opened(const std::string& path) {
    checkpoint = *Checkpoint::Open(path);
    model = *MakeModel(*checkpoint);
    weights = *WeightStore::Create(checkpoint.get(), TensorsOf(model.get()), &device);
    files =
        *ExpertFiles::Create(checkpoint.get(), weights->table(), model->dims().num_hidden_layers);
  }
};

class EveryModelsExperts : public testing::TestWithParam<const char*> {};

TEST_P(EveryModelsExperts, ArriveInAnyOrderAsThePanelsOfTheirMatrices) {
  Opened opened(GoldenPath(GetParam()));
  std::mt19937 random(3);
  const TensorTable& table = opened.weights->table();
  for (const ExpertLayer& layer : table.experts) {
    const ExpertLayout& layout = opened.files->layouts()[static_cast<size_t>(layer.layer)];
    for (const int e : {0, table.num_experts - 1}) {
      const ExpertId id = {layer.layer, e};
      const int gate_up = opened.files->NumPieces(id, ExpertPart::kGateUp),
                down = opened.files->NumPieces(id, ExpertPart::kDown);
      std::vector<int32_t> order;
      for (int32_t p = 0; p < gate_up + down; ++p) {
        order.push_back(p);
        const ReadPiece piece = opened.files->PieceOf(id, p);
        EXPECT_EQ(piece.part, p < gate_up ? ExpertPart::kGateUp : ExpertPart::kDown);
        int64_t bytes = 0;
        for (int i = 0; i < piece.num_ranges; ++i) bytes += piece.ranges[i].bytes;
        EXPECT_LE(bytes, opened.files->max_piece_bytes());
      }
      std::shuffle(order.begin(), order.end(), random);
      std::vector<char> slot(static_cast<size_t>(layout.bytes), 'x');
      for (const int32_t p : order) {
        const ReadPiece piece = opened.files->PieceOf(id, p);
        std::vector<std::vector<char>> stored;
        std::array<const char*, 2> bytes = {};
        for (int i = 0; i < piece.num_ranges; ++i) {
          const FileRange& range = piece.ranges[static_cast<size_t>(i)];
          stored.emplace_back(static_cast<size_t>(range.bytes));
          ASSERT_TRUE(opened.checkpoint
                          ->ReadFile(range.file, range.offset, range.bytes, stored.back().data())
                          .ok());
          bytes[static_cast<size_t>(i)] = stored.back().data();
        }
        ASSERT_TRUE(opened.files->Arrive(piece, bytes, slot.data()).ok());
      }
      const ExpertMatrix* matrices[] = {&layer.gate, &layer.up, &layer.down};
      const ExpertLayout::Matrix* places[] = {&layout.gate, &layout.up, &layout.down};
      for (int m = 0; m < 3; ++m) {
        const ExpertSlice slice = *Resolve(*opened.checkpoint, *matrices[m], e, table.num_experts);
        std::vector<uint8_t> rows(static_cast<size_t>(slice.bytes())),
            panels(static_cast<size_t>(places[m]->bytes()));
        ASSERT_TRUE(Read(*opened.checkpoint, slice, rows.data()).ok());
        PackRows(slice.dtype, rows.data(), slice.rows, slice.cols, panels.data());
        EXPECT_EQ(std::memcmp(&slot[static_cast<size_t>(places[m]->offset)], panels.data(),
                              panels.size()),
                  0)
            << "expert " << e << " of layer " << layer.layer << ", matrix " << m;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, EveryModelsExperts, testing::ValuesIn(kGoldenFolders),
                         [](const auto& info) { return TestName(info.param); });

// Gate and up rows in turns in one tensor, as gpt-oss has them: every stored row is read once.
TEST(ExpertFiles, InterleavedGateAndUpAreReadOnce) {
  Opened opened(GoldenPath("gpt_oss-mxfp4"));
  const ExpertId id = {0, 1};
  int64_t read = 0;
  for (int32_t p = 0; p < opened.files->NumPieces(id, ExpertPart::kGateUp); ++p) {
    const ReadPiece piece = opened.files->PieceOf(id, p);
    for (int i = 0; i < piece.num_ranges; ++i) read += piece.ranges[static_cast<size_t>(i)].bytes;
  }
  const ExpertLayout& layout = opened.files->layouts()[0];
  const int64_t elems = layout.gate.rows * layout.gate.cols + layout.up.rows * layout.up.cols;
  EXPECT_EQ(read, elems / 32 * 17);
}

class ChangedFile : public testing::Test {
 protected:
  ChangedFile() {
    std::ifstream in(GoldenPath("quantised/qwen3_moe-q4_k_m.gguf"), std::ios::binary);
    bytes_.assign(std::istreambuf_iterator<char>(in), {});
    WriteBytes(file_.path(), bytes_);
    opened_ = std::make_unique<Opened>(file_.path());
    slot_.resize(static_cast<size_t>(opened_->files->layouts()[0].bytes));
  }
  absl::Status ReadWhole(int expert) {
    return opened_->files->ReadWhole({0, expert}, slot_.data());
  }
  // Writes one byte in the middle of an expert's first piece, into the same file.
  void Corrupt(int expert) {
    const ReadPiece piece = opened_->files->PieceOf({0, expert}, 0);
    const int64_t at = piece.ranges[0].offset + piece.ranges[0].bytes / 2;
    std::fstream out(file_.path(), std::ios::binary | std::ios::in | std::ios::out);
    out.seekp(at);
    out.put(static_cast<char>(bytes_[static_cast<size_t>(at)] ^ 1));
  }

  TemporaryFile file_{"changed.gguf"};
  std::string bytes_;
  std::unique_ptr<Opened> opened_;
  std::vector<char> slot_;
};

TEST_F(ChangedFile, BytesThatWereOthersTheFirstTimeAreRefused) {
  ASSERT_TRUE(ReadWhole(1).ok());
  ASSERT_TRUE(ReadWhole(1).ok());
  Corrupt(1);
  const absl::Status status = ReadWhole(1);
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_NE(
      status.message().find(absl::StrCat(
          "of \"", file_.path(), "\" are not those that were there when they were read first")),
      std::string::npos)
      << status;
}

// Nobody knows what was there: no expert that was not read before is taken from such a file.
TEST_F(ChangedFile, AFileWrittenToSinceItWasOpenedServesOnlyWhatItHasServedBefore) {
  ASSERT_TRUE(ReadWhole(1).ok());
  Corrupt(2);
  EXPECT_TRUE(ReadWhole(1).ok());
  const absl::Status status = ReadWhole(2);
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_NE(status.message().find("has been written to since it was opened"), std::string::npos)
      << status;
  EXPECT_FALSE(ReadWhole(3).ok());
}

// The old one stays open.
TEST_F(ChangedFile, AFileThatIsReplacedOrDeletedIsStillThere) {
  WriteBytes(file_.path() + ".new", std::string(bytes_.size(), 'z'));
  ASSERT_EQ(rename((file_.path() + ".new").c_str(), file_.path().c_str()), 0);
  EXPECT_TRUE(ReadWhole(1).ok());
  ASSERT_EQ(unlink(file_.path().c_str()), 0);
  EXPECT_TRUE(ReadWhole(2).ok());
}

TEST_F(ChangedFile, AFileCutShortIsAnError) {
  ASSERT_EQ(truncate(file_.path().c_str(), 2000), 0);
  const absl::Status status = ReadWhole(1);
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_NE(status.message().find("shorter than when it was opened"), std::string::npos) << status;
}

}  // namespace
}  // namespace thermocline
