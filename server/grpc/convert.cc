#include "server/grpc/convert.h"

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "engine/formats/json.h"
#include "thermocline/v1/inference.pb.h"

namespace thermocline {
namespace {

constexpr size_t kMaxMessages = 4096;
constexpr size_t kMaxTemplateArgumentBytes = size_t{256}
                                             << 10;  // keys are looked up one after another

absl::Status ReadParams(const v1::GenerationParams& params, uint64_t fallback_seed,
                        GenerateRequest* request) {
  const v1::SamplingParams& from = params.sampling();
  SamplingParams& to = request->sampling;
  if (from.has_temperature()) to.temperature = from.temperature();
  if (from.has_top_k()) to.top_k = from.top_k();
  if (from.has_top_p()) to.top_p = from.top_p();
  if (from.has_min_p()) to.min_p = from.min_p();
  if (from.has_repetition_penalty()) to.repetition_penalty = from.repetition_penalty();
  if (from.has_presence_penalty()) to.presence_penalty = from.presence_penalty();
  if (from.has_frequency_penalty()) to.frequency_penalty = from.frequency_penalty();
  to.seed = from.has_seed() ? from.seed() : fallback_seed;
  for (const auto& [token, bias] : from.logit_bias()) to.logit_bias[token] = bias;
  if (params.has_max_tokens()) request->max_tokens = params.max_tokens();
  request->stop.assign(params.stop().begin(), params.stop().end());
  request->stop_token_ids.assign(params.stop_token_ids().begin(), params.stop_token_ids().end());
  request->ignore_eos = params.ignore_eos();
  if (!params.has_logprobs()) return absl::OkStatus();
  if (params.logprobs() < 0) {
    return absl::InvalidArgumentError(absl::StrCat("logprobs = ", params.logprobs(), ", but 0 to ",
                                                   kMaxTopLogprobs, " is allowed"));
  }
  request->logprobs = params.logprobs();
  return absl::OkStatus();
}

absl::Status CheckRequestId(const std::string& id) {
  if (id.size() <= kMaxRequestIdBytes) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "request_id has ", id.size(), " bytes, but at most ", kMaxRequestIdBytes, " are allowed"));
}

// `prompt` is a message with the oneof {text, tokens}.
template <class Message>
absl::StatusOr<std::vector<int32_t>> ReadPrompt(const Message& prompt,
                                                const RequestContext& context) {
  if (prompt.has_tokens())
    return std::vector<int32_t>(prompt.tokens().ids().begin(), prompt.tokens().ids().end());
  if (prompt.has_text()) return PromptTokens(prompt.text(), context.engine->tokenizer());
  return absl::InvalidArgumentError("prompt is missing: text or tokens are needed");
}

absl::StatusOr<std::string> Render(
    const google::protobuf::RepeatedPtrField<v1::ChatMessage>& messages, bool add_generation_prompt,
    const std::string& arguments_json, const RequestContext& context) {
  if (context.chat_template == nullptr) {
    return absl::FailedPreconditionError(
        "the model has no chat template: use Generate with a prompt");
  }
  if (messages.empty() || static_cast<size_t>(messages.size()) > kMaxMessages) {
    return absl::InvalidArgumentError(
        absl::StrCat(messages.size(), " messages, but 1 to ", kMaxMessages, " are allowed"));
  }
  nlohmann::ordered_json inputs = nlohmann::ordered_json::object();
  if (arguments_json.size() > kMaxTemplateArgumentBytes) {
    return absl::InvalidArgumentError(absl::StrCat("template_arguments_json has ",
                                                   arguments_json.size(), " bytes, but at most ",
                                                   kMaxTemplateArgumentBytes, " are allowed"));
  }
  if (!arguments_json.empty()) {
    absl::StatusOr<nlohmann::ordered_json> arguments = ParseOrderedJson(arguments_json);
    if (!arguments.ok() || !arguments->is_object()) {
      return absl::InvalidArgumentError("template_arguments_json is not a JSON object");
    }
    inputs = *std::move(arguments);
  }
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const v1::ChatMessage& message : messages) {
    if (message.role().empty()) return absl::InvalidArgumentError("a message has no role");
    list.push_back({{"role", message.role()}, {"content", message.content()}});
  }
  inputs["messages"] = std::move(list);
  inputs["add_generation_prompt"] = add_generation_prompt;
  return context.chat_template->Render(inputs, SpecialTokenTexts(context.engine->tokenizer()));
}

absl::Status NoTokenizer(const Engine& engine) {
  return absl::FailedPreconditionError(absl::StrCat("the model has no usable tokenizer (",
                                                    engine.tokenizer_error(), "): send token ids"));
}

}  // namespace

