// thermocline generate: one prompt, one answer.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "server/cli/commands.h"
#include "server/cli/engine_flags.h"
#include "server/cli/run_request.h"
#include "server/grpc/convert.h"

namespace thermocline {
namespace {

struct GenerateFlags {
  EngineFlags engine;
  SamplingFlags sampling;
  std::string prompt, tokens;
  int64_t max_tokens = 128;
  std::vector<std::string> stop;
  bool ignore_eos = false;
  bool json = false;
};

absl::Status Generate(const GenerateFlags& flags) {
  if (flags.prompt.empty() == flags.tokens.empty()) {
    return absl::InvalidArgumentError("exactly one of --prompt and --tokens is needed");
  }
  absl::StatusOr<std::unique_ptr<Engine>> engine =
      LoadEngine(flags.engine, /*exact=*/false, /*fill_behind=*/true);
  if (!engine.ok()) return engine.status();
  const Tokenizer* tokenizer = (*engine)->tokenizer();
  absl::StatusOr<std::vector<int32_t>> prompt =
      flags.tokens.empty() ? PromptTokens(flags.prompt, tokenizer) : ParseTokenList(flags.tokens);
  if (!prompt.ok()) return prompt.status();
  GenerateRequest request;
  request.prompt = *std::move(prompt);
  request.sampling = ToSamplingParams(flags.sampling);
  request.max_tokens = flags.max_tokens;
  request.stop = flags.stop;
  request.ignore_eos = flags.ignore_eos;
  RunCallbacks callbacks;
  if (!flags.json) {
    callbacks.on_text = [](const std::string& text) {
      std::fputs(text.c_str(), stdout);
      std::fflush(stdout);
    };
  }
  absl::StatusOr<Completion> completion = RunRequest(engine->get(), std::move(request), callbacks);
  if (!completion.ok()) return completion.status();
  if (flags.json) {
    nlohmann::ordered_json out = {{"tokens", completion->tokens}, {"text", nullptr}};
    if (tokenizer != nullptr) out["text"] = completion->text;
    std::puts(out.dump().c_str());
  } else {
    std::puts("");
  }
  return absl::OkStatus();
}

}  // namespace

void AddGenerateCommand(CLI::App* app, int* exit_code) {
  auto flags = std::make_shared<GenerateFlags>();
  CLI::App* command = app->add_subcommand("generate", "Continue a prompt");
  AddEngineFlags(command, &flags->engine);
  AddSamplingFlags(command, &flags->sampling);
  command->add_option("--prompt", flags->prompt, "text to continue");
  command->add_option("--tokens", flags->tokens, "token ids to continue: 1,2,3");
  command->add_option("--max-tokens", flags->max_tokens, "longest continuation")
      ->capture_default_str();
  command->add_option("--stop", flags->stop, "stop at this text; may be repeated");
  command->add_flag("--ignore-eos", flags->ignore_eos, "do not stop at end tokens");
  command->add_flag("--json", flags->json, "print {\"tokens\": [new ids], \"text\": ...}");
  command->callback([flags, exit_code] {
    if (const absl::Status status = Generate(*flags); !status.ok())
      *exit_code = ReportError(status);
  });
}

}  // namespace thermocline
