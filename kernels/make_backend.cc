#include "absl/strings/str_cat.h"
#include "kernels/backend.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/reference/reference_ops.h"

namespace thermocline {

absl::StatusOr<std::unique_ptr<Backend>> MakeBackend(absl::string_view name, WorkerPool* pool,
                                                     const BackendOptions& options) {
  if (name == "reference") return MakeReferenceBackend();
  if (name == "cpu") return MakeCpuBackend(pool, options);
  return absl::InvalidArgumentError(
      absl::StrCat("backend = \"", name, "\", but the backends are: reference, cpu"));
}

}  // namespace thermocline
