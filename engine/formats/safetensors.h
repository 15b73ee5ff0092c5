// Reader of Hugging Face model folders: config.json and safetensors files, single or sharded by an
// index. Source: the format section of the safetensors README.
#ifndef THERMOCLINE_ENGINE_FORMATS_SAFETENSORS_H_
#define THERMOCLINE_ENGINE_FORMATS_SAFETENSORS_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/formats/checkpoint.h"

namespace thermocline {

// F32, F16 and BF16 tensors, MXFP4 in pairs of tensors and F8_E4M3 with scales
// (engine/formats/packed_storage.h); others are refused.
absl::StatusOr<std::unique_ptr<Checkpoint>> OpenSafetensorsFolder(const std::string& folder);

// One tensor of a safetensors file read as numbers, for reference data in tests and tools. I64, F32
// and U8 are understood.
struct PlainTensor {
  std::vector<int64_t> shape;
  std::vector<float> f32;
  std::vector<int64_t> i64;
  std::vector<uint8_t> u8;
};
absl::StatusOr<std::map<std::string, PlainTensor>> ReadPlainTensors(const std::string& path);

}  // namespace thermocline

#endif  // THERMOCLINE_ENGINE_FORMATS_SAFETENSORS_H_
