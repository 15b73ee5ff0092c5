// The gRPC control plane: what the server is, how busy it is, and how to stop it gently.
#ifndef THERMOCLINE_SERVER_GRPC_CONTROL_SERVICE_H_
#define THERMOCLINE_SERVER_GRPC_CONTROL_SERVICE_H_

#include <functional>
#include <memory>

#include <grpcpp/impl/service_type.h>

#include "engine/engine.h"

namespace thermocline {

class ControlService {
 public:
  // `drain` starts a drain and returns at once; any thread.
  explicit ControlService(std::function<void()> drain);
  ~ControlService();

  grpc::Service* service();
  // Calls about the model answer UNAVAILABLE before this. The engine outlives the service's calls.
  void SetEngine(Engine* engine);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace thermocline

#endif  // THERMOCLINE_SERVER_GRPC_CONTROL_SERVICE_H_
