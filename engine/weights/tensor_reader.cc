#include "engine/weights/tensor_reader.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "engine/formats/float_tensor.h"
#include "kernels/check.h"

namespace thermocline {
namespace {

std::string ShapeText(const std::vector<int64_t>& shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

std::vector<int64_t> WithoutOnes(std::vector<int64_t> shape) {
  shape.erase(std::remove(shape.begin(), shape.end(), 1), shape.end());
  return shape;
}

absl::Status CheckStored(const TensorInfo& tensor, const std::vector<int64_t>& expected) {
  if (WithoutOnes(tensor.shape) != WithoutOnes(expected)) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor \"", tensor.name, "\" has shape ", ShapeText(tensor.shape),
                     ", but the configuration needs ", ShapeText(expected)));
  }
  const WeightFormat& format = GetFormat(tensor.dtype);
  if (expected.back() % format.block_elems != 0) {
    return absl::InvalidArgumentError(absl::StrCat("tensor \"", tensor.name, "\": rows of ",
                                                   expected.back(), " are not whole blocks of ",
                                                   format.name));
  }
  if (format.decode != nullptr) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("tensor \"", tensor.name, "\" has type ",
                                                 format.name, ", which is no weight format"));
}

int64_t Product(const std::vector<int64_t>& shape) {
  int64_t product = 1;
  for (int64_t dim : shape) product *= dim;
  return product;
}

// Elements of a row for choosing rows: vectors have rows of one.
int64_t RowElems(const std::vector<int64_t>& shape) { return shape.size() == 1 ? 1 : shape.back(); }

bool NeedsFloats(Transform transform) {
  return transform == Transform::kAddOne || transform == Transform::kNegExp ||
         transform == Transform::kUnitColumns;
}

// Copies rows first, first + step, ... of `stored`, row_bytes each; returns the end of the copy.
uint8_t* CopyRows(int64_t first, int64_t count, int64_t step, int64_t row_bytes,
                  const uint8_t* stored, uint8_t* out) {
  if (step == 1) {
    std::memcpy(out, stored + first * row_bytes, static_cast<size_t>(count * row_bytes));
    return out + count * row_bytes;
  }
  for (int64_t i = 0; i < count; ++i, out += row_bytes) {
    std::memcpy(out, stored + (first + i * step) * row_bytes, static_cast<size_t>(row_bytes));
  }
  return out;
}

// [rows, cols] -> [cols, rows] of elements of `size` bytes; `stride` elements between input rows.
void Transpose(const uint8_t* in, int64_t rows, int64_t cols, int64_t stride, size_t size,
               uint8_t* out) {
  for (int64_t c = 0; c < cols; ++c) {
    for (int64_t r = 0; r < rows; ++r, out += size) {
      std::memcpy(out, in + static_cast<size_t>(r * stride + c) * size, size);
    }
  }
}

void ApplyToFloats(Transform transform, const std::vector<int64_t>& shape,
                   std::vector<float>* values) {
  if (transform == Transform::kAddOne) {
    for (float& v : *values) v += 1.0f;
  } else if (transform == Transform::kNegExp) {
    for (float& v : *values) v = -std::exp(v);
  } else if (transform == Transform::kUnitColumns) {
    const size_t cols = static_cast<size_t>(shape.back());
    std::vector<double> squares(cols, 0.0);
    for (size_t i = 0; i < values->size(); ++i) {
      squares[i % cols] += static_cast<double>((*values)[i]) * static_cast<double>((*values)[i]);
    }
    for (size_t i = 0; i < values->size(); ++i) {
      (*values)[i] /= static_cast<float>(std::sqrt(squares[i % cols])) + 1e-7f;
    }
  }
}

// Reads and packs a tensor's rows in pieces that stay in the cache between the two.
absl::Status ReadPacked(const Checkpoint& checkpoint, const TensorInfo& tensor, int64_t num_rows,
                        int64_t cols, uint8_t* destination) {
  constexpr int64_t kPieceBytes = 256 << 10;
  const int64_t row_bytes = BytesOf(tensor.dtype, cols);
  const int64_t piece_rows =
      std::max<int64_t>(1, kPieceBytes / (kPanelRows * row_bytes)) * kPanelRows;
  const auto piece = std::make_unique_for_overwrite<uint8_t[]>(
      static_cast<size_t>(std::min(piece_rows, num_rows) * row_bytes));
  for (int64_t r = 0; r < num_rows; r += piece_rows) {
    const int64_t count = std::min(piece_rows, num_rows - r);
    absl::Status read = checkpoint.Read(tensor, r * row_bytes, count * row_bytes, piece.get());
    if (!read.ok()) return read;
    PackRows(tensor.dtype, piece.get(), count, cols, destination + r * row_bytes);
  }
  return absl::OkStatus();
}

