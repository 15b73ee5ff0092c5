// Pure functions between the public messages and the engine's requests: both directions, every
// range checked.
#ifndef THERMOCLINE_SERVER_GRPC_CONVERT_H_
#define THERMOCLINE_SERVER_GRPC_CONVERT_H_

#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <grpcpp/support/status.h>

#include "absl/status/statusor.h"
#include "engine/engine.h"
#include "engine/text/chat/output_parser.h"
#include "engine/text/template/chat_template.h"

namespace thermocline {

namespace v1 {
class ApplyChatTemplateRequest;
class ChatMessage;
class ChatRequest;
class GenerateRequest;
class GenerationParams;
class ScoreRequest;
class TokenInfo;
class Tool;
class ToolCall;
}  // namespace v1

// How a template wants the calls of earlier turns.
struct CallStyle {
  bool null_content = false;      // content that is empty beside calls is null, not ""
  bool string_arguments = false;  // arguments are JSON text, not an object
};

// What a request is read against. The engine outlives it.
struct RequestContext {
  const Engine* engine = nullptr;
  const ChatTemplate* chat_template = nullptr;  // null: the model has none
  const OutputFormat* output_format = nullptr;  // of that template
  CallStyle call_style;
  uint64_t fallback_seed = 0;
};

inline constexpr size_t kMaxRequestIdBytes = 128;

// INVALID_ARGUMENT names the field; FAILED_PRECONDITION when the model has no tokenizer or template
// for a text request.
absl::StatusOr<GenerateRequest> ToGenerateRequest(const v1::GenerateRequest& message,
                                                  const RequestContext& context);
// A conversation as a request, with the parser that reads its output.
struct ChatGeneration {
  GenerateRequest request;
  std::unique_ptr<OutputParser> parser;
};
absl::StatusOr<ChatGeneration> ToChatGeneration(const v1::ChatRequest& message,
                                                const RequestContext& context);
absl::StatusOr<GenerateRequest> ToScoreRequest(const v1::ScoreRequest& message,
                                               const RequestContext& context);
absl::StatusOr<std::string> RenderChat(const v1::ApplyChatTemplateRequest& message,
                                       const RequestContext& context);
// Tokens of a prompt given as text, with the BOS token the model wants.
absl::StatusOr<std::vector<int32_t>> PromptTokens(absl::string_view text,
                                                  const Tokenizer* tokenizer,
                                                  bool parse_special = true);

// The parameters in effect, for the response. max_context bounds max_tokens.
void ToEffectiveParams(const GenerateRequest& request, int64_t max_context,
                       v1::GenerationParams* out);
void ToTokenInfo(const OutputToken& token, bool with_logprob, v1::TokenInfo* out);

// `id` is used when the model's format has none.
void ToToolCall(const ToolCall& call, int index, const std::string& id, v1::ToolCall* out);

grpc::Status ToGrpc(const absl::Status& status);
// A gRPC deadline on the engine's clock; infinity when there is none.
double ToEngineDeadline(std::chrono::system_clock::time_point deadline, double engine_now);

}  // namespace thermocline

#endif  // THERMOCLINE_SERVER_GRPC_CONVERT_H_
