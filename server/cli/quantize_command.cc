// thermocline quantize: a GGUF file with smaller weights.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "engine/model/convert/quantize_model.h"
#include "server/cli/commands.h"
#include "server/cli/engine_flags.h"

namespace thermocline {
namespace {

struct QuantizeFlags {
  std::string input, output, type, importance;
  std::vector<std::string> rules;
  bool pure = false, requantize = false, force = false, json = false;
  int threads = 0;
};

// "PATTERN=TYPE"; the pattern may hold '='.
absl::Status ParseRule(const std::string& text, QuantizeOptions* options) {
  const size_t equals = text.rfind('=');
  if (equals == std::string::npos || equals == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("rule \"", text,
                     "\" is not of the form PATTERN=TYPE, as in blk.*ffn_down_exps.weight=q6_k"));
  }
  absl::StatusOr<DType> type = ParseQuantizedType(text.substr(equals + 1));
  if (!type.ok()) return type.status();
  options->rules.emplace_back(text.substr(0, equals), *type);
  return absl::OkStatus();
}

absl::Status Quantize(const QuantizeFlags& flags) {
  QuantizeOptions options;
  options.input = flags.input;
  options.output = flags.output;
  options.replace = flags.force;
  options.pure = flags.pure;
  options.requantize = flags.requantize;
  options.importance_path = flags.importance;
  options.num_threads = flags.threads;
  absl::StatusOr<DType> type = ParseQuantizedType(flags.type);
  if (!type.ok()) return type.status();
  options.type = *type;
  for (const std::string& rule : flags.rules) {
    if (absl::Status s = ParseRule(rule, &options); !s.ok()) return s;
  }
  options.progress = TerminalProgress("quantising");
  options.warn = [](const std::string& message) {
    std::fprintf(stderr, "thermocline: warning: %s\n", message.c_str());
  };
  absl::StatusOr<QuantizeResult> result = QuantizeModel(options);
  if (!result.ok()) return result.status();
  const nlohmann::ordered_json out = {{"input_bytes", result->input_bytes},
                                      {"output_bytes", result->output_bytes},
                                      {"bytes_by_type", result->bytes_by_type}};
  if (flags.json) {
    std::puts(out.dump().c_str());
    return absl::OkStatus();
  }
  std::printf("%.1f MB of weights became %.1f MB:", static_cast<double>(result->input_bytes) / 1e6,
              static_cast<double>(result->output_bytes) / 1e6);
  for (const auto& [name, bytes] : result->bytes_by_type)
    std::printf(" %s %.1f MB", name.c_str(), static_cast<double>(bytes) / 1e6);
  std::puts("");
  return absl::OkStatus();
}

}  // namespace

void AddQuantizeCommand(CLI::App* app, int* exit_code) {
  auto flags = std::make_shared<QuantizeFlags>();
  CLI::App* command = app->add_subcommand("quantize", "GGUF file with smaller weights");
  command->add_option("input", flags->input, "GGUF file")->required();
  command->add_option("output", flags->output, "GGUF file to write")->required();
  command
      ->add_option("type", flags->type,
                   "q8_0, q4_0, q4_k, q5_k, q6_k, iq4_nl, mxfp4, or f16, bf16, f32")
      ->required();
  command->add_option("--tensor-type", flags->rules,
                      "PATTERN=TYPE for tensors whose whole name the pattern matches; the first "
                      "that matches decides");
  command->add_option("--imatrix", flags->importance,
                      "importance matrix of llama-imatrix: GGUF or the older binary format");
  command->add_flag("--pure", flags->pure, "the type everywhere, no mix");
  command->add_flag("--requantize", flags->requantize, "quantise again what is quantised already");
  command->add_option("--threads", flags->threads, "0: one per core")->capture_default_str();
  command->add_flag("--force", flags->force, "replace the output if it exists");
  command->add_flag("--json", flags->json);
  command->callback([flags, exit_code] {
    if (const absl::Status status = Quantize(*flags); !status.ok())
      *exit_code = ReportError(status);
  });
}

}  // namespace thermocline
