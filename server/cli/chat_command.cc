// thermocline chat: a conversation in the terminal.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>

#include "engine/text/chat/output_parser.h"
#include "engine/text/template/chat_template.h"
#include "server/cli/commands.h"
#include "server/cli/engine_flags.h"
#include "server/cli/run_request.h"

namespace thermocline {
namespace {

absl::Status Converse(Engine* engine, const SamplingFlags& sampling, const std::string& system,
                      int64_t max_tokens) {
  const Tokenizer* tokenizer = engine->tokenizer();
  if (tokenizer == nullptr || tokenizer->chat_template().empty()) {
    return absl::FailedPreconditionError("the model has no chat template");
  }
  absl::StatusOr<std::unique_ptr<ChatTemplate>> chat =
      ChatTemplate::Create(tokenizer->chat_template());
  if (!chat.ok()) return chat.status();
  const OutputFormat format = DetectOutputFormat(tokenizer->chat_template());
  nlohmann::ordered_json messages = nlohmann::ordered_json::array();
  if (!system.empty()) messages.push_back({{"role", "system"}, {"content", system}});
  const bool terminal = isatty(STDIN_FILENO) != 0;
  std::string line;
  while (true) {
    if (terminal) std::fputs("> ", stderr);
    if (!std::getline(std::cin, line)) break;
    if (line.empty()) continue;
    messages.push_back({{"role", "user"}, {"content", line}});
    absl::StatusOr<std::string> prompt = (*chat)->Render(
        {{"messages", messages}, {"add_generation_prompt", true}}, SpecialTokenTexts(tokenizer));
    if (!prompt.ok()) return prompt.status();
    GenerateRequest request;
    absl::StatusOr<std::vector<int32_t>> ids = tokenizer->Encode(*prompt, /*parse_special=*/true);
    if (!ids.ok()) return ids.status();
    request.prompt = *std::move(ids);
    request.sampling = ToSamplingParams(sampling);
    request.max_tokens = max_tokens;
    request.show_special = format.needs_special_tokens;
    const std::unique_ptr<OutputParser> parser = MakeOutputParser(format, nullptr, *prompt);
    std::string content;
    // Reasoning is not part of the answer.
    const auto show = [&](const ChatDelta& delta) {
      std::fputs(delta.reasoning.c_str(), stderr);
      std::fputs(delta.content.c_str(), stdout);
      std::fflush(stdout);
      content += delta.content;
    };
    absl::StatusOr<Completion> answer =
        RunRequest(engine, std::move(request),
                   {.on_text = [&](const std::string& text) { show(parser->Append(text)); },
                    .on_prompt_logits = nullptr});
    if (!answer.ok()) return answer.status();
    show(parser->Finish());
    std::fputs("\n", stdout);
    std::fflush(stdout);
    messages.push_back({{"role", "assistant"}, {"content", content}});
  }
  return absl::OkStatus();
}

}  // namespace

void AddChatCommand(CLI::App* app, int* exit_code) {
  struct Flags {
    EngineFlags engine;
    SamplingFlags sampling;
    std::string system;
    int64_t max_tokens = 512;
  };
  auto flags = std::make_shared<Flags>();
  CLI::App* command = app->add_subcommand("chat", "Talk to a model: one line in, one answer out");
  AddEngineFlags(command, &flags->engine);
  AddSamplingFlags(command, &flags->sampling);
  command->add_option("--system", flags->system, "system message");
  command->add_option("--max-tokens", flags->max_tokens, "longest answer")->capture_default_str();
  command->callback([flags, exit_code] {
    absl::StatusOr<std::unique_ptr<Engine>> engine =
        LoadEngine(flags->engine, /*exact=*/false, /*fill_behind=*/true);
    const absl::Status status =
        engine.ok() ? Converse(engine->get(), flags->sampling, flags->system, flags->max_tokens)
                    : engine.status();
    if (!status.ok()) *exit_code = ReportError(status);
  });
}

}  // namespace thermocline
