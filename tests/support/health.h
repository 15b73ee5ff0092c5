// Calls of grpc.health.v1 and of reflection without generated code: their messages are a few bytes.
#ifndef THERMOCLINE_TESTS_SUPPORT_HEALTH_H_
#define THERMOCLINE_TESTS_SUPPORT_HEALTH_H_

#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>
#include <vector>

namespace thermocline {

enum class Health { kUnknown = 0, kServing = 1, kNotServing = 2 };

inline std::string BytesOf(const grpc::ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  std::string bytes;
  if (!buffer.Valid() || !buffer.Dump(&slices).ok()) return bytes;
  for (const grpc::Slice& slice : slices)
    bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  return bytes;
}

// HealthCheckResponse is one enum, field 1; zero is left out.
inline Health HealthFromBytes(const std::string& bytes) {
  return bytes.size() == 2 && bytes[0] == 8 ? static_cast<Health>(bytes[1]) : Health::kUnknown;
}

// HealthCheckRequest is one string, field 1.
inline grpc::ByteBuffer HealthRequest(const std::string& service) {
  const grpc::Slice slice("\x0A" + std::string(1, static_cast<char>(service.size())) + service);
  return grpc::ByteBuffer(&slice, 1);
}

// A call of any method, one message at a time.
class GenericCall {
 public:
  GenericCall(const std::string& address, const std::string& method)
      : stub_(grpc::CreateChannel(address, grpc::InsecureChannelCredentials())) {
    context_.set_wait_for_ready(true);
    context_.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
    call_ = stub_.PrepareCall(&context_, method, &queue_);
    call_->StartCall(this);
    Wait();
  }
  ~GenericCall() {
    context_.TryCancel();
    if (!finished_) Finish();
    queue_.Shutdown();
    void* tag = nullptr;
    for (bool ok = false; queue_.Next(&tag, &ok);) {
    }
  }
  bool Write(const grpc::ByteBuffer& message) {
    call_->Write(message, this);
    return Wait();
  }
  void WritesDone() {
    call_->WritesDone(this);
    Wait();
  }
  // False at the end of the call.
  bool Read(std::string* bytes) {
    grpc::ByteBuffer message;
    call_->Read(&message, this);
    if (!Wait()) return false;
    *bytes = BytesOf(message);
    return true;
  }
  grpc::Status Finish() {
    grpc::Status status;
    call_->Finish(&status, this);
    Wait();
    finished_ = true;
    return status;
  }

 private:
  bool Wait() {
    void* tag = nullptr;
    bool ok = false;
    return queue_.Next(&tag, &ok) && ok;
  }

  grpc::GenericStub stub_;
  grpc::ClientContext context_;
  grpc::CompletionQueue queue_;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> call_;
  bool finished_ = false;
};

// What the server at `address` says of a service ("": of itself); waits until it listens.
inline grpc::Status CheckHealth(const std::string& address, const std::string& service,
                                Health* health) {
  GenericCall call(address, "/grpc.health.v1.Health/Check");
  call.Write(HealthRequest(service));
  call.WritesDone();
  std::string bytes;
  call.Read(&bytes);
  *health = HealthFromBytes(bytes);
  return call.Finish();
}

}  // namespace thermocline

#endif  // THERMOCLINE_TESTS_SUPPORT_HEALTH_H_
