// Flags that all commands which load a model share.
#ifndef THERMOCLINE_SERVER_CLI_ENGINE_FLAGS_H_
#define THERMOCLINE_SERVER_CLI_ENGINE_FLAGS_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/engine.h"

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace thermocline {

struct EngineFlags {
  std::string model;  // empty: the default model
  std::string backend = "cpu";
  int threads = 0;
  bool no_pinning = false;
  std::string cpu_isa;
  std::string calibration;  // file of `bench --calibrate`; empty: none
  std::string activations;  // empty: by the model
  bool exact = false;
  std::string kv_dtype;  // empty: by the model
  std::string mla = "absorbed";
  int64_t context = 0;
  int64_t kv_tokens = 0;
  int block_size = 16;
  int max_batch_tokens = 0;
  int max_num_seqs = 64;
  int max_waiting = 256;
  std::string memory;  // empty: what the system leaves
  int host_experts = -1;
  std::string expert_policy = "lru";
  std::string placement;  // file; empty: none
};

struct SamplingFlags {
  float temperature = 0.0f;
  int top_k = 0;
  float top_p = 1.0f;
  float min_p = 0.0f;
  float repetition_penalty = 1.0f;
  uint64_t seed = 0;
};

// Adds the options. Each has a THERMOCLINE_* twin and a key in the --config file.
void AddEngineFlags(CLI::App* command, EngineFlags* flags);
void AddSamplingFlags(CLI::App* command, SamplingFlags* flags);
// Gives an option its environment twin: --kv-dtype reads THERMOCLINE_KV_DTYPE.
void AddEnvironmentTwins(CLI::App* command);

// INVALID_ARGUMENT for a value that is none of the allowed ones.
absl::StatusOr<EngineOptions> ToEngineOptions(const EngineFlags& flags);
SamplingParams ToSamplingParams(const SamplingFlags& flags);

// Path of the model that comes with the program, found relative to the executable; "" if it is not
// there.
std::string DefaultModelPath();
// A bar on standard error, or nothing when that is no terminal.
LoadProgress TerminalProgress(const char* what);
// Loads a model for a command that runs to its end: f32 throughout when `exact` (unless the flags
// say otherwise). `fill_behind` as in EngineOptions: for commands whose first token is waited for.
absl::StatusOr<std::unique_ptr<Engine>> LoadEngine(EngineFlags flags, bool exact,
                                                   bool fill_behind = false);

// "2.2GB" to bytes: kB, MB, GB, TB are powers of 1000, KiB, MiB, GiB, TiB of 1024; no unit: bytes.
// INVALID_ARGUMENT for anything else.
absl::StatusOr<int64_t> ParseBytes(const std::string& text);
// "1,2,3" to token ids. INVALID_ARGUMENT names the part that is no number.
absl::StatusOr<std::vector<int32_t>> ParseTokenList(const std::string& text);
// Prints the error to standard error and returns the exit status, 1.
int ReportError(const absl::Status& status);

}  // namespace thermocline

#endif  // THERMOCLINE_SERVER_CLI_ENGINE_FLAGS_H_
