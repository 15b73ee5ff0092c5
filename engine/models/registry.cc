// The list of architectures: one line each.
#include "absl/strings/str_cat.h"
#include "engine/models/models.h"

namespace thermocline {
namespace {

struct ModelEntry {
  absl::string_view hf;    // model_type of config.json
  absl::string_view gguf;  // general.architecture; empty: not distinguished by GGUF
  std::unique_ptr<Model> (*make)(ConfigReader*);
};

constexpr ModelEntry kModels[] = {
    {"granitemoe", "granitemoe", &MakeGraniteMoe},
    {"granitemoeshared", "", &MakeGraniteMoe},
    {"llama", "llama", &MakeLlama},
    {"mixtral", "llama+experts", &MakeMixtral},
    {"olmoe", "olmoe", &MakeOlmoe},
    {"qwen3_moe", "qwen3moe", &MakeQwen3Moe},
};

}  // namespace

std::string SupportedArchitectures() {
  std::string names;
  for (const ModelEntry& entry : kModels)
    absl::StrAppend(&names, names.empty() ? "" : ", ", entry.hf);
  return names;
}

absl::StatusOr<std::unique_ptr<Model>> MakeModel(const Checkpoint& checkpoint) {
  ConfigReader reader(checkpoint);
  std::string name = reader.architecture();
  if (reader.is_gguf() && name == "llama" &&
      reader.IntOr({"", "expert_count"}, 0, 1 << 20, 0) > 0) {
    name = "llama+experts";
  }
  for (const ModelEntry& entry : kModels) {
    if ((reader.is_gguf() ? entry.gguf : entry.hf) != name || name.empty()) continue;
    std::unique_ptr<Model> model = entry.make(&reader);
    if (!reader.status().ok()) return reader.status();
    return model;
  }
  return absl::UnimplementedError(absl::StrCat("architecture \"", reader.architecture(),
                                               "\" is not supported; supported are ",
                                               SupportedArchitectures()));
}

}  // namespace thermocline