absl::StatusOr<std::vector<int32_t>> PromptTokens(absl::string_view text,
                                                  const Tokenizer* tokenizer) {
  if (tokenizer == nullptr)
    return absl::FailedPreconditionError("the model has no tokenizer: send token ids");
  absl::StatusOr<std::vector<int32_t>> ids = tokenizer->Encode(text, /*parse_special=*/true);
  if (!ids.ok()) return ids.status();
  const SpecialTokens& special = tokenizer->special();
  if (special.add_bos && special.bos >= 0 && (ids->empty() || ids->front() != special.bos)) {
    ids->insert(ids->begin(), special.bos);
  }
  return ids;
}

absl::StatusOr<GenerateRequest> ToGenerateRequest(const v1::GenerateRequest& message,
                                                  const RequestContext& context) {
  GenerateRequest request;
  if (absl::Status s = CheckRequestId(message.request_id()); !s.ok()) return s;
  absl::StatusOr<std::vector<int32_t>> prompt = ReadPrompt(message, context);
  if (!prompt.ok()) return prompt.status();
  request.prompt = *std::move(prompt);
  if (absl::Status s = ReadParams(message.params(), context.fallback_seed, &request); !s.ok())
    return s;
  return request;
}

absl::StatusOr<GenerateRequest> ToGenerateRequest(const v1::ChatRequest& message,
                                                  const RequestContext& context) {
  GenerateRequest request;
  if (absl::Status s = CheckRequestId(message.request_id()); !s.ok()) return s;
  if (context.engine->tokenizer() == nullptr) return NoTokenizer(*context.engine);
  absl::StatusOr<std::string> text =
      Render(message.messages(), true, message.template_arguments_json(), context);
  if (!text.ok()) return text.status();
  // The template writes its own BOS token if there is to be one.
  absl::StatusOr<std::vector<int32_t>> prompt =
      context.engine->tokenizer()->Encode(*text, /*parse_special=*/true);
  if (!prompt.ok()) return prompt.status();
  request.prompt = *std::move(prompt);
  if (absl::Status s = ReadParams(message.params(), context.fallback_seed, &request); !s.ok())
    return s;
  return request;
}

absl::StatusOr<GenerateRequest> ToScoreRequest(const v1::ScoreRequest& message,
                                               const RequestContext& context) {
  GenerateRequest request;
  absl::StatusOr<std::vector<int32_t>> prompt = ReadPrompt(message, context);
  if (!prompt.ok()) return prompt.status();
  request.prompt = *std::move(prompt);
  request.max_tokens = 0;
  request.prompt_logits = true;
  return request;
}

absl::StatusOr<std::string> RenderChat(const v1::ApplyChatTemplateRequest& message,
                                       const RequestContext& context) {
  const bool prompt = !message.has_add_generation_prompt() || message.add_generation_prompt();
  return Render(message.messages(), prompt, message.template_arguments_json(), context);
}

void ToEffectiveParams(const GenerateRequest& request, int64_t max_context,
                       v1::GenerationParams* out) {
  v1::SamplingParams* to = out->mutable_sampling();
  const SamplingParams& from = request.sampling;
  to->set_temperature(from.temperature);
  to->set_top_k(from.top_k);
  to->set_top_p(from.top_p);
  to->set_min_p(from.min_p);
  to->set_repetition_penalty(from.repetition_penalty);
  to->set_presence_penalty(from.presence_penalty);
  to->set_frequency_penalty(from.frequency_penalty);
  to->set_seed(from.seed);
  for (const auto& [token, bias] : from.logit_bias) (*to->mutable_logit_bias())[token] = bias;
  const int64_t room = max_context - static_cast<int64_t>(request.prompt.size());
  out->set_max_tokens(std::min(request.max_tokens.value_or(room), room));
  for (const std::string& stop : request.stop) out->add_stop(stop);
  for (int32_t id : request.stop_token_ids) out->add_stop_token_ids(id);
  out->set_ignore_eos(request.ignore_eos);
  if (request.logprobs >= 0) out->set_logprobs(request.logprobs);
}

void ToTokenInfo(const OutputToken& token, bool with_logprob, v1::TokenInfo* out) {
  out->set_token(token.token);
  if (!with_logprob) return;
  out->set_logprob(token.logprob);
  for (const TokenLogprob& top : token.top) {
    v1::TopLogprob* entry = out->add_top();
    entry->set_token(top.token);
    entry->set_logprob(top.logprob);
  }
}

grpc::Status ToGrpc(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  // The codes are the same numbers by design.
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), std::string(status.message()));
}

double ToEngineDeadline(std::chrono::system_clock::time_point deadline, double engine_now) {
  const auto now = std::chrono::system_clock::now();
  // gRPC says "no deadline" with a point in the far future.
  if (deadline - now > std::chrono::hours(24 * 365)) return std::numeric_limits<double>::infinity();
  return engine_now + std::chrono::duration<double>(deadline - now).count();
}

}  // namespace thermocline
