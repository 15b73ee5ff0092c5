// The list of architectures: one line each.
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "engine/model/architectures/architectures.h"

namespace thermocline {
namespace {

struct ModelEntry {
  absl::string_view hf;  // model_type of config.json
  absl::string_view
      gguf;  // general.architecture; empty: unknown to GGUF. The first entry reads it.
  std::unique_ptr<Model> (*make)(ConfigReader*, const ModelOptions&);
};

// GGUF calls Mixtral "llama"; the number of experts tells them apart.
constexpr absl::string_view kExpertsSuffix = "+experts";

constexpr ModelEntry kModels[] = {
    {"bailing_moe", "bailingmoe", &MakeBailingMoe},
    {"bailing_moe_v2", "bailingmoe2", &MakeBailingMoe2},
    {"deepseek_v2", "deepseek2", &MakeDeepseek},
    {"deepseek_v3", "deepseek2", &MakeDeepseek},
    {"dots1", "dots1", &MakeDots1},
    {"ernie4_5_moe", "ernie4_5-moe", &MakeErnie45Moe},
    {"glm4_moe", "glm4moe", &MakeGlm4Moe},
    {"gpt_oss", "gpt-oss", &MakeGptOss},
    {"granitemoe", "granitemoe", &MakeGraniteMoe},
    {"granitemoeshared", "granitemoe", &MakeGraniteMoe},
    {"hunyuan_v1_moe", "hunyuan-moe", &MakeHunyuanMoe},
    {"kimi_k2", "deepseek2", &MakeDeepseek},
    {"lfm2_moe", "lfm2moe", &MakeLfm2Moe},
    {"llama", "llama", &MakeLlama},
    {"longcat_flash", "", &MakeLongcatFlash},
    {"minimax_m2", "minimax-m2", &MakeMinimaxM2},
    {"mixtral", "llama+experts", &MakeMixtral},
    {"olmoe", "olmoe", &MakeOlmoe},
    {"phimoe", "phimoe", &MakePhimoe},
    {"qwen2_moe", "qwen2moe", &MakeQwen2Moe},
    {"qwen3", "qwen3", &MakeQwen3},
    {"qwen3_moe", "qwen3moe", &MakeQwen3Moe},
    {"qwen3_next", "qwen3next", &MakeQwen3Next},
};

}  // namespace

std::string ArchitectureName(const ConfigReader& reader) {
  const std::string& name = reader.architecture();
  if (reader.is_gguf()) return name;
  // Ling 2.0 names itself like the first generation, which has no norms of queries.
  const bool second =
      reader.checkpoint().Find("model.layers.0.attention.query_layernorm.weight") != nullptr;
  return name == "bailing_moe" && second ? "bailing_moe_v2" : name;
}

std::string GgufArchitecture(const ConfigReader& reader) {
  if (reader.is_gguf()) return reader.architecture();
  for (const ModelEntry& entry : kModels) {
    if (entry.hf == ArchitectureName(reader))
      return std::string(absl::StripSuffix(entry.gguf, kExpertsSuffix));
  }
  return "";
}

std::string SupportedArchitectures() {
  std::string names;
  for (const ModelEntry& entry : kModels)
    absl::StrAppend(&names, names.empty() ? "" : ", ", entry.hf);
  return names;
}

absl::StatusOr<std::unique_ptr<Model>> MakeModel(const Checkpoint& checkpoint,
                                                 const ModelOptions& options) {
  ConfigReader reader(checkpoint);
  return MakeModel(&reader, options);
}

absl::StatusOr<std::unique_ptr<Model>> MakeModel(ConfigReader* reader,
                                                 const ModelOptions& options) {
  std::string name = ArchitectureName(*reader);
  if (reader->is_gguf() && name == "llama" &&
      reader->IntOr({"", "expert_count"}, 0, 1 << 20, 0) > 0) {
    absl::StrAppend(&name, kExpertsSuffix);
  }
  for (const ModelEntry& entry : kModels) {
    if ((reader->is_gguf() ? entry.gguf : entry.hf) != name || name.empty()) continue;
    std::unique_ptr<Model> model = entry.make(reader, options);
    if (!reader->status().ok()) return reader->status();
    return model;
  }
  return absl::UnimplementedError(absl::StrCat("architecture \"", reader->architecture(),
                                               "\" is not supported; supported are ",
                                               SupportedArchitectures()));
}

}  // namespace thermocline
