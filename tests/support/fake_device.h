// FakeDevice: a backend that behaves like an accelerator and computes like another one.
//
// Its memory cannot be read by the host: addresses it hands out are tagged so that a stray
// dereference faults. Fresh memory is NaN. Operations and copies only queue up; they run when
// somebody waits, in an order drawn by a seed that honours nothing but the order within a queue and
// WaitOn: a missing wait shows as stale or poisoned results.
#ifndef THERMOCLINE_TESTS_SUPPORT_FAKE_DEVICE_H_
#define THERMOCLINE_TESTS_SUPPORT_FAKE_DEVICE_H_

#include <memory>

#include "kernels/backend.h"

namespace thermocline {

// What a device was asked to do.
struct FakeDeviceStats {
  int64_t num_experts = 0;  // computed
};

struct FakeDeviceOptions {
  uint64_t seed = 1;
  int64_t memory_bytes = int64_t{1} << 40;
  int64_t lost_after = -1;           // items that run before it is lost; -1: never
  FakeDeviceStats* stats = nullptr;  // outlives the device; null: nobody counts
};

// `inner` computes in host memory and is done when its calls return.
std::unique_ptr<Backend> MakeFakeDevice(std::unique_ptr<Backend> inner,
                                        const FakeDeviceOptions& options = {});

}  // namespace thermocline

#endif  // THERMOCLINE_TESTS_SUPPORT_FAKE_DEVICE_H_
