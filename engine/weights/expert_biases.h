// ExpertBiases: the biases of all experts, which stay in one device's memory whatever becomes of
// the matrices.
#ifndef THERMOCLINE_ENGINE_WEIGHTS_EXPERT_BIASES_H_
#define THERMOCLINE_ENGINE_WEIGHTS_EXPERT_BIASES_H_

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/weights/expert_files.h"
#include "kernels/device.h"

namespace thermocline {

class ExpertBiases {
 public:
  // Reads those of all layers that have any. I/O errors name the file.
  static absl::StatusOr<std::unique_ptr<ExpertBiases>> Create(const ExpertFiles& files,
                                                              Device* device);

  // Sets the views of the expert's biases; those that it has not stay empty.
  void Set(ExpertId id, ExpertWeights* weights) const;

 private:
  struct Layer {
    Buffer memory;  // [num_experts, gate_rows + up_rows + down_rows] f32
    int64_t gate_rows = 0, up_rows = 0, down_rows = 0;
  };
  std::vector<Layer> layers_;
};

}  // namespace thermocline

#endif  // THERMOCLINE_ENGINE_WEIGHTS_EXPERT_BIASES_H_
