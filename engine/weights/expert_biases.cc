#include "engine/weights/expert_biases.h"

namespace thermocline {

absl::StatusOr<std::unique_ptr<ExpertBiases>> ExpertBiases::Create(const ExpertFiles& files,
                                                                   Device* device) {
  auto biases = std::make_unique<ExpertBiases>();
  for (int l = 0; l < static_cast<int>(files.layouts().size()); ++l) {
    Layer layer;
    std::vector<float> values;
    for (int e = 0; files.has_biases(l) && e < files.num_experts(); ++e) {
      absl::StatusOr<ExpertFiles::Biases> one = files.ReadBiases({l, e});
      if (!one.ok()) return one.status();
      layer.gate_rows = static_cast<int64_t>(one->gate.size());
      layer.up_rows = static_cast<int64_t>(one->up.size());
      layer.down_rows = static_cast<int64_t>(one->down.size());
      for (const std::vector<float>* part : {&one->gate, &one->up, &one->down}) {
        values.insert(values.end(), part->begin(), part->end());
      }
    }
    if (!values.empty()) {
      const int64_t bytes = static_cast<int64_t>(values.size() * sizeof(float));
      absl::StatusOr<Buffer> memory = device->Allocate(bytes);
      if (!memory.ok()) return memory.status();
      layer.memory = *std::move(memory);
      device->Copy(Queue::kCompute, values.data(), layer.memory.data(), bytes);
      if (absl::Status s = device->Synchronize(); !s.ok()) return s;
    }
    biases->layers_.push_back(std::move(layer));
  }
  return biases;
}

void ExpertBiases::Set(ExpertId id, ExpertWeights* weights) const {
  const Layer& layer = layers_[static_cast<size_t>(id.layer)];
  const int64_t rows = layer.gate_rows + layer.up_rows + layer.down_rows;
  if (rows == 0) return;
  float* at = static_cast<float*>(layer.memory.data()) + id.expert * rows;
  const auto next = [&at](int64_t count) {
    const TensorView view = count > 0 ? MakeView(at, DType::kF32, {count}) : TensorView();
    at += count;
    return view;
  };
  weights->gate_bias = next(layer.gate_rows);
  weights->up_bias = next(layer.up_rows);
  weights->down_bias = next(layer.down_rows);
}

}  // namespace thermocline
