// FailingBackend: the reference backend, on which every wait fails when it is told so.
#ifndef THERMOCLINE_TESTS_SUPPORT_FAILING_BACKEND_H_
#define THERMOCLINE_TESTS_SUPPORT_FAILING_BACKEND_H_

#include "kernels/reference/reference_backend.h"

namespace thermocline {

class FailingBackend : public ReferenceBackend {
 public:
  // `fail` outlives the backend.
  explicit FailingBackend(const bool* fail) : fail_(fail) {}
  absl::Status Wait(EventId) override {
    return *fail_ ? absl::InternalError("the device is lost") : absl::OkStatus();
  }

 private:
  const bool* fail_;
};

}  // namespace thermocline

#endif  // THERMOCLINE_TESTS_SUPPORT_FAILING_BACKEND_H_