bool IsPlain(const TensorSource& source) {
  return source.rows.empty() && source.transform == Transform::kNone;
}

bool IsPlain(const ExpertSlice& slice) {
  return !slice.transposed && slice.step == 1 && slice.dtype == slice.tensor->dtype;
}

}  // namespace

const TensorSource& SourceIn(const Checkpoint& checkpoint, const DenseTensor& declared) {
  return checkpoint.kind() == Checkpoint::Kind::kGguf ? declared.name.gguf : declared.name.hf;
}

absl::StatusOr<const TensorInfo*> Resolve(const Checkpoint& checkpoint,
                                          const DenseTensor& declared) {
  const TensorSource& source = SourceIn(checkpoint, declared);
  const TensorInfo* none = nullptr;
  if (source.name.empty()) return none;
  const TensorInfo* tensor = checkpoint.Find(source.name);
  if (tensor == nullptr) {
    if (declared.optional) return none;
    return absl::InvalidArgumentError(absl::StrCat("the model lacks tensor \"", source.name, "\""));
  }
  const std::vector<int64_t>& shape = source.shape.empty() ? declared.shape : source.shape;
  if (absl::Status s = CheckStored(*tensor, shape); !s.ok()) return s;
  if (!source.rows.empty() && RowElems(shape) == 1 && GetFormat(tensor->dtype).block_elems != 1) {
    return absl::InvalidArgumentError(absl::StrCat("tensor \"", tensor->name, "\" has type ",
                                                   GetFormat(tensor->dtype).name,
                                                   ", of which no single elements can be taken"));
  }
  return tensor;
}

DType TypeOf(const Checkpoint& checkpoint, const DenseTensor& declared, const TensorInfo& stored) {
  const Transform transform = SourceIn(checkpoint, declared).transform;
  if (declared.as_f32 || NeedsFloats(transform)) return DType::kF32;
  // Blocks cannot be transposed.
  const bool blocks = GetFormat(stored.dtype).block_elems != 1;
  return transform == Transform::kTransposeHeads && blocks ? DType::kF16 : stored.dtype;
}

absl::Status Read(const Checkpoint& checkpoint, const DenseTensor& declared,
                  const TensorInfo& stored, void* destination) {
  const TensorSource& source = SourceIn(checkpoint, declared);
  const DType type = TypeOf(checkpoint, declared, stored);
  if (IsPlain(source) && type == stored.dtype) {
    return checkpoint.Read(stored, 0, stored.bytes, destination);
  }
  std::vector<uint8_t> bytes(static_cast<size_t>(stored.bytes));
  if (absl::Status s = checkpoint.Read(stored, 0, stored.bytes, bytes.data()); !s.ok()) return s;
  const int64_t num_elems = Product(declared.shape);
  if (!source.rows.empty()) {
    const std::vector<int64_t>& shape = source.shape.empty() ? declared.shape : source.shape;
    const int64_t row_bytes = BytesOf(stored.dtype, RowElems(shape));
    std::vector<uint8_t> chosen(static_cast<size_t>(BytesOf(stored.dtype, num_elems)));
    uint8_t* out = chosen.data();
    ForEachRun(source, [&](int64_t first, int64_t count, int64_t step) {
      out = CopyRows(first, count, step, row_bytes, bytes.data(), out);
    });
    bytes.swap(chosen);
  }
  if (source.transform == Transform::kTransposeHeads) {
    const int64_t cols = declared.shape[1], rows = num_elems / source.heads / cols;
    if (type == DType::kF16 && stored.dtype != type) {
      const std::vector<float> values = ToFloats(stored.dtype, bytes.data(), num_elems);
      bytes = FromFloats(type, values);
      if (absl::Status s = CheckRange(stored.name, type, values, bytes.data()); !s.ok()) return s;
    }
    const size_t size = static_cast<size_t>(BytesOf(type == DType::kF16 ? type : stored.dtype, 1));
    std::vector<uint8_t> turned(bytes.size());
    for (int64_t h = 0; h < source.heads; ++h) {
      const size_t head = static_cast<size_t>(h * rows * cols) * size;
      Transpose(&bytes[head], rows, cols, cols, size, &turned[head]);
    }
    bytes.swap(turned);
  }
  if (bytes.size() == static_cast<size_t>(BytesOf(type, num_elems)) && type != DType::kF32 &&
      !NeedsFloats(source.transform)) {
    std::memcpy(destination, bytes.data(), bytes.size());
    return absl::OkStatus();
  }
  std::vector<float> values = ToFloats(stored.dtype, bytes.data(), num_elems);
  ApplyToFloats(source.transform, declared.shape, &values);
  std::memcpy(destination, values.data(), values.size() * sizeof(float));
  return absl::OkStatus();
}

