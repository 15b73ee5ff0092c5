// Buffer: move-only ownership of one allocation on one backend.
#ifndef THERMOCLINE_KERNELS_BUFFER_H_
#define THERMOCLINE_KERNELS_BUFFER_H_

#include <cstdint>
#include <utility>

namespace thermocline {

// Where the bytes lie. kPinned is host memory that a device copies from and to without the CPU.
// kDevice memory may be touched only through its device.
enum class MemoryKind : uint8_t { kHost, kPinned, kDevice };

class Buffer {
 public:
  using FreeFn = void (*)(void* context, void* data, int64_t bytes);

  Buffer() = default;
  Buffer(void* data, int64_t bytes, MemoryKind kind, FreeFn free_fn, void* context)
      : data_(data), bytes_(bytes), kind_(kind), free_fn_(free_fn), context_(context) {}
  Buffer(Buffer&& other) noexcept { *this = std::move(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    std::swap(kind_, other.kind_);
    std::swap(free_fn_, other.free_fn_);
    std::swap(context_, other.context_);
    return *this;
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() {
    if (data_ != nullptr) free_fn_(context_, data_, bytes_);
  }

  void* data() const { return data_; }
  int64_t bytes() const { return bytes_; }
  MemoryKind kind() const { return kind_; }

 private:
  void* data_ = nullptr;
  int64_t bytes_ = 0;
  MemoryKind kind_ = MemoryKind::kHost;
  FreeFn free_fn_ = nullptr;
  void* context_ = nullptr;
};

}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_BUFFER_H_
