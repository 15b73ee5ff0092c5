#include "server/cli/engine_flags.h"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "engine/formats/checkpoint.h"
#include "server/cli/calibration_file.h"

namespace thermocline {

void AddEngineFlags(CLI::App* command, EngineFlags* flags) {
  command->add_option("model", flags->model,
                      "GGUF file or Hugging Face folder (default: the model that comes along)");
  command->add_option("--backend", flags->backend, "cpu or reference")->capture_default_str();
  command
      ->add_option("--threads", flags->threads,
                   "worker threads; 0: one per physical core, no more than the CPU quota allows")
      ->capture_default_str();
  command->add_flag("--no-pinning", flags->no_pinning, "let worker threads move between cores");
  command->add_option("--cpu-isa", flags->cpu_isa,
                      "scalar, avx2 or avx512 (default: the best this machine has)");
  command->add_option("--calibration", flags->calibration,
                      "table of `bench --calibrate`: which kernels are fastest on this machine");
  command->add_option("--activations", flags->activations,
                      "f32 or int8: precision of activations on quantised weights (default: int8; "
                      "f32 for F32 models)");
  command->add_flag("--exact", flags->exact, "the same as --activations f32");
  command->add_option("--kv-dtype", flags->kv_dtype,
                      "f32, f16, bf16 or q8_0 (default: f16; f32 for F32 models)");
  command
      ->add_option("--mla", flags->mla,
                   "absorbed or plain: how latent attention is computed and cached")
      ->capture_default_str();
  command
      ->add_option("--context", flags->context, "longest sequence in tokens; 0: the model's limit")
      ->capture_default_str();
  command
      ->add_option("--kv-tokens", flags->kv_tokens,
                   "KV cache for so many tokens; 0: chosen from free memory")
      ->capture_default_str();
  command->add_option("--block-size", flags->block_size, "tokens in a KV block")
      ->capture_default_str();
  command
      ->add_option("--max-batch-tokens", flags->max_batch_tokens,
                   "tokens computed in one step; 0: chosen by the memory")
      ->capture_default_str();
  command->add_option("--max-num-seqs", flags->max_num_seqs, "sequences that run at once")
      ->capture_default_str();
  command
      ->add_option("--max-waiting", flags->max_waiting,
                   "requests in the queue before new ones are refused")
      ->capture_default_str();
  command->add_option(
      "--memory", flags->memory,
      "memory that the process may take in all, for example 2.2GB (default: what the "
      "system and its control groups leave); experts that do not fit are read from "
      "disk when needed");
  command
      ->add_option("--host-experts", flags->host_experts,
                   "experts of each layer kept in memory, whatever fits; -1: chosen by the memory")
      ->capture_default_str();
  command
      ->add_option("--expert-policy", flags->expert_policy,
                   "which expert gives way: lru, lfu or random")
      ->capture_default_str();
  command->add_option("--placement", flags->placement,
                      "file that says which experts stay in memory and which on disk, in lines "
                      "LAYERS EXPERTS host|disk (\"0-3 * host\"); the others are placed by use");
}

void AddSamplingFlags(CLI::App* command, SamplingFlags* flags) {
  command->add_option("--temperature", flags->temperature, "0: greedy")->capture_default_str();
  command->add_option("--top-k", flags->top_k, "0: all")->capture_default_str();
  command->add_option("--top-p", flags->top_p)->capture_default_str();
  command->add_option("--min-p", flags->min_p)->capture_default_str();
  command->add_option("--repetition-penalty", flags->repetition_penalty)->capture_default_str();
  command->add_option("--seed", flags->seed)->capture_default_str();
}

void AddEnvironmentTwins(CLI::App* command) {
  for (CLI::Option* option : command->get_options()) {
    const std::string name = option->get_single_name();
    if (name == "help" || name == "config") continue;
    const std::string twin = absl::StrCat(
        "THERMOCLINE_", absl::AsciiStrToUpper(absl::StrReplaceAll(name, {{"-", "_"}})));
    option->envname(twin);
  }
}

absl::StatusOr<EngineOptions> ToEngineOptions(const EngineFlags& flags) {
  EngineOptions options;
  options.model_path = flags.model.empty() ? DefaultModelPath() : flags.model;
  if (options.model_path.empty()) {
    return absl::NotFoundError(
        "no model given, and the default model is not installed beside this program");
  }
  options.backend = flags.backend;
  options.num_threads = flags.threads;
  options.pin_threads = !flags.no_pinning;
  options.backend_options.isa = flags.cpu_isa;
  if (!flags.calibration.empty()) {
    absl::StatusOr<Calibration> calibration = ReadCalibration(flags.calibration);
    if (!calibration.ok()) return calibration.status();
    options.backend_options.calibration = *calibration;
  }
  if (flags.activations == "f32") {
    options.activations = Activations::kF32;
  } else if (flags.activations == "int8") {
    options.activations = Activations::kInt8;
  } else if (!flags.activations.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("activations = \"", flags.activations, "\", but f32 and int8 are allowed"));
  }
  if (flags.exact && flags.activations == "int8") {
    return absl::InvalidArgumentError("--exact and --activations int8 contradict each other");
  }
  if (flags.exact) options.activations = Activations::kF32;
  if (flags.kv_dtype == "f32") {
    options.kv_dtype = DType::kF32;
  } else if (flags.kv_dtype == "f16") {
    options.kv_dtype = DType::kF16;
  } else if (flags.kv_dtype == "bf16") {
    options.kv_dtype = DType::kBF16;
  } else if (flags.kv_dtype == "q8_0") {
    options.kv_dtype = DType::kQ8_0;
  } else if (!flags.kv_dtype.empty()) {
    return absl::InvalidArgumentError(absl::StrCat("kv-dtype = \"", flags.kv_dtype,
                                                   "\", but f32, f16, bf16 and q8_0 are allowed"));
  }
  if (flags.mla == "plain") {
    options.mla_form = MlaForm::kPlain;
  } else if (flags.mla != "absorbed") {
    return absl::InvalidArgumentError(
        absl::StrCat("mla = \"", flags.mla, "\", but absorbed and plain are allowed"));
  }
  options.max_context = flags.context;
  options.kv_tokens = flags.kv_tokens;
  options.block_size = flags.block_size;
  options.max_waiting = flags.max_waiting;
  options.scheduler = {.max_batch_tokens = flags.max_batch_tokens,
                       .max_num_seqs = flags.max_num_seqs};
  if (!flags.memory.empty()) {
    absl::StatusOr<int64_t> memory = ParseBytes(flags.memory);
    if (!memory.ok()) return memory.status();
    options.memory = *memory;
  }
  if (flags.host_experts >= 0) options.host_experts = flags.host_experts;
  options.expert_policy = flags.expert_policy;
  if (!flags.placement.empty()) {
    constexpr int64_t kMaxBytes = 1 << 20;
    absl::StatusOr<std::string> placement = ReadWholeFile(flags.placement, kMaxBytes);
    if (!placement.ok()) return placement.status();
    options.placement = *std::move(placement);
  }
  options.progress = TerminalProgress("loading");
  return options;
}

