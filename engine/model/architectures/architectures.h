// Constructors of the supported architectures, for engine/model/registry.cc.
//
// Each reads the configuration and returns the model without weights; errors stay in the reader.
#ifndef THERMOCLINE_ENGINE_MODEL_ARCHITECTURES_ARCHITECTURES_H_
#define THERMOCLINE_ENGINE_MODEL_ARCHITECTURES_ARCHITECTURES_H_

#include <memory>

#include "engine/model/config_reader.h"
#include "engine/model/decoder.h"
#include "engine/model/model.h"

namespace thermocline {

std::unique_ptr<Model> MakeBailingMoe(ConfigReader* reader, const ModelOptions& options);
std::unique_ptr<Model> MakeBailingMoe2(ConfigReader* reader, const ModelOptions& options);
std::unique_ptr<Model> MakeDeepseek(ConfigReader* reader, const ModelOptions& options);
std::unique_ptr<Model> MakeDots1(ConfigReader* reader, const ModelOptions& options);
std::unique_ptr<Model> MakeErnie45Moe(ConfigReader* reader, const ModelOptions& options);
std::unique_ptr<Model> MakeGlm4Moe(ConfigReader* reader, const ModelOptions& options);
std::unique_ptr<Model> MakeGptOss(ConfigReader* reader, const ModelOptions& options);
std::unique_ptr<Model> MakeGraniteMoe(ConfigReader* reader, const ModelOptions& options);
std::unique_ptr<Model> MakeHunyuanMoe(ConfigReader* reader, const ModelOptions& options);
std::unique_ptr<Model> MakeLfm2Moe(ConfigReader* reader, const ModelOptions& options);
std::unique_ptr<Model> MakeLlama(ConfigReader* reader, const ModelOptions& options);
std::unique_ptr<Model> MakeLongcatFlash(ConfigReader* reader, const ModelOptions& options);
std::unique_ptr<Model> MakeMinimaxM2(ConfigReader* reader, const ModelOptions& options);
std::unique_ptr<Model> MakeMixtral(ConfigReader* reader, const ModelOptions& options);
std::unique_ptr<Model> MakeOlmoe(ConfigReader* reader, const ModelOptions& options);
std::unique_ptr<Model> MakePhimoe(ConfigReader* reader, const ModelOptions& options);
std::unique_ptr<Model> MakeQwen2Moe(ConfigReader* reader, const ModelOptions& options);
std::unique_ptr<Model> MakeQwen3(ConfigReader* reader, const ModelOptions& options);
std::unique_ptr<Model> MakeQwen3Moe(ConfigReader* reader, const ModelOptions& options);
std::unique_ptr<Model> MakeQwen3Next(ConfigReader* reader, const ModelOptions& options);

}  // namespace thermocline

#endif  // THERMOCLINE_ENGINE_MODEL_ARCHITECTURES_ARCHITECTURES_H_
