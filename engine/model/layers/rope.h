// Rotary position embedding: its configuration and the frequencies that follow from it.
#ifndef THERMOCLINE_ENGINE_MODEL_LAYERS_ROPE_H_
#define THERMOCLINE_ENGINE_MODEL_LAYERS_ROPE_H_

#include <cstdint>
#include <vector>

#include "engine/model/config_reader.h"

namespace thermocline {

struct RopeConfig {
  enum class Scaling : uint8_t { kNone, kLinear, kYarn, kFactors };
  double theta = 10000.0;
  int64_t dim = 0;  // elements of a head that turn, from the first on
  // Pairs are (2i, 2i + 1), else (i, i + dim / 2).
  bool interleaved = false;
  Scaling scaling = Scaling::kNone;
  double factor = 1.0;
  double original_max_position_embeddings = 8192.0;
  double beta_fast = 32.0, beta_slow = 1.0;  // YaRN
  bool truncate = true;                      // YaRN: whole dimensions bound the ramp
  // Multiplies sine and cosine.
  double attention_factor = 1.0;
  // YaRN's 0.1 * mscale_all_dim * ln(factor) + 1; its square multiplies the softmax scale of latent
  // attention (DeepSeek-V2, section 2.1.4). 1: none.
  double softmax_mscale = 1.0;
  // kFactors: each frequency is divided by its entry [dim / 2]. LongRoPE and Llama 3.1.
  std::vector<double> divisors;
};

// Reads rope_parameters (newer) or rope_theta with rope_scaling (older) of config.json, rope.* of
// GGUF. `dim` is what turns when the file does not say. `max_context` decides LongRoPE's set of
// factors: the long one when it is beyond the original context. Errors stay in the reader.
RopeConfig ReadRope(ConfigReader* reader, int64_t head_dim, int64_t dim,
                    int64_t max_position_embeddings, int64_t max_context);

// [dim / 2] radians per position.
std::vector<float> InvFreq(const RopeConfig& config);

}  // namespace thermocline

#endif  // THERMOCLINE_ENGINE_MODEL_LAYERS_ROPE_H_
