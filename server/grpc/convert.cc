#include "server/grpc/convert.h"

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "server/grpc/template_inputs.h"
#include "thermocline/v1/inference.pb.h"

namespace thermocline {
namespace {

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

// What the chat template is rendered with.
template <class Message>
absl::StatusOr<nlohmann::ordered_json> ReadInputs(const Message& message,
                                                  bool add_generation_prompt,
                                                  const RequestContext& context) {
  if (context.chat_template == nullptr) {
    return absl::FailedPreconditionError(
        "the model has no chat template: use Generate with a prompt");
  }
  absl::StatusOr<nlohmann::ordered_json> inputs = ToTemplateInputs(
      message.messages(), message.tools(), message.template_arguments_json(), context.call_style);
  if (inputs.ok()) (*inputs)["add_generation_prompt"] = add_generation_prompt;
  return inputs;
}

absl::StatusOr<std::string> Render(const nlohmann::ordered_json& inputs,
                                   const RequestContext& context) {
  return context.chat_template->Render(inputs, SpecialTokenTexts(context.engine->tokenizer()));
}

absl::Status NoTokenizer(const Engine& engine) {
  return absl::FailedPreconditionError(absl::StrCat("the model has no usable tokenizer (",
                                                    engine.tokenizer_error(), "): send token ids"));
}

}  // namespace

absl::StatusOr<std::vector<int32_t>> PromptTokens(absl::string_view text,
                                                  const Tokenizer* tokenizer, bool parse_special) {
  if (tokenizer == nullptr)
    return absl::FailedPreconditionError("the model has no tokenizer: send token ids");
  absl::StatusOr<std::vector<int32_t>> ids = tokenizer->Encode(text, parse_special);
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

absl::StatusOr<ChatGeneration> ToChatGeneration(const v1::ChatRequest& message,
                                                const RequestContext& context) {
  ChatGeneration chat;
  if (absl::Status s = CheckRequestId(message.request_id()); !s.ok()) return s;
  if (context.engine->tokenizer() == nullptr) return NoTokenizer(*context.engine);
  absl::StatusOr<nlohmann::ordered_json> inputs =
      ReadInputs(message, /*add_generation_prompt=*/true, context);
  if (!inputs.ok()) return inputs.status();
  absl::StatusOr<std::string> text = Render(*inputs, context);
  if (!text.ok()) return text.status();
  // The template writes its own BOS token if there is to be one.
  absl::StatusOr<std::vector<int32_t>> prompt =
      context.engine->tokenizer()->Encode(*text, /*parse_special=*/true);
  if (!prompt.ok()) return prompt.status();
  chat.request.prompt = *std::move(prompt);
  absl::Status read = ReadParams(message.params(), context.fallback_seed, &chat.request);
  if (!read.ok()) return read;
  OutputFormat format;  // plain
  if (!message.has_parse_output() || message.parse_output()) format = *context.output_format;
  // Unparsed, the markers are part of what the model wrote.
  chat.request.show_special = context.output_format->needs_special_tokens;
  // Arguments of the template may be called "tools" too, but are none.
  const bool has_tools = !message.tools().empty();
  chat.parser = MakeOutputParser(
      format, has_tools ? std::move((*inputs)["tools"]) : nlohmann::ordered_json(), *text);
  return chat;
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
  absl::StatusOr<nlohmann::ordered_json> inputs = ReadInputs(message, prompt, context);
  if (!inputs.ok()) return inputs.status();
  return Render(*inputs, context);
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

void ToToolCall(const ToolCall& call, int index, const std::string& id, v1::ToolCall* out) {
  out->set_index(index);
  out->set_id(call.id.empty() ? id : call.id);
  out->set_name(call.name);
  out->set_arguments_json(call.arguments);
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
