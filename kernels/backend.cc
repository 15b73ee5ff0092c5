#include "kernels/backend.h"

#include "absl/strings/str_cat.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/reference/reference_backend.h"

namespace thermocline {

absl::StatusOr<std::unique_ptr<Backend>> MakeBackend(absl::string_view name,
                                                     const BackendOptions& options) {
  if (name == "reference") return std::unique_ptr<Backend>(new ReferenceBackend());
  if (name == "cpu") return CpuBackend::Create(options);
  return absl::InvalidArgumentError(
      absl::StrCat("backend = \"", name, "\", but the backends are: reference, cpu"));
}

}  // namespace thermocline
