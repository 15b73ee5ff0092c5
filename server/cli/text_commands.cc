// thermocline tokenize and render: the text side alone, line by line from a JSON lines file.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/formats/json.h"
#include "engine/text/template/chat_template.h"
#include "engine/text/tokenizer/tokenizer.h"
#include "server/cli/commands.h"
#include "server/cli/engine_flags.h"

namespace thermocline {
namespace {

using nlohmann::ordered_json;

constexpr int64_t kMaxTemplateBytes = int64_t{16} << 20;

// A folder with tokenizer.json, or any GGUF, with or without tensors.
absl::StatusOr<std::unique_ptr<Tokenizer>> OpenTokenizer(const std::string& path) {
  std::error_code error;
  if (std::filesystem::exists(std::filesystem::path(path) / "tokenizer.json", error))
    return TokenizerFromFolder(path);
  absl::StatusOr<std::unique_ptr<Checkpoint>> checkpoint = Checkpoint::Open(path);
  if (!checkpoint.ok()) return checkpoint.status();
  return TokenizerOf(**checkpoint);
}

// Calls fn with every line's JSON object and prints what it returns.
absl::Status ForEachLine(
    const std::string& file,
    const std::function<absl::StatusOr<ordered_json>(const ordered_json&)>& fn) {
  std::ifstream in(file);
  if (!in) return absl::NotFoundError(absl::StrCat("cannot open \"", file, "\""));
  std::string line;
  for (int64_t number = 1; std::getline(in, line); ++number) {
    if (line.empty()) continue;
    absl::StatusOr<ordered_json> object = ParseOrderedJson(line);
    absl::StatusOr<ordered_json> out = object.ok() && object->is_object()
                                           ? fn(*object)
                                           : absl::InvalidArgumentError("not a JSON object");
    if (!out.ok())
      return absl::InvalidArgumentError(
          absl::StrCat(file, ":", number, ": ", out.status().message()));
    std::puts(out->dump(-1, ' ', false, ordered_json::error_handler_t::replace).c_str());
  }
  return absl::OkStatus();
}

absl::Status TokenizeFile(const std::string& model, const std::string& file) {
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer = OpenTokenizer(model);
  if (!tokenizer.ok()) return tokenizer.status();
  return ForEachLine(file, [&](const ordered_json& line) -> absl::StatusOr<ordered_json> {
    const auto text = line.find("text");
    if (text == line.end() || !text->is_string())
      return absl::InvalidArgumentError("\"text\" is missing");
    absl::StatusOr<std::vector<int32_t>> ids =
        (*tokenizer)->Encode(text->get<std::string>(), /*parse_special=*/true);
    if (!ids.ok()) return ids.status();
    return ordered_json{{"ids", *ids},
                        {"decoded", (*tokenizer)->Decode(*ids, /*with_special=*/true)}};
  });
}

absl::Status RenderFile(const std::string& source_path, const std::string& file) {
  std::unique_ptr<Tokenizer> tokenizer;
  std::string source;
  if (absl::EndsWith(source_path, ".jinja")) {
    absl::StatusOr<std::string> text = ReadWholeFile(source_path, kMaxTemplateBytes);
    if (!text.ok()) return text.status();
    source = *std::move(text);
  } else {
    absl::StatusOr<std::unique_ptr<Tokenizer>> opened = OpenTokenizer(source_path);
    if (!opened.ok()) return opened.status();
    tokenizer = *std::move(opened);
    source = tokenizer->chat_template();
    if (source.empty()) return absl::FailedPreconditionError("the model has no chat template");
  }
  absl::StatusOr<std::unique_ptr<ChatTemplate>> chat = ChatTemplate::Create(source);
  if (!chat.ok()) return chat.status();
  return ForEachLine(file, [&](const ordered_json& line) -> absl::StatusOr<ordered_json> {
    const auto input = line.find("input");
    if (input == line.end() || !input->is_object())
      return absl::InvalidArgumentError("\"input\" is missing");
    absl::StatusOr<std::string> text = (*chat)->Render(*input, SpecialTokenTexts(tokenizer.get()));
    if (!text.ok()) return ordered_json{{"error", std::string(text.status().message())}};
    return ordered_json{{"text", *text}};
  });
}

}  // namespace

void AddTokenizeCommand(CLI::App* app, int* exit_code) {
  auto flags = std::make_shared<std::pair<std::string, std::string>>();
  CLI::App* command = app->add_subcommand("tokenize", "Token ids of texts");
  command
      ->add_option("model", flags->first, "model, folder with tokenizer.json, or GGUF vocabulary")
      ->required();
  command
      ->add_option("--file", flags->second, "JSON lines: {\"text\"} in, {\"ids\", \"decoded\"} out")
      ->required();
  command->callback([flags, exit_code] {
    if (const absl::Status s = TokenizeFile(flags->first, flags->second); !s.ok())
      *exit_code = ReportError(s);
  });
}

void AddRenderCommand(CLI::App* app, int* exit_code) {
  auto flags = std::make_shared<std::pair<std::string, std::string>>();
  CLI::App* command = app->add_subcommand("render", "Render conversations with a chat template");
  command->add_option("template", flags->first, "*.jinja file, or a model")->required();
  command
      ->add_option("--file", flags->second,
                   "JSON lines: {\"input\"} in, {\"text\"} or {\"error\"} out")
      ->required();
  command->callback([flags, exit_code] {
    if (const absl::Status s = RenderFile(flags->first, flags->second); !s.ok())
      *exit_code = ReportError(s);
  });
}

}  // namespace thermocline
