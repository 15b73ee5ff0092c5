// Constructors of the supported architectures, for engine/models/registry.cc.
//
// Each reads the configuration and returns the model without weights; errors stay in the reader.
#ifndef THERMOCLINE_ENGINE_MODELS_MODELS_H_
#define THERMOCLINE_ENGINE_MODELS_MODELS_H_

#include <memory>

#include "engine/models/config_reader.h"
#include "engine/models/decoder.h"
#include "engine/models/model.h"

namespace thermocline {

std::unique_ptr<Model> MakeGraniteMoe(ConfigReader* reader);
std::unique_ptr<Model> MakeLlama(ConfigReader* reader);
std::unique_ptr<Model> MakeMixtral(ConfigReader* reader);
std::unique_ptr<Model> MakeOlmoe(ConfigReader* reader);
std::unique_ptr<Model> MakeQwen3Moe(ConfigReader* reader);

}  // namespace thermocline

#endif  // THERMOCLINE_ENGINE_MODELS_MODELS_H_
