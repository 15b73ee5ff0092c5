// thermocline bench: prefill, decode and batches of a model, with what the machine allows beside
// them.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "engine/benchmark.h"
#include "engine/model/convert/random_model.h"
#include "kernels/cpu/calibrate.h"
#include "kernels/cpu/peaks.h"
#include "kernels/host_memory_info.h"
#include "server/cli/calibration_file.h"
#include "server/cli/commands.h"
#include "server/cli/engine_flags.h"
#include "server/version.h"

namespace thermocline {
namespace {

struct BenchFlags {
  EngineFlags engine;
  BenchmarkOptions options;
  int64_t buffer_mib = 0;
  std::string calibrate;
  std::string shape;  // of a random model; empty: measure the model given
  bool json = false;
};

nlohmann::ordered_json ToJson(const BenchmarkRow& row) {
  nlohmann::ordered_json stages;
  for (size_t i = 0; i < kNumStages; ++i) stages[kStageNames[i]] = row.stages[i] * 1e3;
  return {{"kind", row.kind},
          {"streams", row.streams},
          {"tokens", row.tokens},
          {"tokens_per_second",
           {{"median", row.tokens_per_second.median},
            {"p10", row.tokens_per_second.p10},
            {"p90", row.tokens_per_second.p90}}},
          {"step_ms", row.seconds * 1e3},
          {"bytes_per_step", row.bytes},
          {"ops_per_step", row.ops},
          {"experts_per_layer", row.experts_per_layer},
          {"file_bytes_per_step", row.file_bytes},
          {"gb_per_second", row.gb_per_second()},
          {"gop_per_second", row.gop_per_second()},
          {"read_gb_per_second", row.read_gb_per_second},
          {"int8_gop_per_second", row.int8_gop_per_second},
          {"share_of_read", row.gb_per_second() / row.read_gb_per_second},
          {"share_of_int8", row.gop_per_second() / row.int8_gop_per_second},
          {"share_of_bound", row.share_of_bound()},
          {"stage_ms", stages}};
}

void PrintTable(const std::vector<BenchmarkRow>& rows) {
  std::puts(
      "            streams tokens     tok/s (p10 to p90)   GB/s  of read  Gop/s  of int8  of "
      "bound");
  for (const BenchmarkRow& r : rows) {
    std::puts(
        absl::StrFormat(
            "%-10s  %7d %6d %9.1f (%.1f to %.1f)  %6.1f   %3.0f %%  %6.0f    %3.0f %%     %3.0f %%",
            r.kind, r.streams, r.tokens, r.tokens_per_second.median, r.tokens_per_second.p10,
            r.tokens_per_second.p90, r.gb_per_second(),
            100.0 * r.gb_per_second() / r.read_gb_per_second, r.gop_per_second(),
            100.0 * r.gop_per_second() / r.int8_gop_per_second, 100.0 * r.share_of_bound())
            .c_str());
  }
  std::puts(
      "\nms a step    streams tokens      step  embed attention router experts combine   head  "
      "sample  MB from disk");
  for (const BenchmarkRow& r : rows) {
    std::string line =
        absl::StrFormat("%-10s  %7d %6d %9.2f", r.kind, r.streams, r.tokens, r.seconds * 1e3);
    const int widths[kNumStages] = {7, 10, 7, 8, 8, 7, 8};
    for (size_t i = 0; i < kNumStages; ++i) {
      absl::StrAppendFormat(&line, "%*.2f", widths[i], r.stages[i] * 1e3);
    }
    absl::StrAppendFormat(&line, "%14.1f", r.file_bytes / 1e6);
    std::puts(line.c_str());
  }
}

absl::Status Calibrate(const BenchFlags& flags) {
  absl::StatusOr<std::unique_ptr<WorkerPool>> pool =
      WorkerPool::Create(flags.engine.threads, !flags.engine.no_pinning);
  if (!pool.ok()) return pool.status();
  absl::StatusOr<Calibration> calibration =
      CalibrateKernels(flags.engine.cpu_isa, pool->get(), [](absl::string_view format) {
        if (isatty(STDERR_FILENO) != 0) {
          std::fprintf(stderr, "\r\033[Kcalibrating %s", std::string(format).c_str());
        }
      });
  if (isatty(STDERR_FILENO) != 0) std::fputs("\r\033[K", stderr);
  if (!calibration.ok()) return calibration.status();
  if (absl::Status s = WriteCalibration(flags.calibrate, *calibration); !s.ok()) return s;
  std::printf("wrote %s; use it with --calibration %s\n", flags.calibrate.c_str(),
              flags.calibrate.c_str());
  return absl::OkStatus();
}

// A temporary file, gone when this is.
class TemporaryModel {
 public:
  ~TemporaryModel() {
    if (!path_.empty()) std::remove(path_.c_str());
  }
  absl::Status Write(const std::string& shape) {
    std::error_code error;
    const std::filesystem::path folder = std::filesystem::temp_directory_path(error);
    if (error) return absl::UnavailableError("no folder for temporary files");
    const std::string path =
        folder / absl::StrCat("thermocline-bench-", static_cast<int64_t>(getpid()), ".gguf");
    if (absl::Status s = WriteRandomModel(shape, path); !s.ok()) return s;
    path_ = path;
    return absl::OkStatus();
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// Over the experts in memory, which are there anyway, if they are more than the caches hold; else
// over memory that is free.
absl::StatusOr<std::unique_ptr<PeakMeter>> MakeMeter(const BenchFlags& flags, Engine* engine) {
  constexpr int64_t kEnough = int64_t{1} << 28, kMost = int64_t{4} << 30;
  int64_t bytes = flags.buffer_mib << 20;
  if (bytes == 0) {
    absl::StatusOr<std::unique_ptr<PeakMeter>> meter = PeakMeter::Create(
        flags.engine.cpu_isa, engine->pool(), engine->experts().host().ReadyMemory());
    if (!meter.ok() || (*meter)->memory_bytes() >= kEnough) return meter;
    bytes = std::clamp<int64_t>(AvailableMemoryBytes() / 4, 1 << 20, kMost);
  }
  return PeakMeter::Create(flags.engine.cpu_isa, engine->pool(), bytes);
}

absl::Status RunBench(BenchFlags flags) {
  if (!flags.calibrate.empty()) return Calibrate(flags);
  TemporaryModel random_model;
  if (!flags.shape.empty()) {
    if (!flags.engine.model.empty()) {
      return absl::InvalidArgumentError("a model and --shape contradict each other");
    }
    if (absl::Status s = random_model.Write(flags.shape); !s.ok()) return s;
    flags.engine.model = random_model.path();
  }
  if (flags.buffer_mib < 0 || flags.buffer_mib > 65536) {
    return absl::InvalidArgumentError(
        absl::StrCat("buffer = ", flags.buffer_mib, " MiB, but 0 to 65536 is allowed"));
  }
  const auto start = std::chrono::steady_clock::now();
  absl::StatusOr<std::unique_ptr<Engine>> engine = LoadEngine(flags.engine, /*exact=*/false);
  if (!engine.ok()) return engine.status();
  const double load_seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  absl::StatusOr<std::unique_ptr<PeakMeter>> meter = MakeMeter(flags, engine->get());
  if (!meter.ok()) return meter.status();
  BenchmarkOptions& options = flags.options;
  options.read_gb_per_second = [&] { return (*meter)->ReadGbPerSecond(); };
  options.int8_gop_per_second = [&] { return (*meter)->Int8GopPerSecond(); };
  const int64_t kv_tokens =
      int64_t{(*engine)->Snapshot().kv_blocks_total} * flags.engine.block_size;
  if (kv_tokens > 0) options.kv_token_bytes = (*engine)->kv_bytes() / kv_tokens;
  if (isatty(STDERR_FILENO) != 0) {
    options.progress = [](const std::string& what) {
      std::fprintf(stderr, "\r\033[K%s", what.c_str());
    };
  }
  absl::StatusOr<std::vector<BenchmarkRow>> rows = RunBenchmark(engine->get(), options);
  if (options.progress) std::fputs("\r\033[K", stderr);
  if (!rows.ok()) return rows.status();
  const double clock = PeakMeter::ClockGhz();
  if (!flags.json) {
    std::puts(absl::StrFormat("%s; clock %.2f GHz; loaded in %.2f s; peaks over %d MB\n",
                              (*engine)->DescribeBackend(), clock, load_seconds,
                              (*meter)->memory_bytes() / 1000000)
                  .c_str());
    PrintTable(*rows);
    return absl::OkStatus();
  }
  nlohmann::ordered_json out = {{"version", kVersion},
                                {"model", flags.shape.empty() ? flags.engine.model : flags.shape},
                                {"backend", (*engine)->DescribeBackend()},
                                {"clock_ghz", clock},
                                {"load_seconds", load_seconds},
                                {"rows", nlohmann::ordered_json::array()}};
  for (const BenchmarkRow& row : *rows) out["rows"].push_back(ToJson(row));
  std::puts(out.dump(2).c_str());
  return absl::OkStatus();
}

}  // namespace

void AddBenchCommand(CLI::App* app, int* exit_code) {
  auto flags = std::make_shared<BenchFlags>();
  CLI::App* command = app->add_subcommand("bench", "Speed of a model on this machine");
  AddEngineFlags(command, &flags->engine);
  BenchmarkOptions& options = flags->options;
  command->add_option("--prefill", options.prefill, "prompt lengths, comma-separated")
      ->delimiter(',')
      ->capture_default_str();
  command
      ->add_option("--streams", options.streams, "streams that generate at once, comma-separated")
      ->delimiter(',')
      ->capture_default_str();
  command->add_option("--prompt-tokens", options.prompt_tokens, "prompt of each stream")
      ->capture_default_str();
  command->add_option("--new-tokens", options.new_tokens, "tokens each stream generates")
      ->capture_default_str();
  command
      ->add_option("--repetitions", options.repetitions, "runs of each row, besides one to warm up")
      ->capture_default_str();
  command->add_option("--seed", options.seed, "of the random tokens")->capture_default_str();
  command
      ->add_option(
          "--buffer-mib", flags->buffer_mib,
          "memory read to measure the bandwidth; 0: the experts in memory, or what is free")
      ->capture_default_str();
  command->add_option("--shape", flags->shape,
                      absl::StrCat("instead of a model: random weights, SHAPE or SHAPE:TYPE, with ",
                                   absl::StrJoin(RandomModelShapes(), ", "),
                                   " (written to TMPDIR and removed again)"));
  command->add_option("--calibrate", flags->calibrate,
                      "measure which kernels are fastest, write the table to this file, and stop");
  command->add_flag("--json", flags->json);
  command->callback([flags, exit_code] {
    if (const absl::Status status = RunBench(*flags); !status.ok())
      *exit_code = ReportError(status);
  });
}

}  // namespace thermocline
