// thermocline healthcheck: asks a running server for its health, for containers and scripts.
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "server/cli/commands.h"
#include "server/cli/engine_flags.h"

namespace thermocline {
namespace {

// grpc.health.v1.HealthCheckResponse holds one enum, field 1: the two bytes 08 <status>; SERVING
// is 1. Calling it without generated code keeps a second copy of the protocol out of the program.
absl::Status CheckHealth(const std::string& address, double seconds) {
  auto channel = grpc::CreateChannel(address, grpc::InsecureChannelCredentials());
  grpc::GenericStub stub(channel);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() +
                       std::chrono::milliseconds(static_cast<int64_t>(seconds * 1e3)));
  grpc::CompletionQueue queue;
  const grpc::ByteBuffer request(nullptr, 0);
  auto call = stub.PrepareUnaryCall(&context, "/grpc.health.v1.Health/Check", request, &queue);
  grpc::ByteBuffer response;
  grpc::Status status;
  call->StartCall();
  call->Finish(&response, &status, nullptr);
  void* tag = nullptr;
  bool ok = false;
  queue.Next(&tag, &ok);
  queue.Shutdown();
  if (!status.ok())
    return absl::UnavailableError(absl::StrCat(address, ": ", status.error_message()));
  std::vector<grpc::Slice> slices;
  std::string bytes;
  if (response.Dump(&slices).ok()) {
    for (const grpc::Slice& slice : slices)
      bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  if (bytes == std::string("\x08\x01", 2)) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat(address, ": not serving (loading or draining)"));
}

}  // namespace

void AddHealthcheckCommand(CLI::App* app, int* exit_code) {
  struct Flags {
    std::string address = "127.0.0.1:50051";
    double timeout = 5.0;
  };
  auto flags = std::make_shared<Flags>();
  CLI::App* command = app->add_subcommand("healthcheck", "Exit status 0 when a server is serving");
  command->add_option("--address", flags->address, "host:port of the server")
      ->capture_default_str();
  command->add_option("--timeout", flags->timeout, "seconds")->capture_default_str();
  command->callback([flags, exit_code] {
    const absl::Status status = CheckHealth(flags->address, flags->timeout);
    if (!status.ok()) {
      *exit_code = ReportError(status);
      return;
    }
    std::puts("serving");
  });
}

}  // namespace thermocline
