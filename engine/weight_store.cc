#include "engine/weight_store.h"

#include <atomic>
#include <mutex>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "kernels/check.h"

namespace thermocline {
namespace {

constexpr int64_t kSlotAlignment = 64;

const std::string& NameIn(const Checkpoint& checkpoint, const TensorName& name) {
  return checkpoint.kind() == Checkpoint::Kind::kGguf ? name.gguf : name.hf;
}

std::string ShapeText(const std::vector<int64_t>& shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

absl::Status WrongShape(const TensorInfo& tensor, const std::vector<int64_t>& expected) {
  return absl::InvalidArgumentError(
      absl::StrCat("tensor \"", tensor.name, "\" has shape ", ShapeText(tensor.shape),
                   ", but the configuration needs ", ShapeText(expected)));
}

absl::Status CheckIsWeight(const TensorInfo& tensor) {
  const WeightFormat& format = GetFormat(tensor.dtype);
  if (format.decode != nullptr) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("tensor \"", tensor.name, "\" has type ",
                                                 format.name, ", which is no weight format"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<WeightStore>> WeightStore::Create(const Checkpoint* checkpoint,
                                                                 Model* model, Backend* backend) {
  std::unique_ptr<WeightStore> store(new WeightStore(checkpoint, model, backend));
  model->DeclareTensors(&store->table_);
  if (absl::Status s = store->Resolve(); !s.ok()) return s;
  return store;
}

absl::Status WeightStore::Resolve() {
  for (const DenseTensor& declared : table_.dense) {
    const std::string& name = NameIn(*checkpoint_, declared.name);
    if (name.empty()) continue;  // the other format stores it so
    const TensorInfo* tensor = checkpoint_->Find(name);
    if (tensor == nullptr) {
      if (declared.optional) continue;
      return absl::InvalidArgumentError(absl::StrCat("the model lacks tensor \"", name, "\""));
    }
    if (tensor->shape != declared.shape) return WrongShape(*tensor, declared.shape);
    if (absl::Status s = CheckIsWeight(*tensor); !s.ok()) return s;
    loads_.push_back({&declared, tensor});
    dense_bytes_ += tensor->bytes;
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
  for (int e = 0; e < table_.num_experts; ++e) {
    ExpertSlices slices;
    int64_t offset = 0;
    const auto resolve = [&](const ExpertMatrix& matrix, Slice* slice,
                             ExpertLayout::Matrix* place) {
      absl::StatusOr<Slice> resolved = ResolveSlice(matrix, e);
      if (!resolved.ok()) return resolved.status();
      *slice = *resolved;
      if (e > 0 && place->dtype != slice->tensor->dtype) {
        return absl::InvalidArgumentError(absl::StrCat(
            "tensor \"", slice->tensor->name, "\" has type ", GetFormat(slice->tensor->dtype).name,
            ", but expert 0 has ", GetFormat(place->dtype).name));
      }
      *place = {slice->tensor->dtype, matrix.rows, matrix.cols, offset};
      offset += (slice->bytes + kSlotAlignment - 1) / kSlotAlignment * kSlotAlignment;
      return absl::OkStatus();
    };
    if (absl::Status s = resolve(layer.gate, &slices.gate, &layout.gate); !s.ok()) return s;
    if (absl::Status s = resolve(layer.up, &slices.up, &layout.up); !s.ok()) return s;
    if (absl::Status s = resolve(layer.down, &slices.down, &layout.down); !s.ok()) return s;
    layout.bytes = offset;
    slices_[static_cast<size_t>(layer.layer)].push_back(slices);
  }
  return absl::OkStatus();
}

absl::StatusOr<WeightStore::Slice> WeightStore::ResolveSlice(const ExpertMatrix& matrix,
                                                             int expert) const {
  const bool gguf = checkpoint_->kind() == Checkpoint::Kind::kGguf;
  const std::string name =
      absl::StrReplaceAll(NameIn(*checkpoint_, matrix.name), {{"{e}", absl::StrCat(expert)}});
  const TensorInfo* tensor = checkpoint_->Find(name);
  if (tensor == nullptr)
    return absl::InvalidArgumentError(absl::StrCat("the model lacks tensor \"", name, "\""));
  const bool together = gguf || matrix.hf_fused_rows > 0;
  const int64_t fused_rows = gguf ? matrix.rows : matrix.hf_fused_rows;
  const std::vector<int64_t> expected =
      together ? std::vector<int64_t>{table_.num_experts, fused_rows, matrix.cols}
               : std::vector<int64_t>{matrix.rows, matrix.cols};
  if (tensor->shape != expected) return WrongShape(*tensor, expected);
  if (absl::Status s = CheckIsWeight(*tensor); !s.ok()) return s;
  const int64_t row_bytes = BytesOf(tensor->dtype, matrix.cols);
  Slice slice = {tensor, 0, matrix.rows * row_bytes};
  if (together) slice.offset = (expert * fused_rows + (gguf ? 0 : matrix.hf_first_row)) * row_bytes;
  return slice;
}

absl::Status WeightStore::LoadDense(int num_threads, const LoadProgress& progress) {
  for (const DenseLoad& load : loads_) {
    const DenseTensor& declared = *load.declared;
    absl::StatusOr<TensorView> view =
        Place(declared.as_f32 ? DType::kF32 : load.tensor->dtype, declared.shape);
    if (!view.ok()) return view.status();
    *declared.target = *view;
  }
  if (backend_->memory_kind() != MemoryKind::kHost)
    num_threads = 1;  // a device's queue has one caller
  std::atomic<size_t> next{0};
  std::mutex mutex;  // guards error and done
  absl::Status error;
  int64_t done = 0;
  const auto work = [&] {
    for (size_t i = next.fetch_add(1); i < loads_.size(); i = next.fetch_add(1)) {
      const absl::Status status = LoadOne(loads_[i]);
      std::lock_guard<std::mutex> lock(mutex);
      if (error.ok()) error = status;
      if (!error.ok()) return;
      done += loads_[i].tensor->bytes;
      if (progress) progress(done, dense_bytes_);
    }
  };
  std::vector<std::thread> helpers;
  for (int t = 1; t < num_threads; ++t) helpers.emplace_back(work);
  work();
  for (std::thread& helper : helpers) helper.join();
  if (!error.ok()) return error;
  return PlaceRopeInvFreq();
}

absl::Status WeightStore::LoadOne(const DenseLoad& load) {
  const TensorView& view = *load.declared->target;
  const bool decode = view.dtype != load.tensor->dtype;
  if (!decode && backend_->memory_kind() == MemoryKind::kHost) {
    return checkpoint_->Read(*load.tensor, 0, load.tensor->bytes, view.data);
  }
  std::vector<uint8_t> raw(static_cast<size_t>(load.tensor->bytes));
  if (absl::Status s = checkpoint_->Read(*load.tensor, 0, load.tensor->bytes, raw.data()); !s.ok())
    return s;
  if (!decode) return CopyIn(raw.data(), view);
  const WeightFormat& format = GetFormat(load.tensor->dtype);
  std::vector<float> values(static_cast<size_t>(view.num_elems()));
  format.decode(raw.data(), view.num_elems() / format.block_elems, values.data());
  return CopyIn(values.data(), view);
}

absl::Status WeightStore::PlaceRopeInvFreq() {
  std::vector<float> factors;
  const TensorInfo* tensor =
      checkpoint_->Find("rope_freqs.weight");  // GGUF: llama3's scaling as divisors
  if (tensor != nullptr) {
    const size_t expected = model_->RopeInvFreq({}).size();
    if (tensor->dtype != DType::kF32 || tensor->num_elems() != static_cast<int64_t>(expected)) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor \"rope_freqs.weight\" should hold ", expected, " F32"));
    }
    factors.resize(expected);
    if (absl::Status s = checkpoint_->Read(*tensor, 0, tensor->bytes, factors.data()); !s.ok())
      return s;
  }
  const std::vector<float> inv_freq = model_->RopeInvFreq(factors);
  if (inv_freq.empty()) return absl::OkStatus();
  absl::StatusOr<TensorView> view = Place(DType::kF32, {static_cast<int64_t>(inv_freq.size())});
  if (!view.ok()) return view.status();
  *model_->mutable_rope_inv_freq() = *view;
  return CopyIn(inv_freq.data(), *view);
}

absl::StatusOr<TensorView> WeightStore::Place(DType dtype, const std::vector<int64_t>& shape) {
  TensorView view = shape.size() == 1 ? MakeView(nullptr, dtype, {shape[0]})
                                      : MakeView(nullptr, dtype, {shape[0], shape[1]});
  absl::StatusOr<Buffer> memory = backend_->Allocate(view.bytes());
  if (!memory.ok()) return memory.status();
  view.data = memory->data();
  memory_.push_back(*std::move(memory));
  return view;
}

absl::Status WeightStore::CopyIn(const void* host, const TensorView& view) {
  backend_->CopyFromHost(host, view.data, view.bytes());
  return backend_->Synchronize();
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
  const std::pair<const Slice*, int64_t> parts[] = {{&slices.gate, layout.gate.offset},
                                                    {&slices.up, layout.up.offset},
                                                    {&slices.down, layout.down.offset}};
  for (const auto& [slice, offset] : parts) {
    absl::Status read =
        checkpoint_->Read(*slice->tensor, slice->offset, slice->bytes, destination + offset);
    if (!read.ok()) return read;
  }
  return absl::OkStatus();
}

}  // namespace thermocline
