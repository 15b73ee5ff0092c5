#include "engine/pass/scratch.h"

#include <algorithm>

#include "kernels/check.h"

namespace thermocline {

static constexpr int64_t kChunkBytes = int64_t{4} << 20;
static constexpr int64_t kAlignment = 64;

void* Scratch::Allocate(int64_t bytes) {
  const int64_t rounded = (std::max<int64_t>(bytes, 1) + kAlignment - 1) / kAlignment * kAlignment;
  while (top_.chunk < chunks_.size() && top_.offset + rounded > chunks_[top_.chunk].bytes()) {
    top_ = {top_.chunk + 1, 0};
  }
  if (top_.chunk == chunks_.size()) {
    // Doubling keeps the chunks that grew too small within a small factor of the peak.
    absl::StatusOr<Buffer> chunk = device_->Allocate(std::max(
        {rounded, chunks_.empty() && reserve_ > 0 ? reserve_ : kChunkBytes, capacity_bytes()}));
    TC_CHECK(chunk.ok()) << "activations: " << chunk.status();
    chunks_.push_back(*std::move(chunk));
  }
  void* data = static_cast<char*>(chunks_[top_.chunk].data()) + top_.offset;
  top_.offset += rounded;
  if (top_.chunk == 0) peak_ = std::max(peak_, top_.offset);
  return data;
}

int64_t Scratch::capacity_bytes() const {
  int64_t bytes = 0;
  for (const Buffer& chunk : chunks_) bytes += chunk.bytes();
  return bytes;
}

}  // namespace thermocline
