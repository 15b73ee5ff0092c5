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
  return std::unique_ptr<PeakMeter>(new PeakMeter(**kernels, num_threads, *std::move(buffer)));
}

double PeakMeter::ReadGbPerSecond() const {
  std::atomic<int64_t> next{0};
  std::atomic<int32_t> sink{0};
  const uint8_t* data = static_cast<const uint8_t*>(buffer_.data());
  const double seconds = Time(num_threads_, [&] {
    int32_t sum = 0;
    for (int64_t at; (at = next.fetch_add(kPieceBytes)) < buffer_.bytes();) {
      sum ^= kernels_.read_probe(data + at, kPieceBytes);
    }
    sink.fetch_xor(sum);
  });
  return static_cast<double>(buffer_.bytes()) / seconds / 1e9;
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
