// thermocline score: log-probabilities, and logits, of given tokens.
#include <CLI/CLI.hpp>
#include <cstdio>

#include "engine/sampler.h"
#include "server/cli/commands.h"
#include "server/cli/engine_flags.h"
#include "server/cli/run_request.h"

namespace thermocline {
namespace {

void PrintNumbers(absl::Span<const float> numbers) {
  std::fputc('[', stdout);
  for (size_t i = 0; i < numbers.size(); ++i)
    std::printf(i == 0 ? "%.9g" : ", %.9g", static_cast<double>(numbers[i]));
  std::fputc(']', stdout);
}

absl::Status Score(const EngineFlags& flags, const std::string& token_list, bool json,
                   bool with_logits) {
  absl::StatusOr<std::vector<int32_t>> tokens = ParseTokenList(token_list);
  if (!tokens.ok()) return tokens.status();
  absl::StatusOr<std::unique_ptr<Engine>> engine = LoadEngine(flags, /*exact=*/true);
  if (!engine.ok()) return engine.status();
  std::vector<float> logprobs(tokens->empty() ? 0 : tokens->size() - 1);
  std::vector<std::vector<float>> logits(with_logits ? tokens->size() : 0);
  GenerateRequest request;
  request.prompt = *tokens;
  request.max_tokens = 0;
  request.prompt_logits = true;
  absl::StatusOr<Completion> done = RunRequest(
      engine->get(), std::move(request),
      {.on_text = nullptr, .on_prompt_logits = [&](int64_t position, absl::Span<const float> row) {
         const size_t at = static_cast<size_t>(position);
         if (at < logprobs.size()) logprobs[at] = LogprobOf(row, (*tokens)[at + 1]);
         if (with_logits) logits[at].assign(row.begin(), row.end());
       }});
  if (!done.ok()) return done.status();
  if (!json) {
    for (size_t i = 0; i < logprobs.size(); ++i) {
      std::printf("%d\t%.9g\n", (*tokens)[i + 1], static_cast<double>(logprobs[i]));
    }
    return absl::OkStatus();
  }
  std::fputs("{\"logprobs\": ", stdout);
  PrintNumbers(logprobs);
  if (with_logits) {
    std::fputs(", \"logits\": [", stdout);
    for (size_t t = 0; t < logits.size(); ++t) {
      if (t > 0) std::fputs(", ", stdout);
      PrintNumbers(logits[t]);
    }
    std::fputc(']', stdout);
  }
  std::puts("}");
  return absl::OkStatus();
}

}  // namespace

void AddScoreCommand(CLI::App* app, int* exit_code) {
  struct Flags {
    EngineFlags engine;
    std::string tokens;
    bool json = false, logits = false;
  };
  auto flags = std::make_shared<Flags>();
  CLI::App* command = app->add_subcommand(
      "score", "Log-probabilities of given tokens, in f32 unless told otherwise");
  AddEngineFlags(command, &flags->engine);
  command->add_option("--tokens", flags->tokens, "token ids: 1,2,3; none is added")->required();
  command->add_flag("--json", flags->json, "print {\"logprobs\": [T - 1]}");
  command->add_flag("--logits", flags->logits, "with --json: add \"logits\": [[vocab] x T]");
  command->callback([flags, exit_code] {
    const absl::Status status = Score(flags->engine, flags->tokens, flags->json, flags->logits);
    if (!status.ok()) *exit_code = ReportError(status);
  });
}

}  // namespace thermocline
