#include "engine/weights/expert_files.h"

#include <xxhash.h>

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "engine/formats/packed_storage.h"
#include "kernels/check.h"
#include "kernels/quant/panels.h"

namespace thermocline {
namespace {

constexpr int64_t kPieceBytes = 1 << 20;  // at most, but for transposed matrices
constexpr int64_t kSlotAlignment = 64;

// Stored bytes of `rows` rows of a tensor, as they lie in its files.
int64_t StoredBytes(const TensorInfo& tensor, int64_t rows, int64_t cols) {
  switch (tensor.storage) {
    case Storage::kPlain:
      return rows * BytesOf(tensor.dtype, cols);
    case Storage::kMxfp4Pair:
      return rows * cols / kMxfp4BlockElems * (kMxfp4CodeBytes + 1);
    case Storage::kFp8Blocks:
      return rows * cols + Fp8ScaleRange(tensor, 0, rows).bytes;
  }
  TC_CHECK(false);
  return 0;
}

// Rows [first, first + count) of the whole tensor.
int RangesOf(const TensorInfo& tensor, int64_t first, int64_t count, int64_t cols,
             std::array<FileRange, 2>* ranges) {
  switch (tensor.storage) {
    case Storage::kPlain: {
      const int64_t row_bytes = BytesOf(tensor.dtype, cols);
      (*ranges)[0] = {tensor.file_idx, tensor.offset + first * row_bytes, count * row_bytes};
      return 1;
    }
    case Storage::kMxfp4Pair: {
      const int64_t blocks = cols / kMxfp4BlockElems;
      (*ranges)[0] = {tensor.file_idx, tensor.offset + first * blocks * kMxfp4CodeBytes,
                      count * blocks * kMxfp4CodeBytes};
      (*ranges)[1] = {tensor.scales_file_idx, tensor.scales_offset + first * blocks,
                      count * blocks};
      return 2;
    }
    case Storage::kFp8Blocks: {
      (*ranges)[0] = {tensor.file_idx, tensor.offset + first * cols, count * cols};
      const ByteRange scales = Fp8ScaleRange(tensor, first, count);
      (*ranges)[1] = {tensor.scales_file_idx, scales.offset, scales.bytes};
      return 2;
    }
  }
  TC_CHECK(false);
  return 0;
}

// The same rows in the tensor's type; `storage` holds them where the file's bytes are others.
const uint8_t* RowsOf(const TensorInfo& tensor, int64_t first, int64_t count, int64_t cols,
                      const std::array<const char*, 2>& bytes, std::vector<uint8_t>* storage) {
  const uint8_t* codes = reinterpret_cast<const uint8_t*>(bytes[0]);
  const uint8_t* scales = reinterpret_cast<const uint8_t*>(bytes[1]);
  if (tensor.storage == Storage::kPlain) return codes;
  storage->resize(static_cast<size_t>(count * BytesOf(tensor.dtype, cols)));
  if (tensor.storage == Storage::kMxfp4Pair) {
    JoinMxfp4(codes, scales, count * cols / kMxfp4BlockElems, storage->data());
  } else {
    DecodeFp8Rows(tensor, first, count, codes, scales,
                  reinterpret_cast<uint16_t*>(storage->data()));
  }
  return storage->data();
}

// Rows in turns, of one tensor: gate and up of such an expert are read together.
bool InTurns(const ExpertSlice& a, const ExpertSlice& b) {
  return a.tensor == b.tensor && a.block == b.block && a.rows == b.rows &&
         (a.step > 1 || a.transposed);
}

}  // namespace

absl::StatusOr<std::unique_ptr<ExpertFiles>> ExpertFiles::Create(const Checkpoint* checkpoint,
                                                                 const TensorTable& table,
                                                                 int num_layers) {
  std::unique_ptr<ExpertFiles> files(new ExpertFiles(checkpoint));
  files->num_experts_ = table.num_experts;
  files->layouts_.resize(static_cast<size_t>(num_layers));
  files->experts_.resize(static_cast<size_t>(num_layers));
  for (const ExpertLayer& layer : table.experts) {
    if (absl::Status s = files->AddLayer(layer); !s.ok()) return s;
  }
  files->checksums_ =
      std::make_unique<std::atomic<uint64_t>[]>(static_cast<size_t>(files->num_pieces_));
  return files;
}

absl::Status ExpertFiles::AddLayer(const ExpertLayer& layer) {
  ExpertLayout& layout = layouts_[static_cast<size_t>(layer.layer)];
  for (int e = 0; e < num_experts_; ++e) {
    Expert expert;
    const auto resolve = [&](const ExpertMatrix& matrix, ExpertSlice* slice) {
      absl::StatusOr<ExpertSlice> found = Resolve(*checkpoint_, matrix, e, num_experts_);
      if (found.ok()) *slice = *found;
      return found.status();
    };
    std::array<ExpertSlice, 3> slices;
    const ExpertMatrix* matrices[] = {&layer.gate, &layer.up, &layer.down};
    ExpertLayout::Matrix* places[] = {&layout.gate, &layout.up, &layout.down};
    int64_t offset = 0;
    for (size_t i = 0; i < slices.size(); ++i) {
      if (absl::Status s = resolve(*matrices[i], &slices[i]); !s.ok()) return s;
      ExpertLayout::Matrix& place = *places[i];
      if (e > 0 && place.dtype != slices[i].dtype) {
        return absl::InvalidArgumentError(absl::StrCat(
            "tensor \"", slices[i].tensor->name, "\" has type ", GetFormat(slices[i].dtype).name,
            ", but expert 0 has ", GetFormat(place.dtype).name));
      }
      place = {slices[i].dtype, slices[i].rows, slices[i].cols, offset};
      offset += (place.bytes() + kSlotAlignment - 1) / kSlotAlignment * kSlotAlignment;
    }
    layout.bytes = offset;
    for (const auto& [matrix, slice] :
         std::initializer_list<std::pair<const ExpertMatrix*, ExpertSlice*>>{
             {&layer.gate_bias, &expert.gate_bias},
             {&layer.up_bias, &expert.up_bias},
             {&layer.down_bias, &expert.down_bias}}) {
      if (absl::Status s = resolve(*matrix, slice); !s.ok()) return s;
    }
    Plan(&expert, slices, layout);
    expert.first_checksum = num_pieces_;
    for (int g = 0; g < expert.num_groups; ++g) {
      const Group& group = expert.groups[static_cast<size_t>(g)];
      num_pieces_ += group.num_pieces;
      const ExpertSlice& slice = group.slices[0];
      const int64_t rows = slice.transposed ? slice.stored_rows : group.rows_per_piece * slice.step;
      max_piece_bytes_ = std::max(max_piece_bytes_, StoredBytes(*slice.tensor, rows, slice.cols));
    }
    experts_[static_cast<size_t>(layer.layer)].push_back(expert);
  }
  return absl::OkStatus();
}

void ExpertFiles::Plan(Expert* expert, const std::array<ExpertSlice, 3>& slices,
                       const ExpertLayout& layout) {
  const auto add = [&](ExpertPart part, std::initializer_list<int> matrices) {
    Group& group = expert->groups[static_cast<size_t>(expert->num_groups)];
    const ExpertLayout::Matrix* places[] = {&layout.gate, &layout.up, &layout.down};
    group.part = part;
    group.num_matrices = static_cast<int>(matrices.size());
    size_t i = 0;
    for (const int m : matrices) {
      group.slices[i] = slices[static_cast<size_t>(m)];
      group.places[i++] = *places[m];
    }
    const ExpertSlice& slice = group.slices[0];
    const int64_t panel_bytes = kPanelRows * slice.step * BytesOf(slice.dtype, slice.cols);
    group.rows_per_piece = slice.transposed
                               ? slice.rows
                               : std::max<int64_t>(1, kPieceBytes / panel_bytes) * kPanelRows;
    group.rows_per_piece = std::min(group.rows_per_piece, slice.rows);
    group.num_pieces =
        static_cast<int>((slice.rows + group.rows_per_piece - 1) / group.rows_per_piece);
    if (expert->num_groups > 0) {
      const Group& before = expert->groups[static_cast<size_t>(expert->num_groups - 1)];
      group.first_piece = before.first_piece + before.num_pieces;
    }
    ++expert->num_groups;
  };
  if (InTurns(slices[0], slices[1])) {
    add(ExpertPart::kGateUp, {0, 1});
  } else {
    add(ExpertPart::kGateUp, {0});
    add(ExpertPart::kGateUp, {1});
  }
  add(ExpertPart::kDown, {2});
}

const ExpertFiles::Expert& ExpertFiles::At(ExpertId id) const {
  return experts_[static_cast<size_t>(id.layer)][static_cast<size_t>(id.expert)];
}

const ExpertFiles::Group& ExpertFiles::GroupOf(const Expert& expert, int32_t piece) const {
  int g = expert.num_groups - 1;
  while (expert.groups[static_cast<size_t>(g)].first_piece > piece) --g;
  return expert.groups[static_cast<size_t>(g)];
}

int64_t ExpertFiles::total_bytes() const {
  int64_t bytes = 0;
  for (const ExpertLayout& layout : layouts_) bytes += layout.bytes * num_experts_;
  return bytes;
}

bool ExpertFiles::has_biases(int layer) const {
  const std::vector<Expert>& experts = experts_[static_cast<size_t>(layer)];
  return !experts.empty() &&
         (experts[0].gate_bias.tensor != nullptr || experts[0].up_bias.tensor != nullptr ||
          experts[0].down_bias.tensor != nullptr);
}

absl::StatusOr<ExpertFiles::Biases> ExpertFiles::ReadBiases(ExpertId id) const {
  const Expert& expert = At(id);
  Biases biases;
  for (const auto& [slice, values] :
       std::initializer_list<std::pair<const ExpertSlice*, std::vector<float>*>>{
           {&expert.gate_bias, &biases.gate},
           {&expert.up_bias, &biases.up},
           {&expert.down_bias, &biases.down}}) {
    if (slice->tensor == nullptr) continue;
    values->resize(static_cast<size_t>(slice->rows));
    if (absl::Status s = Read(*checkpoint_, *slice, values->data()); !s.ok()) return s;
  }
  return biases;
}

absl::Status ExpertFiles::ReadWhole(ExpertId id, char* slot) {
  std::vector<char> stored(static_cast<size_t>(max_piece_bytes_));
  const int num_pieces = NumPieces(id, ExpertPart::kGateUp) + NumPieces(id, ExpertPart::kDown);
  for (int32_t p = 0; p < num_pieces; ++p) {
    const ReadPiece piece = PieceOf(id, p);
    std::array<const char*, 2> bytes = {};
    char* next = stored.data();
    for (int i = 0; i < piece.num_ranges; ++i) {
      const FileRange& range = piece.ranges[static_cast<size_t>(i)];
      absl::Status read = checkpoint_->ReadFile(range.file, range.offset, range.bytes, next);
      if (!read.ok()) return read;
      bytes[static_cast<size_t>(i)] = next;
      next += range.bytes;
    }
    if (absl::Status s = Arrive(piece, bytes, slot); !s.ok()) return s;
  }
  return absl::OkStatus();
}

int ExpertFiles::NumPieces(ExpertId id, ExpertPart part) const {
  const Expert& expert = At(id);
  int count = 0;
  for (int g = 0; g < expert.num_groups; ++g) {
    const Group& group = expert.groups[static_cast<size_t>(g)];
    if (group.part == part) count += group.num_pieces;
  }
  return count;
}

ReadPiece ExpertFiles::PieceOf(ExpertId id, int32_t index) const {
  const Group& group = GroupOf(At(id), index);
  const ExpertSlice& slice = group.slices[0];
  ReadPiece piece;
  piece.expert = id;
  piece.index = index;
  piece.part = group.part;
  const PieceRows rows = RowsOfPiece(group, index);
  piece.num_ranges = RangesOf(*slice.tensor, rows.stored_first, rows.stored_count, rows.stored_cols,
                              &piece.ranges);
  return piece;
}

ExpertFiles::PieceRows ExpertFiles::RowsOfPiece(const Group& group, int32_t piece) {
  const ExpertSlice& slice = group.slices[0];
  PieceRows rows;
  rows.first = (piece - group.first_piece) * group.rows_per_piece;
  rows.count = std::min(group.rows_per_piece, slice.rows - rows.first);
  if (slice.transposed) {  // [cols, stored_rows], whole
    rows.stored_first = slice.block * slice.cols;
    rows.stored_count = slice.cols;
    rows.stored_cols = slice.stored_rows;
    return rows;
  }
  // Of one matrix from its first row on; of two in turns all rows of both.
  const bool in_turns = group.num_matrices == 2;
  rows.stored_first =
      slice.block * slice.stored_rows + (in_turns ? 0 : slice.first) + rows.first * slice.step;
  rows.stored_count = in_turns ? rows.count * slice.step : (rows.count - 1) * slice.step + 1;
  rows.stored_cols = slice.cols;
  return rows;
}

absl::Status ExpertFiles::Verify(const ReadPiece& piece, const std::array<const char*, 2>& bytes) {
  uint64_t hash = 0;
  for (int i = 0; i < piece.num_ranges; ++i) {
    hash =
        XXH3_64bits_withSeed(bytes[static_cast<size_t>(i)],
                             static_cast<size_t>(piece.ranges[static_cast<size_t>(i)].bytes), hash);
  }
  const uint64_t checksum = std::max<uint64_t>(1, hash);
  std::atomic<uint64_t>& first = checksums_[At(piece.expert).first_checksum + piece.index];
  const uint64_t known = first.load(std::memory_order_relaxed);
  if (known == checksum) return absl::OkStatus();
  const FileRange& range = piece.ranges[0];
  if (known != 0) {
    return absl::DataLossError(
        absl::StrCat("bytes ", range.offset, " to ", range.offset + range.bytes, " of \"",
                     checkpoint_->files()[static_cast<size_t>(range.file)],
                     "\" are not those that were there when they were read first"));
  }
  // Read for the first time: right only if nobody has written to the file since it was opened.
  for (int i = 0; i < piece.num_ranges; ++i) {
    absl::Status unchanged = checkpoint_->CheckUnchanged(piece.ranges[static_cast<size_t>(i)].file);
    if (!unchanged.ok()) return unchanged;
  }
  first.store(checksum, std::memory_order_relaxed);
  return absl::OkStatus();
}

absl::Status ExpertFiles::Arrive(const ReadPiece& piece, const std::array<const char*, 2>& bytes,
                                 char* slot) {
  if (absl::Status s = Verify(piece, bytes); !s.ok()) return s;
  const Group& group = GroupOf(At(piece.expert), piece.index);
  const ExpertSlice& head = group.slices[0];
  const TensorInfo& tensor = *head.tensor;
  static thread_local std::vector<uint8_t> decoded, chosen;
  const PieceRows held = RowsOfPiece(group, piece.index);
  const uint8_t* stored =
      RowsOf(tensor, held.stored_first, held.stored_count, held.stored_cols, bytes, &decoded);
  const auto pack = [&](int i, const uint8_t* rows) {
    const ExpertLayout::Matrix& place = group.places[static_cast<size_t>(i)];
    PackRows(place.dtype, rows, held.count, place.cols,
             reinterpret_cast<uint8_t*>(slot) + place.offset +
                 PackedBytes(place.dtype, held.first, place.cols));
  };
  if (head.transposed) {
    for (int i = 0; i < group.num_matrices; ++i) {
      const ExpertSlice& slice = group.slices[static_cast<size_t>(i)];
      chosen.resize(static_cast<size_t>(slice.bytes()));
      ColumnsAsRows(stored, slice, chosen.data());
      pack(i, chosen.data());
    }
    return absl::OkStatus();
  }
  const bool in_turns = group.num_matrices == 2;
  const int64_t row_bytes = BytesOf(tensor.dtype, head.cols);
  for (int i = 0; i < group.num_matrices; ++i) {
    const ExpertSlice& slice = group.slices[static_cast<size_t>(i)];
    if (slice.step == 1) {
      pack(i, stored);
      continue;
    }
    chosen.resize(static_cast<size_t>(held.count * row_bytes));
    for (int64_t r = 0; r < held.count; ++r) {
      std::memcpy(&chosen[static_cast<size_t>(r * row_bytes)],
                  stored + ((in_turns ? slice.first : 0) + r * slice.step) * row_bytes,
                  static_cast<size_t>(row_bytes));
    }
    pack(i, chosen.data());
  }
  return absl::OkStatus();
}

}  // namespace thermocline
