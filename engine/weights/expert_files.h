// ExpertFiles: the experts of a model in its files: where each one's pieces lie, and how they
// become panels in a slot. For GGUF (split too) and safetensors folders alike.
#ifndef THERMOCLINE_ENGINE_WEIGHTS_EXPERT_FILES_H_
#define THERMOCLINE_ENGINE_WEIGHTS_EXPERT_FILES_H_

#include <array>
#include <atomic>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cache/expert_layout.h"
#include "cache/expert_source.h"
#include "engine/weights/tensor_reader.h"

namespace thermocline {

class ExpertFiles : public ExpertSource {
 public:
  // An expert's biases, f32; empty: none.
  struct Biases {
    std::vector<float> gate, up, down;
  };

  // Resolves every expert's matrices: existence, shape, and the same types for all experts of a
  // layer. Reads nothing yet. INVALID_ARGUMENT names the tensor and what was expected. The
  // checkpoint outlives this.
  static absl::StatusOr<std::unique_ptr<ExpertFiles>> Create(const Checkpoint* checkpoint,
                                                             const TensorTable& table,
                                                             int num_layers);

  int num_experts() const { return num_experts_; }
  // One entry a layer; bytes == 0 for layers without experts.
  const std::vector<ExpertLayout>& layouts() const { return layouts_; }
  // Of all experts, in slots.
  int64_t total_bytes() const;
  // Of the longest piece, all its ranges together.
  int64_t max_piece_bytes() const { return max_piece_bytes_; }
  bool has_biases(int layer) const;
  // Any thread. I/O errors name the file.
  absl::StatusOr<Biases> ReadBiases(ExpertId id) const;

  // Reads all of an expert into a slot, one piece after the other. Any thread. DATA_LOSS names the
  // file.
  absl::Status ReadWhole(ExpertId id, char* slot);

  int NumPieces(ExpertId id, ExpertPart part) const override;
  ReadPiece PieceOf(ExpertId id, int32_t index) const override;
  absl::Status Arrive(const ReadPiece& piece, const std::array<const char*, 2>& bytes,
                      char* slot) override;

 private:
  // Matrices that are read together: one, or gate and up where their rows lie in turns.
  struct Group {
    ExpertPart part = ExpertPart::kGateUp;
    int num_matrices = 1;
    std::array<ExpertSlice, 2> slices;
    std::array<ExpertLayout::Matrix, 2> places;
    int64_t rows_per_piece = 0;  // of each matrix, whole panels; of transposed ones all
    int num_pieces = 0;
    int first_piece = 0;
  };
  struct Expert {
    std::array<Group, 3> groups;
    int num_groups = 0;
    int64_t first_checksum = 0;
    ExpertSlice gate_bias, up_bias, down_bias;
  };

  explicit ExpertFiles(const Checkpoint* checkpoint) : checkpoint_(checkpoint) {}

  absl::Status AddLayer(const ExpertLayer& layer);
  static void Plan(Expert* expert, const std::array<ExpertSlice, 3>& slices,
                   const ExpertLayout& layout);
  // What a piece of a group holds.
  struct PieceRows {
    int64_t first = 0, count = 0;                // of each matrix
    int64_t stored_first = 0, stored_count = 0;  // of the whole tensor
    int64_t stored_cols = 0;
  };
  static PieceRows RowsOfPiece(const Group& group, int32_t piece);
  const Expert& At(ExpertId id) const;
  const Group& GroupOf(const Expert& expert, int32_t piece) const;
  // Compares what has come with what came the first time.
  absl::Status Verify(const ReadPiece& piece, const std::array<const char*, 2>& bytes);

  const Checkpoint* checkpoint_;
  int num_experts_ = 0;
  int64_t max_piece_bytes_ = 0;
  int64_t num_pieces_ = 0;
  std::vector<ExpertLayout> layouts_;                   // [layer]
  std::vector<std::vector<Expert>> experts_;            // [layer][expert]
  std::unique_ptr<std::atomic<uint64_t>[]> checksums_;  // [piece]; 0: not read yet
};

}  // namespace thermocline

#endif  // THERMOCLINE_ENGINE_WEIGHTS_EXPERT_FILES_H_