absl::StatusOr<ExpertSlice> Resolve(const Checkpoint& checkpoint, const ExpertMatrix& matrix,
                                    int expert, int num_experts) {
  if (matrix.rows == 0) return ExpertSlice();
  const bool gguf = checkpoint.kind() == Checkpoint::Kind::kGguf;
  const ExpertPlace& source = gguf ? matrix.gguf : matrix.hf;
  const std::string name = absl::StrReplaceAll(source.name, {{"{e}", absl::StrCat(expert)}});
  const TensorInfo* tensor = checkpoint.Find(name);
  if (tensor == nullptr)
    return absl::InvalidArgumentError(absl::StrCat("the model lacks tensor \"", name, "\""));
  const bool together = name == source.name;
  const int64_t stored_rows = source.stored_rows > 0 ? source.stored_rows : matrix.rows;
  std::vector<int64_t> shape = {stored_rows, matrix.cols};
  if (source.transposed) std::swap(shape[0], shape[1]);
  if (together) shape.insert(shape.begin(), num_experts);
  if (absl::Status s = CheckStored(*tensor, shape); !s.ok()) return s;
  if (source.transposed && GetFormat(tensor->dtype).block_elems != 1) {
    return absl::InvalidArgumentError(absl::StrCat("tensor \"", name, "\" has type ",
                                                   GetFormat(tensor->dtype).name,
                                                   ", which cannot be transposed"));
  }
  ExpertSlice slice;
  slice.tensor = tensor;
  slice.dtype = matrix.cols == 1 ? DType::kF32 : tensor->dtype;
  slice.rows = matrix.rows;
  slice.cols = matrix.cols;
  slice.stored_rows = stored_rows;
  slice.block = together ? expert : 0;
  slice.first = source.first;
  slice.step = source.step;
  slice.transposed = source.transposed;
  return slice;
}

void ColumnsAsRows(const uint8_t* block, const ExpertSlice& slice, uint8_t* rows) {
  const size_t size = static_cast<size_t>(BytesOf(slice.tensor->dtype, 1));
  for (int64_t r = 0; r < slice.rows; ++r) {
    const uint8_t* column = block + static_cast<size_t>(slice.first + r * slice.step) * size;
    Transpose(column, slice.cols, 1, slice.stored_rows, size,
              rows + static_cast<size_t>(r * slice.cols) * size);
  }
}

absl::Status Read(const Checkpoint& checkpoint, const ExpertSlice& slice, void* destination) {
  const TensorInfo& tensor = *slice.tensor;
  const int64_t row_bytes = BytesOf(tensor.dtype, slice.cols);
  const int64_t block_bytes = slice.stored_rows * row_bytes;
  const int64_t begin = slice.block * block_bytes;
  if (IsPlain(slice)) {
    return checkpoint.Read(tensor, begin + slice.first * row_bytes, slice.rows * row_bytes,
                           destination);
  }
  std::vector<uint8_t> block(static_cast<size_t>(block_bytes));
  if (absl::Status s = checkpoint.Read(tensor, begin, block_bytes, block.data()); !s.ok()) return s;
  std::vector<uint8_t> chosen(static_cast<size_t>(slice.rows * row_bytes));
  if (slice.transposed) {
    ColumnsAsRows(block.data(), slice, chosen.data());
  } else {
    CopyRows(slice.first, slice.rows, slice.step, row_bytes, block.data(), chosen.data());
  }
  if (slice.dtype == tensor.dtype) {
    std::memcpy(destination, chosen.data(), chosen.size());
    return absl::OkStatus();
  }
  const std::vector<float> values = ToFloats(tensor.dtype, chosen.data(), slice.rows * slice.cols);
  std::memcpy(destination, values.data(), values.size() * sizeof(float));
  return absl::OkStatus();
}

absl::Status ReadHeld(const Checkpoint& checkpoint, const DenseTensor& declared,
                      const TensorInfo& stored, void* destination) {
  const DType type = TypeOf(checkpoint, declared, stored);
  if (!declared.packed()) return Read(checkpoint, declared, stored, destination);
  const int64_t cols = declared.shape.back(), num_rows = Product(declared.shape) / cols;
  uint8_t* panels = static_cast<uint8_t*>(destination);
  if (IsPlain(SourceIn(checkpoint, declared)) && type == stored.dtype) {
    return ReadPacked(checkpoint, stored, num_rows, cols, panels);
  }
  std::vector<uint8_t> rows(static_cast<size_t>(num_rows * BytesOf(type, cols)));
  if (absl::Status s = Read(checkpoint, declared, stored, rows.data()); !s.ok()) return s;
  PackRows(type, rows.data(), num_rows, cols, panels);
  return absl::OkStatus();
}

}  // namespace thermocline
