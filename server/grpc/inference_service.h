// The gRPC data plane: maps calls to engine requests and engine output to messages.
#ifndef THERMOCLINE_SERVER_GRPC_INFERENCE_SERVICE_H_
#define THERMOCLINE_SERVER_GRPC_INFERENCE_SERVICE_H_

#include <memory>

#include <grpcpp/impl/service_type.h>

#include "absl/status/status.h"
#include "engine/engine.h"
#include "server/metrics.h"

namespace thermocline {

class InferenceService {
 public:
  // `metrics` outlives the service.
  explicit InferenceService(Metrics* metrics);
  ~InferenceService();

  // For ServerBuilder::RegisterService.
  grpc::Service* service();
  // Calls before this answer UNAVAILABLE: loading. The engine outlives the service's calls. A chat
  // template that does not compile is reported; everything else still works.
  absl::Status SetEngine(Engine* engine);
  // Generations and scorings that gRPC is not done with: output may still be on its way. Any
  // thread.
  int num_open_calls() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace thermocline

#endif  // THERMOCLINE_SERVER_GRPC_INFERENCE_SERVICE_H_
