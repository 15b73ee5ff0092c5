// thermocline-client: calls a Thermocline server from the command line.
#include <grpcpp/grpcpp.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <fstream>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "thermocline/v1/control.grpc.pb.h"
#include "thermocline/v1/inference.grpc.pb.h"

namespace {

namespace v1 = thermocline::v1;
using nlohmann::ordered_json;

struct Flags {
  std::string address = "localhost:50051";
  std::string control_address = "localhost:50052";
  double timeout = 0.0;
  std::string text, system;
  std::string tools;  // path
  std::string template_arguments;
  std::vector<int32_t> tokens;
  float temperature = -1.0f;
  int64_t max_tokens = -1;
  uint64_t seed = 0;
  bool has_seed = false;
  std::vector<std::string> stop;
  std::string what = "server";
};

int Report(const grpc::Status& status) {
  if (status.ok()) return 0;
  std::fprintf(stderr, "thermocline-client: %s (gRPC status %d)\n", status.error_message().c_str(),
               static_cast<int>(status.error_code()));
  return 1;
}

std::shared_ptr<grpc::Channel> Connect(const std::string& address) {
  return grpc::CreateChannel(address, grpc::InsecureChannelCredentials());
}

void SetDeadline(const Flags& flags, grpc::ClientContext* context) {
  if (flags.timeout <= 0.0) return;
  context->set_deadline(std::chrono::system_clock::now() +
                        std::chrono::milliseconds(static_cast<int64_t>(flags.timeout * 1e3)));
}

void SetParams(const Flags& flags, v1::GenerationParams* params) {
  if (flags.temperature >= 0.0f) params->mutable_sampling()->set_temperature(flags.temperature);
  if (flags.has_seed) params->mutable_sampling()->set_seed(flags.seed);
  if (flags.max_tokens >= 0) params->set_max_tokens(flags.max_tokens);
  for (const std::string& stop : flags.stop) params->add_stop(stop);
}

void Print(const std::string& text) {
  std::fputs(text.c_str(), stdout);
  std::fflush(stdout);
}

int Generate(const Flags& flags) {
  const auto stub = v1::Inference::NewStub(Connect(flags.address));
  grpc::ClientContext context;
  SetDeadline(flags, &context);
  v1::GenerateRequest request;
  request.set_text(flags.text);
  SetParams(flags, request.mutable_params());
  const auto reader = stub->Generate(&context, request);
  for (v1::GenerateResponse response; reader->Read(&response);) Print(response.text());
  Print("\n");
  return Report(reader->Finish());
}

// A JSON list of tools in OpenAI's form into the request; false, with a message, when it is none.
bool ReadTools(const std::string& path, v1::ChatRequest* request) {
  std::ifstream in(path);
  const ordered_json list = ordered_json::parse(in, nullptr, /*allow_exceptions=*/false);
  for (const ordered_json& entry : list.is_array() ? list : ordered_json::array()) {
    const ordered_json function =
        entry.is_object() ? entry.value("function", entry) : ordered_json();
    if (!function.is_object() || !function.contains("name") || !function["name"].is_string()) break;
    v1::Tool* tool = request->add_tools();
    tool->set_name(function["name"].get<std::string>());
    if (function.contains("description") && function["description"].is_string())
      tool->set_description(function["description"].get<std::string>());
    if (function.contains("parameters")) tool->set_parameters_json(function["parameters"].dump());
  }
  if (list.is_array() && static_cast<size_t>(request->tools_size()) == list.size()) return true;
  std::fprintf(stderr,
               "\"%s\" is no JSON list of tools: [{\"type\": \"function\", \"function\": {...}}]\n",
               path.c_str());
  return false;
}

int Chat(const Flags& flags) {
  const auto stub = v1::Inference::NewStub(Connect(flags.address));
  grpc::ClientContext context;
  SetDeadline(flags, &context);
  v1::ChatRequest request;
  const auto add = [&](const char* role, const std::string& content) {
    v1::ChatMessage* message = request.add_messages();
    message->set_role(role);
    message->set_content(content);
  };
  if (!flags.system.empty()) add("system", flags.system);
  add("user", flags.text);
  SetParams(flags, request.mutable_params());
  if (!flags.tools.empty() && !ReadTools(flags.tools, &request)) return 1;
  if (!flags.template_arguments.empty())
    request.set_template_arguments_json(flags.template_arguments);
  const auto reader = stub->Chat(&context, request);
  for (v1::ChatResponse response; reader->Read(&response);) {
    std::fputs(response.reasoning_content().c_str(), stderr);
    Print(response.content());
    for (const v1::ToolCall& call : response.tool_calls()) {
      Print("\n" + call.name() + " " + call.arguments_json());
    }
  }
  Print("\n");
  return Report(reader->Finish());
}

int Tokenize(const Flags& flags) {
  const auto stub = v1::Inference::NewStub(Connect(flags.address));
  grpc::ClientContext context;
  SetDeadline(flags, &context);
  v1::TokenizeRequest request;
  v1::TokenizeResponse response;
  request.set_text(flags.text);
  const grpc::Status status = stub->Tokenize(&context, request, &response);
  if (status.ok())
    Print(ordered_json(std::vector<int32_t>(response.ids().begin(), response.ids().end())).dump() +
          "\n");
  return Report(status);
}

int Info(const Flags& flags) {
  const auto stub = v1::Control::NewStub(Connect(flags.control_address));
  grpc::ClientContext context;
  SetDeadline(flags, &context);
  grpc::Status status;
  std::string text;
  if (flags.what == "server") {
    v1::ServerInfo info;
    status = stub->GetServerInfo(&context, {}, &info);
    text = info.DebugString();
  } else if (flags.what == "model") {
    v1::ModelInfo info;
    status = stub->GetModelInfo(&context, {}, &info);
    text = info.DebugString();
  } else if (flags.what == "load") {
    v1::LoadInfo info;
    status = stub->GetLoad(&context, {}, &info);
    text = info.DebugString();
  } else {
    v1::ExpertMap map;
    status = stub->GetExpertMap(&context, {}, &map);
    text = map.DebugString();
  }
  if (status.ok()) Print(text);
  return Report(status);
}

int Drain(const Flags& flags) {
  const auto stub = v1::Control::NewStub(Connect(flags.control_address));
  grpc::ClientContext context;
  SetDeadline(flags, &context);
  v1::DrainResponse response;
  return Report(stub->Drain(&context, {}, &response));
}

void AddGenerationFlags(CLI::App* command, Flags* flags) {
  command->add_option("--temperature", flags->temperature, "0: greedy (default: the server's)");
  command->add_option("--max-tokens", flags->max_tokens, "longest answer (default: the server's)");
  command->add_option_function<uint64_t>(
      "--seed",
      [flags](uint64_t seed) {
        flags->seed = seed;
        flags->has_seed = true;
      },
      "fixes the random choices");
  command->add_option("--stop", flags->stop, "stop at this text; may be repeated");
}

}  // namespace

