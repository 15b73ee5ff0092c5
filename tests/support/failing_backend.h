// The reference backend, on which every wait fails when it is told so.
#ifndef THERMOCLINE_TESTS_SUPPORT_FAILING_BACKEND_H_
#define THERMOCLINE_TESTS_SUPPORT_FAILING_BACKEND_H_

#include <memory>

#include "kernels/host_device.h"
#include "kernels/reference/reference_ops.h"

namespace thermocline {

class FailingDevice : public HostDevice {
 public:
  explicit FailingDevice(const bool* fail) : fail_(fail) {}
  absl::Status Wait(EventId) override {
    return *fail_ ? absl::InternalError("the device is lost") : absl::OkStatus();
  }

 private:
  const bool* fail_;
};

// `fail` outlives the backend.
inline std::unique_ptr<Backend> MakeFailingBackend(const bool* fail) {
  std::unique_ptr<Backend> backend = MakeReferenceBackend();
  backend->device = std::make_unique<FailingDevice>(fail);
  return backend;
}

}  // namespace thermocline

#endif  // THERMOCLINE_TESTS_SUPPORT_FAILING_BACKEND_H_
