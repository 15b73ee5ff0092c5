#include "engine/weight_store.h"

#include <atomic>
#include <thread>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"
#include "kernels/mutex.h"

namespace thermocline {
namespace {

constexpr int64_t kSlotAlignment = 64;

}  // namespace

absl::StatusOr<std::unique_ptr<WeightStore>> WeightStore::Create(const Checkpoint* checkpoint,
                                                                 Model* model, Device* device) {
  std::unique_ptr<WeightStore> store(new WeightStore(checkpoint, model, device));
  model->DeclareTensors(&store->table_);
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
  layouts_.resize(static_cast<size_t>(model_->dims().num_hidden_layers));
  slices_.resize(layouts_.size());
  for (const ExpertLayer& layer : table_.experts) {
    if (absl::Status s = ResolveExperts(layer); !s.ok()) return s;
  }
  return absl::OkStatus();
}

absl::Status WeightStore::ResolveExperts(const ExpertLayer& layer) {
  ExpertLayout& layout = layouts_[static_cast<size_t>(layer.layer)];
  const std::pair<const ExpertMatrix*, ExpertLayout::Matrix*> parts[kNumExpertParts] = {
      {&layer.gate, &layout.gate},       {&layer.up, &layout.up},
      {&layer.down, &layout.down},       {&layer.gate_bias, &layout.gate_bias},
      {&layer.up_bias, &layout.up_bias}, {&layer.down_bias, &layout.down_bias}};
  for (int e = 0; e < table_.num_experts; ++e) {
    ExpertSlices slices;
    int64_t offset = 0;
    for (int i = 0; i < kNumExpertParts; ++i) {
      const auto& [matrix, place] = parts[i];
      absl::StatusOr<ExpertSlice> slice =
          thermocline::Resolve(*checkpoint_, *matrix, e, table_.num_experts);
      if (!slice.ok()) return slice.status();
      if (e > 0 && place->dtype != slice->dtype) {
        return absl::InvalidArgumentError(absl::StrCat(
            "tensor \"", slice->tensor->name, "\" has type ", GetFormat(slice->dtype).name,
            ", but expert 0 has ", GetFormat(place->dtype).name));
      }
      *place = {slice->dtype, slice->rows, slice->cols, offset};
      if (slice->tensor != nullptr) {
        const int64_t bytes = HeldBytes(*slice);
        offset += (bytes + kSlotAlignment - 1) / kSlotAlignment * kSlotAlignment;
      }
      slices[static_cast<size_t>(i)] = *slice;
    }
    layout.bytes = offset;
    slices_[static_cast<size_t>(layer.layer)].push_back(slices);
  }
  return absl::OkStatus();
}

absl::Status WeightStore::LoadDense(int num_threads, const LoadProgress& progress) {
  for (const DenseLoad& load : loads_) {
    const DenseTensor& declared = *load.declared;
    absl::StatusOr<TensorView> view =
        Place(TypeOf(*checkpoint_, declared, *load.tensor), declared.shape, declared.packed());
    if (!view.ok()) return view.status();
    *declared.target = *view;
  }
  if (device_->memory_kind() != MemoryKind::kHost)
    num_threads = 1;  // a device's queue has one caller
  std::atomic<size_t> next{0};
  struct {
    Mutex mutex;  // progress is called with it
    absl::Status error ABSL_GUARDED_BY(mutex);
    int64_t done ABSL_GUARDED_BY(mutex) = 0;
  } shared;
  const auto work = [&] {
    for (size_t i = next.fetch_add(1); i < loads_.size(); i = next.fetch_add(1)) {
      const absl::Status status = LoadOne(loads_[i]);
      const MutexLock lock(&shared.mutex);
      if (shared.error.ok()) shared.error = status;
      if (!shared.error.ok()) return;
      shared.done += loads_[i].tensor->bytes;
      if (progress) progress(shared.done, dense_bytes_);
    }
  };
  std::vector<std::thread> helpers;
  for (int t = 1; t < num_threads; ++t) helpers.emplace_back(work);
  work();
  for (std::thread& helper : helpers) helper.join();
  {
    const MutexLock lock(&shared.mutex);
    if (!shared.error.ok()) return shared.error;
  }
  return PlaceConstants();
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

WeightStore::DenseWork WeightStore::dense_work() const {
  const ModelDims& dims = model_->dims();
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

int64_t WeightStore::expert_bytes() const {
  int64_t bytes = 0;
  for (const ExpertLayout& layout : layouts_) bytes += layout.bytes * table_.num_experts;
  return bytes;
}

absl::Status WeightStore::Read(ExpertId id, char* destination, int64_t bytes) {
  const ExpertLayout& layout = layouts_[static_cast<size_t>(id.layer)];
  TC_CHECK(bytes == layout.bytes);
  const ExpertSlices& slices =
      slices_[static_cast<size_t>(id.layer)][static_cast<size_t>(id.expert)];
  const ExpertLayout::Matrix* places[kNumExpertParts] = {&layout.gate,    &layout.up,
                                                         &layout.down,    &layout.gate_bias,
                                                         &layout.up_bias, &layout.down_bias};
  for (int i = 0; i < kNumExpertParts; ++i) {
    const ExpertSlice& slice = slices[static_cast<size_t>(i)];
    if (slice.tensor == nullptr) continue;
    absl::Status read = ReadHeld(*checkpoint_, slice, destination + places[i]->offset);
    if (!read.ok()) return read;
  }
  return absl::OkStatus();
}

}  // namespace thermocline
