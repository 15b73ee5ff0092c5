// thermocline perplexity: how well a model predicts a text.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "engine/sampler.h"
#include "server/cli/commands.h"
#include "server/cli/engine_flags.h"
#include "server/cli/run_request.h"

namespace thermocline {
namespace {

constexpr int64_t kMaxFileBytes = int64_t{64} << 20;

struct PerplexityFlags {
  EngineFlags engine;
  std::string file;
  int64_t chunk = 512;
  int64_t max_chunks = 0;
  bool json = false;
};

// The text is cut into chunks of equal length; the tokens of each chunk's second half are predicted
// from all before them in the chunk, as llama.cpp's perplexity tool does.
absl::Status Perplexity(const PerplexityFlags& flags) {
  if (flags.chunk < 4) return absl::InvalidArgumentError("chunk must be at least 4 tokens");
  absl::StatusOr<std::string> text = ReadWholeFile(flags.file, kMaxFileBytes);
  if (!text.ok()) return text.status();
  absl::StatusOr<std::unique_ptr<Engine>> engine = LoadEngine(flags.engine, /*exact=*/false);
  if (!engine.ok()) return engine.status();
  if ((*engine)->tokenizer() == nullptr)
    return absl::FailedPreconditionError("the model has no tokenizer");
  absl::StatusOr<std::vector<int32_t>> tokens =
      (*engine)->tokenizer()->Encode(*text, /*parse_special=*/false);
  if (!tokens.ok()) return tokens.status();
  int64_t num_chunks = static_cast<int64_t>(tokens->size()) / flags.chunk;
  if (flags.max_chunks > 0) num_chunks = std::min(num_chunks, flags.max_chunks);
  if (num_chunks == 0) {
    return absl::InvalidArgumentError("the text is shorter than one chunk; use a smaller --chunk");
  }
  double sum = 0.0;
  int64_t count = 0;
  for (int64_t c = 0; c < num_chunks; ++c) {
    GenerateRequest request;
    request.prompt.assign(tokens->begin() + c * flags.chunk,
                          tokens->begin() + (c + 1) * flags.chunk);
    const std::vector<int32_t> chunk = request.prompt;
    request.max_tokens = 0;
    request.prompt_logits = true;
    absl::StatusOr<Completion> done = RunRequest(
        engine->get(), std::move(request),
        {.on_text = nullptr,
         .on_prompt_logits = [&](int64_t position, absl::Span<const float> row) {
           if (position < flags.chunk / 2 || position + 1 >= flags.chunk) return;
           sum -= static_cast<double>(LogprobOf(row, chunk[static_cast<size_t>(position) + 1]));
           ++count;
         }});
    if (!done.ok()) return done.status();
    if (isatty(STDERR_FILENO) != 0) {
      std::fprintf(stderr, "\rchunk %lld of %lld: perplexity %.4f", static_cast<long long>(c + 1),
                   static_cast<long long>(num_chunks), std::exp(sum / static_cast<double>(count)));
    }
  }
  if (isatty(STDERR_FILENO) != 0) std::fputs("\n", stderr);
  const double perplexity = std::exp(sum / static_cast<double>(count));
  if (flags.json) {
    const nlohmann::ordered_json out = {{"perplexity", perplexity},
                                        {"tokens_scored", count},
                                        {"chunks", num_chunks},
                                        {"chunk", flags.chunk}};
    std::puts(out.dump().c_str());
  } else {
    std::printf("perplexity %.4f over %lld tokens\n", perplexity, static_cast<long long>(count));
  }
  return absl::OkStatus();
}

}  // namespace

void AddPerplexityCommand(CLI::App* app, int* exit_code) {
  auto flags = std::make_shared<PerplexityFlags>();
  CLI::App* command = app->add_subcommand("perplexity", "Perplexity of a model on a text file");
  AddEngineFlags(command, &flags->engine);
  command->add_option("--file", flags->file, "UTF-8 text")->required();
  command->add_option("--chunk", flags->chunk, "tokens a chunk")->capture_default_str();
  command->add_option("--max-chunks", flags->max_chunks, "stop after so many; 0: all")
      ->capture_default_str();
  command->add_flag("--json", flags->json);
  command->callback([flags, exit_code] {
    if (const absl::Status status = Perplexity(*flags); !status.ok())
      *exit_code = ReportError(status);
  });
}

}  // namespace thermocline
