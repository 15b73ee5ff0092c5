#include "kernels/cpu/peaks.h"

#include <atomic>
#include <chrono>
#include <cstring>
#include <thread>
#include <vector>

#include "kernels/cpu/isa.h"
#include "kernels/host_memory.h"

namespace thermocline {
namespace {

constexpr int64_t kPieceBytes = 1 << 20;  // threads take turns at pieces of the buffer

double Seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Runs fn on all threads and returns the seconds it took.
template <class Fn>
double Time(int num_threads, const Fn& fn) {
  const double start = Seconds();
  std::vector<std::thread> threads;
  for (int t = 1; t < num_threads; ++t) threads.emplace_back(fn);
  fn();
  for (std::thread& thread : threads) thread.join();
  return Seconds() - start;
}

}  // namespace

absl::StatusOr<std::unique_ptr<PeakMeter>> PeakMeter::Create(const std::string& isa,
                                                             int num_threads,
                                                             int64_t buffer_bytes) {
  absl::StatusOr<const CpuKernels*> kernels = SelectKernels(isa);
  if (!kernels.ok()) return kernels.status();
  absl::StatusOr<Buffer> buffer =
      AllocateHost((buffer_bytes + kPieceBytes - 1) / kPieceBytes * kPieceBytes);
  if (!buffer.ok()) return buffer.status();
  std::memset(buffer->data(), 1, static_cast<size_t>(buffer->bytes()));
  const absl::Span<const char> memory(static_cast<const char*>(buffer->data()),
                                      static_cast<size_t>(buffer->bytes()));
  return std::unique_ptr<PeakMeter>(
      new PeakMeter(**kernels, num_threads, *std::move(buffer), {memory}));
}

absl::StatusOr<std::unique_ptr<PeakMeter>> PeakMeter::Create(
    const std::string& isa, int num_threads, std::vector<absl::Span<const char>> memory) {
  absl::StatusOr<const CpuKernels*> kernels = SelectKernels(isa);
  if (!kernels.ok()) return kernels.status();
  return std::unique_ptr<PeakMeter>(
      new PeakMeter(**kernels, num_threads, Buffer(), std::move(memory)));
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
  std::atomic<size_t> next{0};
  std::atomic<int32_t> sink{0};
  const double seconds = Time(num_threads_, [&] {
    int32_t sum = 0;
    for (size_t i; (i = next.fetch_add(1)) < pieces.size();) {
      sum ^= kernels_.read_probe(reinterpret_cast<const uint8_t*>(pieces[i].data()), kPieceBytes);
    }
    sink.fetch_xor(sum);
  });
  return static_cast<double>(bytes) / seconds / 1e9;
}

double PeakMeter::Int8GopPerSecond() const {
  constexpr double kSeconds = 0.05;
  std::atomic<int64_t> ops{0};
  const double seconds = Time(num_threads_, [&] {
    int32_t sink[2] = {0x01010101, 0x01010101};
    int64_t mine = 0;
    for (const double end = Seconds() + kSeconds; Seconds() < end;) {
      mine += kernels_.int8_probe(10000, sink);
      sink[0] = 0x01010101;
    }
    ops.fetch_add(mine);
  });
  return static_cast<double>(ops.load()) / seconds / 1e9;
}

double PeakMeter::ClockGhz() {
  constexpr int64_t kAdditions = 50000000;
  const double start = Seconds();
  int64_t x = 1;
  for (int64_t i = 0; i < kAdditions; ++i) asm volatile("add $1, %0" : "+r"(x));
  return static_cast<double>(kAdditions) / (Seconds() - start) / 1e9;
}

}  // namespace thermocline
