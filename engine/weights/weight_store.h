// WeightStore: reads a checkpoint's tensors straight into their final place.
#ifndef THERMOCLINE_ENGINE_WEIGHTS_WEIGHT_STORE_H_
#define THERMOCLINE_ENGINE_WEIGHTS_WEIGHT_STORE_H_

#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/formats/checkpoint.h"
#include "engine/weights/model_dims.h"
#include "engine/weights/tensor_reader.h"
#include "engine/weights/tensor_table.h"
#include "kernels/device.h"
#include "kernels/worker_pool.h"

namespace thermocline {

// Called with bytes done and bytes in all; from several threads, one at a time.
using LoadProgress = std::function<void(int64_t done, int64_t total)>;

// Owns the dense weights' memory. Outlives the model's use.
class WeightStore {
 public:
  // What a step reads of the dense matrices and multiplies with each token; the head once for every
  // row of logits. The embeddings are no part of it, unless they are the head.
  struct DenseWork {
    int64_t body_bytes = 0, body_elems = 0;
    int64_t head_bytes = 0, head_elems = 0;
  };

  // Resolves every declared tensor but the experts': existence and shape. Reads nothing yet.
  // INVALID_ARGUMENT names the tensor and what was expected.
  static absl::StatusOr<std::unique_ptr<WeightStore>> Create(const Checkpoint* checkpoint,
                                                             TensorTable table, Device* device);

  // Makes room for the dense tensors and fills the views they were declared for; contents are
  // undefined but for the constants'.
  absl::Status Allocate();
  // Allocate, then reads the dense tensors with the pool's threads.
  absl::Status LoadDense(WorkerPool* pool, const LoadProgress& progress);

  int64_t dense_bytes() const { return dense_bytes_; }
  // Of the dense matrices, each once.
  const std::vector<DType>& matrix_formats() const { return matrix_formats_; }
  DenseWork dense_work(const ModelDims& dims) const;
  // What the model declares, its experts too.
  const TensorTable& table() const { return table_; }

 private:
  struct DenseLoad {
    const DenseTensor* declared = nullptr;
    const TensorInfo* tensor = nullptr;
  };

  WeightStore(const Checkpoint* checkpoint, TensorTable table, Device* device)
      : checkpoint_(checkpoint), device_(device), table_(std::move(table)) {}

  absl::Status Resolve();
  absl::Status LoadOne(const DenseLoad& load);
  absl::Status PlaceConstants();
  // Allocates [shape], in panels or in rows, on the device and remembers the memory.
  absl::StatusOr<TensorView> Place(DType dtype, const std::vector<int64_t>& shape, bool packed);
  absl::Status CopyIn(const void* host, const TensorView& view);

  const Checkpoint* checkpoint_;
  Device* device_;
  TensorTable table_;
  std::vector<DenseLoad> loads_;
  std::vector<Buffer> memory_;
  int64_t dense_bytes_ = 0;
  std::vector<DType> matrix_formats_;
};

}  // namespace thermocline

#endif  // THERMOCLINE_ENGINE_WEIGHTS_WEIGHT_STORE_H_
