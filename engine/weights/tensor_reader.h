// Reads declared tensors from a checkpoint in the form in which they are used
// (engine/weights/tensor_table.h), whichever format stores them.
#ifndef THERMOCLINE_ENGINE_WEIGHTS_TENSOR_READER_H_
#define THERMOCLINE_ENGINE_WEIGHTS_TENSOR_READER_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/formats/checkpoint.h"
#include "engine/weights/tensor_table.h"

namespace thermocline {

// The source of the checkpoint's own format.
const TensorSource& SourceIn(const Checkpoint& checkpoint, const DenseTensor& declared);

// The stored tensor behind a declared one: null when the format has none or an optional one is
// absent. INVALID_ARGUMENT names the tensor and what was expected.
absl::StatusOr<const TensorInfo*> Resolve(const Checkpoint& checkpoint,
                                          const DenseTensor& declared);
// The type that Read gives.
DType TypeOf(const Checkpoint& checkpoint, const DenseTensor& declared, const TensorInfo& stored);
// Rows chosen and transform applied. `destination` has room for the declared shape in TypeOf. Any
// thread.
absl::Status Read(const Checkpoint& checkpoint, const DenseTensor& declared,
                  const TensorInfo& stored, void* destination);

// One matrix of one expert in the checkpoint.
struct ExpertSlice {
  const TensorInfo* tensor = nullptr;  // null: the expert has no such matrix
  DType dtype = DType::kF32;           // as read
  int64_t rows = 0, cols = 0;
  int64_t block = 0;        // of the matrices in the tensor, which one is the expert's
  int64_t stored_rows = 0;  // rows of that part
  int64_t first = 0, step = 1;
  bool transposed = false;

  int64_t bytes() const { return rows * BytesOf(dtype, cols); }
};
absl::StatusOr<ExpertSlice> Resolve(const Checkpoint& checkpoint, const ExpertMatrix& matrix,
                                    int expert, int num_experts);
// `destination` has room for slice.bytes(). Any thread.
absl::Status Read(const Checkpoint& checkpoint, const ExpertSlice& slice, void* destination);
// The rows of a transposed slice, from its block as stored: [cols, stored_rows].
void ColumnsAsRows(const uint8_t* block, const ExpertSlice& slice, uint8_t* rows);

// The same in the form in which the program holds weights (MakeWeightView): quantised matrices are
// packed into panels as they arrive, a few hundred kilobytes at a time. `destination` has room for
// the view's bytes.
absl::Status ReadHeld(const Checkpoint& checkpoint, const DenseTensor& declared,
                      const TensorInfo& stored, void* destination);

}  // namespace thermocline

#endif  // THERMOCLINE_ENGINE_WEIGHTS_TENSOR_READER_H_
