// thermocline inspect: what a model file holds and what it needs, without loading it.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/pass/kv_cache.h"
#include "kernels/host_memory_info.h"
#include "server/cli/commands.h"
#include "server/cli/engine_flags.h"

namespace thermocline {
namespace {

using nlohmann::ordered_json;

constexpr size_t kShownArrayElems = 8;
constexpr size_t kShownText = 200;

ordered_json Shorten(const MetadataValue& value) {
  return std::visit(
      [](const auto& v) -> ordered_json {
        using T = std::decay_t<decltype(v)>;
        if constexpr (std::is_same_v<T, std::string>) {
          return v.size() <= kShownText ? v : v.substr(0, kShownText) + "...";
        } else if constexpr (std::is_arithmetic_v<T>) {
          return v;
        } else {
          ordered_json shown = ordered_json::array();
          for (size_t i = 0; i < v.size() && i < kShownArrayElems; ++i) shown.push_back(v[i]);
          return {{"length", v.size()}, {"first", std::move(shown)}};
        }
      },
      value);
}

ordered_json Describe(const Checkpoint& checkpoint) {
  ordered_json out = {
      {"path", checkpoint.path()},
      {"format", checkpoint.kind() == Checkpoint::Kind::kGguf ? "gguf" : "safetensors"},
      {"files", checkpoint.files()},
      {"tensor_bytes", checkpoint.total_bytes()}};
  if (checkpoint.kind() == Checkpoint::Kind::kGguf) {
    for (const auto& [key, value] : checkpoint.metadata()) out["metadata"][key] = Shorten(value);
  } else {
    out["metadata"] = checkpoint.config();
  }
  int64_t expert_bytes = 0;
  for (const auto& [name, tensor] : checkpoint.tensors()) {
    out["tensors"].push_back({{"name", name},
                              {"type", std::string(GetFormat(tensor.dtype).name)},
                              {"shape", tensor.shape},
                              {"bytes", tensor.bytes}});
    const bool expert =
        name.find("_exps.") != std::string::npos || name.find(".experts.") != std::string::npos;
    if (expert) expert_bytes += tensor.bytes;
  }
  absl::StatusOr<std::unique_ptr<Model>> model = MakeModel(checkpoint);
  if (!model.ok()) {
    out["supported"] = false;
    out["reason"] = std::string(model.status().message());
    return out;
  }
  const ModelDims& dims = (*model)->dims();
  out["supported"] = true;
  out["needs"] = {{"weight_bytes", checkpoint.total_bytes()},
                  {"expert_bytes", expert_bytes},
                  {"kv_bytes_per_token_f16", KvCache::BytesPerToken(dims, DType::kF16)},
                  {"state_bytes_per_sequence", KvCache::BytesPerSequence(dims)},
                  {"kv_bytes_full_context_f16",
                   KvCache::BytesPerToken(dims, DType::kF16) * dims.max_position_embeddings}};
  // What would fit here and now: all weights and the rest for KV, or else a share of the experts.
  const int64_t available = AvailableMemoryBytes(),
                token_bytes = std::max<int64_t>(1, KvCache::BytesPerToken(dims, DType::kF16));
  const int64_t rest = available - checkpoint.total_bytes();
  out["fits"] = {{"memory_available_bytes", available},
                 {"all_weights", rest > 0},
                 {"kv_tokens_f16", std::max<int64_t>(0, rest) / token_bytes}};
  if (rest <= 0 && expert_bytes > 0) {
    const double share =
        static_cast<double>(available - (checkpoint.total_bytes() - expert_bytes)) /
        static_cast<double>(expert_bytes);
    out["fits"]["host_experts"] =
        static_cast<int64_t>(std::max(0.0, share) * static_cast<double>(dims.num_experts));
  }
  return out;
}

void PrintText(const ordered_json& d) {
  const auto mib = [](const ordered_json& bytes) {
    return static_cast<double>(bytes.get<int64_t>()) / (1 << 20);
  };
  std::printf("%s: %s, %zu file(s), %.1f MiB of tensors\n", d["path"].get<std::string>().c_str(),
              d["format"].get<std::string>().c_str(), d["files"].size(), mib(d["tensor_bytes"]));
  if (d["supported"].get<bool>()) {
    const ordered_json& needs = d["needs"];
    std::printf(
        "supported; memory: weights %.1f MiB (experts %.1f MiB), KV cache %.3f MiB per 1024 tokens "
        "in f16\n",
        mib(needs["weight_bytes"]), mib(needs["expert_bytes"]),
        mib(needs["kv_bytes_per_token_f16"]) * 1024.0);
    if (needs["state_bytes_per_sequence"].get<int64_t>() > 0) {
      std::printf("fixed-size state: %.3f MiB per sequence\n",
                  mib(needs["state_bytes_per_sequence"]));
    }
    const ordered_json& fits = d["fits"];
    std::printf("here: %.1f MiB available, ", mib(fits["memory_available_bytes"]));
    if (fits["all_weights"].get<bool>()) {
      std::printf("all weights fit, with KV cache for %lld tokens\n",
                  static_cast<long long>(fits["kv_tokens_f16"].get<int64_t>()));
    } else if (const int64_t experts = fits.value("host_experts", int64_t{0}); experts > 0) {
      std::printf("about %lld experts of each layer fit, others are read when needed\n",
                  static_cast<long long>(experts));
    } else {
      std::puts("the weights do not fit, not even with one expert a layer");
    }
  } else {
    std::printf("not supported: %s\n", d["reason"].get<std::string>().c_str());
  }
  std::puts("\nmetadata");
  for (const auto& [key, value] : d["metadata"].items())
    std::printf("  %-48s %s\n", key.c_str(),
                value.dump(-1, ' ', false, ordered_json::error_handler_t::replace).c_str());
  std::puts("\ntensors");
  if (!d.contains("tensors")) return;
  for (const ordered_json& t : d["tensors"]) {
    std::printf("  %-48s %-7s %-22s %12lld\n", t["name"].get<std::string>().c_str(),
                t["type"].get<std::string>().c_str(), t["shape"].dump().c_str(),
                static_cast<long long>(t["bytes"].get<int64_t>()));
  }
}

}  // namespace

void AddInspectCommand(CLI::App* app, int* exit_code) {
  struct Flags {
    std::string model;
    bool json = false;
  };
  auto flags = std::make_shared<Flags>();
  CLI::App* command =
      app->add_subcommand("inspect", "Metadata, tensors, sizes and memory needs of a model");
  command->add_option("model", flags->model,
                      "GGUF file or Hugging Face folder (default: the model that comes along)");
  command->add_flag("--json", flags->json);
  command->callback([flags, exit_code] {
    const std::string path = flags->model.empty() ? DefaultModelPath() : flags->model;
    absl::StatusOr<std::unique_ptr<Checkpoint>> checkpoint = Checkpoint::Open(path);
    if (!checkpoint.ok()) {
      *exit_code = ReportError(checkpoint.status());
      return;
    }
    const ordered_json description = Describe(**checkpoint);
    if (flags->json) {
      std::puts(description.dump(2, ' ', false, ordered_json::error_handler_t::replace).c_str());
    } else {
      PrintText(description);
    }
  });
}

}  // namespace thermocline
