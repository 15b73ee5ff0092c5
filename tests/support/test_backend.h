// Backends with threads of their own.
#ifndef THERMOCLINE_TESTS_SUPPORT_TEST_BACKEND_H_
#define THERMOCLINE_TESTS_SUPPORT_TEST_BACKEND_H_

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "kernels/backend.h"
#include "kernels/host_device.h"

namespace thermocline {

// The host's memory, and the pool that its operations use.
class HostDeviceWithPool : public HostDevice {
 public:
  explicit HostDeviceWithPool(int num_threads) : pool_(num_threads) {}
  WorkerPool* pool() { return &pool_; }

 private:
  WorkerPool pool_;
};

// "reference" or "cpu". A failure fails the test.
inline std::unique_ptr<Backend> MakeTestBackend(const std::string& name, int num_threads = 2,
                                                const BackendOptions& options = {}) {
  auto device = std::make_unique<HostDeviceWithPool>(num_threads);
  absl::StatusOr<std::unique_ptr<Backend>> backend = MakeBackend(name, device->pool(), options);
  EXPECT_TRUE(backend.ok()) << backend.status();
  (*backend)->device = std::move(device);  // goes last
  return *std::move(backend);
}

// One expert and its tokens.
struct ExpertJob {
  ExpertWeights weights;
  std::vector<int32_t> rows, out_rows;
};

// Computes experts that are all there. Of one layer: their matrices have the same shapes and types.
// Without roles: generated tokens.
inline void RunExperts(Backend* backend, const TensorView& x, const std::vector<ExpertJob>& jobs,
                       Activation activation, const TensorView& out,
                       std::vector<TokenRole> roles = {}) {
  roles.resize(static_cast<size_t>(x.rows()), TokenRole::kGenerated);
  static const Arrival kHere;
  std::vector<ExpertWork> works(jobs.size());
  for (size_t i = 0; i < jobs.size(); ++i) {
    works[i].weights = jobs[i].weights;
    works[i].arrival = &kHere;
    works[i].rows = jobs[i].rows;
    works[i].out_rows = jobs[i].out_rows;
  }
  const ExpertBatch batch = {jobs[0].weights, activation, x, out, roles};
  backend->experts->Start(batch, absl::MakeSpan(works));
  EXPECT_TRUE(backend->experts->Finish(nullptr).ok());
  EXPECT_TRUE(backend->device->Synchronize().ok());
}

// As the operations want them.
inline TensorView RolesView(const std::vector<TokenRole>& roles) {
  return MakeView(const_cast<TokenRole*>(roles.data()), DType::kI32,
                  {static_cast<int64_t>(roles.size())});
}

}  // namespace thermocline

#endif  // THERMOCLINE_TESTS_SUPPORT_TEST_BACKEND_H_
