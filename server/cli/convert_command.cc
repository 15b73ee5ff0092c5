// thermocline convert: a Hugging Face folder as one GGUF file.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>

#include "absl/strings/str_cat.h"
#include "engine/model/convert/convert.h"
#include "server/cli/commands.h"
#include "server/cli/engine_flags.h"

namespace thermocline {
namespace {

struct ConvertFlags {
  std::string input, output;
  std::string type = "auto";
  bool force = false;
};

absl::Status Convert(const ConvertFlags& flags) {
  ConvertOptions options;
  options.input = flags.input;
  options.output = flags.output;
  options.replace = flags.force;
  if (flags.type == "f32") {
    options.type = DType::kF32;
  } else if (flags.type == "f16") {
    options.type = DType::kF16;
  } else if (flags.type == "bf16") {
    options.type = DType::kBF16;
  } else if (flags.type != "auto") {
    return absl::InvalidArgumentError(
        absl::StrCat("type = \"", flags.type, "\", but auto, f32, f16 and bf16 are allowed"));
  }
  options.progress = TerminalProgress("converting");
  options.warn = [](const std::string& message) {
    std::fprintf(stderr, "thermocline: warning: %s\n", message.c_str());
  };
  return ConvertToGguf(options);
}

}  // namespace

void AddConvertCommand(CLI::App* app, int* exit_code) {
  auto flags = std::make_shared<ConvertFlags>();
  CLI::App* command = app->add_subcommand("convert", "Hugging Face folder to GGUF");
  command->add_option("folder", flags->input, "folder with config.json and *.safetensors")
      ->required();
  command->add_option("output", flags->output, "GGUF file to write")->required();
  command
      ->add_option("--type", flags->type,
                   "auto (as the folder has them), f32, f16 or bf16: type of matrices")
      ->capture_default_str();
  command->add_flag("--force", flags->force, "replace the output if it exists");
  command->callback([flags, exit_code] {
    if (const absl::Status status = Convert(*flags); !status.ok()) *exit_code = ReportError(status);
  });
}

}  // namespace thermocline
