// GGUF and safetensors files put together by hand, right or wrong, without the project's own
// writer.
#ifndef THERMOCLINE_TESTS_SUPPORT_MODEL_BYTES_H_
#define THERMOCLINE_TESTS_SUPPORT_MODEL_BYTES_H_

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace thermocline {

// The bytes of a number as a little-endian file holds them.
template <class T>
std::string Raw(T value) {
  return std::string(reinterpret_cast<const char*>(&value), sizeof(value));
}

template <class T>
std::string RawList(const std::vector<T>& values) {
  std::string bytes;
  for (T value : values) bytes += Raw(value);
  return bytes;
}

inline void WriteBytes(const std::string& path, absl::string_view bytes) {
  std::filesystem::create_directories(std::filesystem::path(path).parent_path());
  std::ofstream(path, std::ios::binary)
      .write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

// A GGUF file of version 3. Numbers of types as in docs/gguf.md: 0 u8, 1 i8, 2 u16, 3 i16, 4 u32,
// 5 i32, 6 f32, 7 bool, 8 string, 9 array, 10 u64, 11 i64, 12 f64.
struct GgufBytes {
  std::string magic = "GGUF";
  uint32_t version = 3;
  // What the header claims beyond what is there.
  uint64_t more_tensors = 0, more_values = 0;
  uint64_t alignment = 32;  // of the data's first byte; metadata do not follow it by themselves
  uint64_t num_values = 0, num_tensors = 0;
  std::string values, tensors;

  static std::string Text(absl::string_view text) {
    return Raw<uint64_t>(text.size()) + std::string(text);
  }
  GgufBytes& Value(absl::string_view key, uint32_t type, absl::string_view raw) {
    values += Text(key) + Raw(type) + std::string(raw);
    ++num_values;
    return *this;
  }
  GgufBytes& U32(absl::string_view key, uint32_t value) { return Value(key, 4, Raw(value)); }
  GgufBytes& F32(absl::string_view key, float value) { return Value(key, 6, Raw(value)); }
  GgufBytes& Bool(absl::string_view key, bool value) {
    return Value(key, 7, Raw<uint8_t>(value ? 1 : 0));
  }
  GgufBytes& String(absl::string_view key, absl::string_view value) {
    return Value(key, 8, Text(value));
  }
  GgufBytes& Array(absl::string_view key, uint32_t type, uint64_t count, absl::string_view raw) {
    return Value(key, 9, Raw(type) + Raw(count) + std::string(raw));
  }
  // `dims` as on disk, innermost first; `offset` from the start of the data.
  GgufBytes& Tensor(absl::string_view name, const std::vector<uint64_t>& dims, uint32_t ggml_type,
                    uint64_t offset) {
    tensors += Text(name) + Raw(static_cast<uint32_t>(dims.size())) + RawList(dims) +
               Raw(ggml_type) + Raw(offset);
    ++num_tensors;
    return *this;
  }
  // Up to the first byte of the data.
  std::string Header() const {
    std::string bytes = magic + Raw(version) + Raw<uint64_t>(num_tensors + more_tensors) +
                        Raw<uint64_t>(num_values + more_values) + values + tensors;
    bytes.resize((bytes.size() + alignment - 1) / alignment * alignment, '\0');
    return bytes;
  }
  std::string File(absl::string_view data = "") const { return Header() + std::string(data); }
};

// The length of the header, the header, the data.
inline std::string SafetensorsBytes(absl::string_view header, absl::string_view data = "") {
  return Raw<uint64_t>(header.size()) + std::string(header) + std::string(data);
}

}  // namespace thermocline

#endif  // THERMOCLINE_TESTS_SUPPORT_MODEL_BYTES_H_