int main(int argc, char** argv) {
  Flags flags;
  int exit_code = 0;
  CLI::App app("Calls a Thermocline server");
  app.require_subcommand(1);
  app.add_option("--address", flags.address, "host:port of the server")
      ->capture_default_str()
      ->envname("THERMOCLINE_ADDRESS");
  app.add_option("--control-address", flags.control_address, "host:port of its Control service")
      ->capture_default_str()
      ->envname("THERMOCLINE_CONTROL_ADDRESS");
  app.add_option("--timeout", flags.timeout, "seconds; 0: none")->capture_default_str();
  const auto add = [&](const char* name, const char* help, int (*run)(const Flags&)) {
    CLI::App* command = app.add_subcommand(name, help);
    command->fallthrough();
    command->callback([&flags, &exit_code, run] { exit_code = run(flags); });
    return command;
  };
  CLI::App* generate = add("generate", "Continue a prompt", &Generate);
  generate->add_option("prompt", flags.text)->required();
  AddGenerationFlags(generate, &flags);
  CLI::App* chat = add("chat", "Ask one question", &Chat);
  chat->add_option("message", flags.text)->required();
  chat->add_option("--system", flags.system, "system message");
  chat->add_option("--tools", flags.tools,
                   "file with a JSON list of tools; calls are printed as NAME ARGUMENTS");
  chat->add_option("--template-arguments", flags.template_arguments,
                   "JSON object for the chat template, for example {\"enable_thinking\": false}");
  AddGenerationFlags(chat, &flags);
  add("tokenize", "Token ids of a text", &Tokenize)->add_option("text", flags.text)->required();
  add("info", "What the server is doing", &Info)
      ->add_option("what", flags.what, "server, model, load or experts")
      ->check(CLI::IsMember({"server", "model", "load", "experts"}))
      ->capture_default_str();
  add("drain", "Let running requests finish, then stop the server", &Drain);
  CLI11_PARSE(app, argc, argv);
  return exit_code;
}
