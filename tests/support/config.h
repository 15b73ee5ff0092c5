// Configurations as checkpoints without tensors, for tests of what is read from them.
#ifndef THERMOCLINE_TESTS_SUPPORT_CONFIG_H_
#define THERMOCLINE_TESTS_SUPPORT_CONFIG_H_

#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "engine/model/config_reader.h"

namespace thermocline {

// A reader with the checkpoint that it reads.
class Configured {
 public:
  // config.json.
  explicit Configured(const nlohmann::json& config)
      : checkpoint_(std::make_unique<Checkpoint>(Checkpoint::Kind::kHuggingFace, "folder")) {
    *checkpoint_->mutable_config() = config;
    reader_ = std::make_unique<ConfigReader>(*checkpoint_);
  }
  // GGUF metadata; general.architecture is "x" unless given.
  explicit Configured(Metadata metadata)
      : checkpoint_(std::make_unique<Checkpoint>(Checkpoint::Kind::kGguf, "file.gguf")) {
    metadata.emplace("general.architecture", std::string("x"));
    *checkpoint_->mutable_metadata() = std::move(metadata);
    reader_ = std::make_unique<ConfigReader>(*checkpoint_);
  }

  ConfigReader* operator->() { return reader_.get(); }
  ConfigReader* get() { return reader_.get(); }

 private:
  std::unique_ptr<Checkpoint> checkpoint_;
  std::unique_ptr<ConfigReader> reader_;
};

}  // namespace thermocline

#endif  // THERMOCLINE_TESTS_SUPPORT_CONFIG_H_
