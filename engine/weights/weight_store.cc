#include "engine/weights/weight_store.h"

#include <algorithm>

#include "kernels/check.h"
#include "kernels/mutex.h"

namespace thermocline {
absl::StatusOr<std::unique_ptr<WeightStore>> WeightStore::Create(const Checkpoint* checkpoint,
                                                                 TensorTable table,
                                                                 Device* device) {
  std::unique_ptr<WeightStore> store(new WeightStore(checkpoint, std::move(table), device));
  if (absl::Status s = store->Resolve(); !s.ok()) return s;
  return store;
}

absl::Status WeightStore::Resolve() {
  for (const DenseTensor& declared : table_.dense) {
    absl::StatusOr<const TensorInfo*> tensor = thermocline::Resolve(*checkpoint_, declared);
    if (!tensor.ok()) return tensor.status();
    if (*tensor == nullptr) continue;
    loads_.push_back({&declared, *tensor});
    dense_bytes_ += (*tensor)->bytes;
  }
  return absl::OkStatus();
}

absl::Status WeightStore::Allocate() {
  for (const DenseLoad& load : loads_) {
    const DenseTensor& declared = *load.declared;
    absl::StatusOr<TensorView> view =
        Place(TypeOf(*checkpoint_, declared, *load.tensor), declared.shape, declared.packed());
    if (!view.ok()) return view.status();
    *declared.target = *view;
  }
  return PlaceConstants();
}

absl::Status WeightStore::LoadDense(WorkerPool* pool, const LoadProgress& progress) {
  if (absl::Status s = Allocate(); !s.ok()) return s;
  struct {
    Mutex mutex;  // progress is called with it
    absl::Status error ABSL_GUARDED_BY(mutex);
    int64_t done ABSL_GUARDED_BY(mutex) = 0;
  } shared;
  const auto load = [&](int64_t i, int) {
    const DenseLoad& one = loads_[static_cast<size_t>(i)];
    {
      const MutexLock lock(&shared.mutex);
      if (!shared.error.ok()) return;
    }
    const absl::Status status = LoadOne(one);
    const MutexLock lock(&shared.mutex);
    if (shared.error.ok()) shared.error = status;
    shared.done += one.tensor->bytes;
    if (progress && shared.error.ok()) progress(shared.done, dense_bytes_);
  };
  const int64_t num_loads = static_cast<int64_t>(loads_.size());
  if (device_->memory_kind() == MemoryKind::kHost) {
    pool->ParallelFor(num_loads, load);
  } else {  // a device's queue has one caller
    for (int64_t i = 0; i < num_loads; ++i) load(i, 0);
  }
  const MutexLock lock(&shared.mutex);
  return shared.error;
}

absl::Status WeightStore::LoadOne(const DenseLoad& load) {
  const TensorView& view = *load.declared->target;
  if (device_->memory_kind() == MemoryKind::kHost) {
    return ReadHeld(*checkpoint_, *load.declared, *load.tensor, view.data);
  }
  std::vector<uint8_t> host(static_cast<size_t>(view.bytes()));
  absl::Status read = ReadHeld(*checkpoint_, *load.declared, *load.tensor, host.data());
  if (!read.ok()) return read;
  return CopyIn(host.data(), view);
}

absl::Status WeightStore::PlaceConstants() {
  for (const ConstantTensor& constant : table_.constants) {
    absl::StatusOr<TensorView> view =
        Place(DType::kF32, {static_cast<int64_t>(constant.values.size())}, /*packed=*/false);
    if (!view.ok()) return view.status();
    *constant.target = *view;
    if (absl::Status s = CopyIn(constant.values.data(), *view); !s.ok()) return s;
  }
  return absl::OkStatus();
}

absl::StatusOr<TensorView> WeightStore::Place(DType dtype, const std::vector<int64_t>& shape,
                                              bool packed) {
  int64_t rows = 1;
  for (size_t i = 0; i + 1 < shape.size(); ++i) rows *= shape[i];
  TensorView view;
  if (packed) {
    view = MakeWeightView(nullptr, dtype, rows, shape.back());
    const auto known = std::find(matrix_formats_.begin(), matrix_formats_.end(), dtype);
    if (known == matrix_formats_.end()) matrix_formats_.push_back(dtype);
  } else if (shape.size() > 1) {
    view = MakeView(nullptr, dtype, {rows, shape.back()});
  } else {
    view = MakeView(nullptr, dtype, {shape[0]});
  }
  absl::StatusOr<Buffer> memory = device_->Allocate(view.bytes());
  if (!memory.ok()) return memory.status();
  view.data = memory->data();
  memory_.push_back(*std::move(memory));
  return view;
}

absl::Status WeightStore::CopyIn(const void* host, const TensorView& view) {
  device_->Copy(Queue::kCompute, host, view.data, view.bytes());
  return device_->Synchronize();
}

WeightStore::DenseWork WeightStore::dense_work(const ModelDims& dims) const {
  DenseWork work;
  for (const DenseLoad& load : loads_) {
    const DenseTensor& declared = *load.declared;
    if (declared.as_f32 || declared.shape.size() < 2) continue;
    const int64_t elems = load.tensor->num_elems();
    if (declared.shape == std::vector<int64_t>{dims.vocab_size, dims.hidden_size}) {
      // Embeddings and head, or one for both.
      work.head_bytes = load.tensor->bytes;
      work.head_elems = elems;
    } else {
      work.body_bytes += load.tensor->bytes;
      work.body_elems += elems;
    }
  }
  return work;
}

}  // namespace thermocline