SamplingParams ToSamplingParams(const SamplingFlags& flags) {
  SamplingParams params;
  params.temperature = flags.temperature;
  params.top_k = flags.top_k;
  params.top_p = flags.top_p;
  params.min_p = flags.min_p;
  params.repetition_penalty = flags.repetition_penalty;
  params.seed = flags.seed;
  return params;
}

std::string DefaultModelPath() {
  constexpr char kModel[] = "share/thermocline/demo/smollm2-135m-moe-00001-of-00002.gguf";
  std::error_code error;
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", error);
  // Installed: bin/ beside share/. In the source tree: build/server/, two levels down.
  for (const char* up : {"..", "../.."}) {
    const std::filesystem::path path = program.parent_path() / up / kModel;
    if (std::filesystem::exists(path, error))
      return std::filesystem::weakly_canonical(path, error).string();
  }
  return "";
}

LoadProgress TerminalProgress(const char* what) {
  if (isatty(STDERR_FILENO) == 0) return nullptr;
  return [what, last = -1](int64_t done, int64_t total) mutable {
    const int percent = total > 0 ? static_cast<int>(100 * done / total) : 100;
    if (percent == last) return;
    last = percent;
    std::fprintf(stderr, "\r%s [%-40.*s] %3d %%%s", what, percent * 40 / 100,
                 "########################################", percent, percent == 100 ? "\n" : "");
    std::fflush(stderr);
  };
}

absl::StatusOr<std::unique_ptr<Engine>> LoadEngine(EngineFlags flags, bool exact,
                                                   bool fill_behind) {
  if (exact && flags.activations.empty()) flags.exact = true;
  if (exact && flags.kv_dtype.empty()) flags.kv_dtype = "f32";
  absl::StatusOr<EngineOptions> options = ToEngineOptions(flags);
  if (!options.ok()) return options.status();
  options->fill_behind = fill_behind;
  return Engine::Create(*std::move(options));
}

absl::StatusOr<int64_t> ParseBytes(const std::string& text) {
  struct Unit {
    absl::string_view name;
    double bytes;
  };
  constexpr Unit kUnits[] = {{"kB", 1e3},     {"MB", 1e6},     {"GB", 1e9},
                             {"TB", 1e12},    {"KiB", 0x1p10}, {"MiB", 0x1p20},
                             {"GiB", 0x1p30}, {"TiB", 0x1p40}, {"", 1.0}};
  absl::string_view number = text;
  for (const Unit& unit : kUnits) {
    if (!absl::ConsumeSuffix(&number, unit.name)) continue;
    double value = 0.0;
    number = absl::StripAsciiWhitespace(number);
    if (!absl::SimpleAtod(number, &value) || !(value * unit.bytes >= 1.0) ||
        value * unit.bytes > 9e18) {
      break;
    }
    return static_cast<int64_t>(value * unit.bytes);
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "memory = \"", text,
      "\", but a number with kB, MB, GB, TB, KiB, MiB, GiB, TiB or without a unit is allowed"));
}

absl::StatusOr<std::vector<int32_t>> ParseTokenList(const std::string& text) {
  std::vector<int32_t> tokens;
  for (absl::string_view part : absl::StrSplit(text, ',', absl::SkipWhitespace())) {
    int32_t token = 0;
    if (!absl::SimpleAtoi(part, &token)) {
      return absl::InvalidArgumentError(
          absl::StrCat("\"", part, "\" in the token list is not a whole number"));
    }
    tokens.push_back(token);
  }
  return tokens;
}

int ReportError(const absl::Status& status) {
  std::fprintf(stderr, "thermocline: %s\n", std::string(status.message()).c_str());
  return 1;
}

}  // namespace thermocline
