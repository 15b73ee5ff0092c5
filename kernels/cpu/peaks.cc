#include "kernels/cpu/peaks.h"

#include <atomic>
#include <chrono>
#include <cstring>
#include <vector>

#include "kernels/cpu/isa.h"
#include "kernels/host_memory.h"

namespace thermocline {
namespace {

constexpr int64_t kPieceBytes = 1 << 20;  // threads take turns at pieces of the buffer

double Seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

absl::StatusOr<std::unique_ptr<PeakMeter>> PeakMeter::Create(const std::string& isa,
                                                             WorkerPool* pool,
                                                             int64_t buffer_bytes) {
  absl::StatusOr<const CpuKernels*> kernels = SelectKernels(isa);
  if (!kernels.ok()) return kernels.status();
  absl::StatusOr<Buffer> buffer =
      AllocateHost((buffer_bytes + kPieceBytes - 1) / kPieceBytes * kPieceBytes);
  if (!buffer.ok()) return buffer.status();
  std::memset(buffer->data(), 1, static_cast<size_t>(buffer->bytes()));
  const absl::Span<const char> memory(static_cast<const char*>(buffer->data()),
                                      static_cast<size_t>(buffer->bytes()));
  return std::unique_ptr<PeakMeter>(new PeakMeter(**kernels, pool, *std::move(buffer), {memory}));
}

absl::StatusOr<std::unique_ptr<PeakMeter>> PeakMeter::Create(
    const std::string& isa, WorkerPool* pool, std::vector<absl::Span<const char>> memory) {
  absl::StatusOr<const CpuKernels*> kernels = SelectKernels(isa);
  if (!kernels.ok()) return kernels.status();
  return std::unique_ptr<PeakMeter>(new PeakMeter(**kernels, pool, Buffer(), std::move(memory)));
}

int64_t PeakMeter::memory_bytes() const {
  size_t bytes = 0;
  for (const absl::Span<const char> part : memory_) bytes += part.size();
  return static_cast<int64_t>(bytes);
}

double PeakMeter::ReadGbPerSecond() const {
  std::vector<absl::Span<const char>> pieces;
  int64_t bytes = 0;
  for (const absl::Span<const char> part : memory_) {
    for (size_t at = 0; at + kPieceBytes <= part.size(); at += kPieceBytes) {
      pieces.push_back(part.subspan(at, kPieceBytes));
      bytes += kPieceBytes;
    }
  }
  std::atomic<int32_t> sink{0};
  const double start = Seconds();
  pool_->ParallelFor(static_cast<int64_t>(pieces.size()), [&](int64_t i, int) {
    const char* piece = pieces[static_cast<size_t>(i)].data();
    sink.fetch_xor(kernels_.read_probe(reinterpret_cast<const uint8_t*>(piece), kPieceBytes));
  });
  return static_cast<double>(bytes) / (Seconds() - start) / 1e9;
}

double PeakMeter::Int8GopPerSecond() const {
  constexpr double kSeconds = 0.05;
  constexpr int64_t kRounds = 10000, kTasksPerThread = 100;
  std::atomic<int64_t> ops{0};
  const double start = Seconds();
  do {
    pool_->ParallelFor(kTasksPerThread * pool_->num_threads(), [&](int64_t, int) {
      int32_t sink[2] = {0x01010101, 0x01010101};
      ops.fetch_add(kernels_.int8_probe(kRounds, sink));
    });
  } while (Seconds() < start + kSeconds);
  return static_cast<double>(ops.load()) / (Seconds() - start) / 1e9;
}

double PeakMeter::ClockGhz() {
  constexpr int64_t kAdditions = 50000000;
  const double start = Seconds();
  int64_t x = 1;
  for (int64_t i = 0; i < kAdditions; ++i) asm volatile("add $1, %0" : "+r"(x));
  return static_cast<double>(kAdditions) / (Seconds() - start) / 1e9;
}

}  // namespace thermocline
