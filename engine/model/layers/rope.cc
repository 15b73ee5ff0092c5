#include "engine/model/layers/rope.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"

namespace thermocline {
namespace {

constexpr int64_t kMaxPositions = int64_t{1} << 30;

// 0.1 m ln(s) + 1: how much YaRN sharpens attention (Peng et al. 2023, eq. 22).
double Mscale(double factor, double m) {
  return factor <= 1.0 ? 1.0 : 0.1 * m * std::log(factor) + 1.0;
}

// Reads one value of the scaling dictionary, which newer files call rope_parameters.
class ScalingReader {
 public:
  explicit ScalingReader(ConfigReader* reader) : reader_(reader) {
    // rope_scaling replaces rope_parameters; nothing is merged.
    const bool older = reader->Has({"rope_scaling.rope_type|rope_scaling.type", ""});
    where_ = older || !reader->Has({"rope_parameters", ""}) ? "rope_scaling." : "rope_parameters.";
  }

  std::string Key(absl::string_view name) const { return absl::StrCat(where_, name); }
  double Float(absl::string_view name, absl::string_view gguf, double fallback) const {
    const std::string key = Key(name);
    return reader_->FloatOr({key, gguf}, fallback);
  }
  std::string Type() const {
    if (reader_->is_gguf()) return reader_->StringOr({"", "rope.scaling.type"}, "default");
    const std::string key = absl::StrCat(Key("rope_type"), "|", Key("type"));
    return reader_->StringOr({key, ""}, "default");
  }
  double OriginalContext(int64_t fallback) const {
    const std::string key =
        absl::StrCat("original_max_position_embeddings|", Key("original_max_position_embeddings"));
    return static_cast<double>(
        reader_->IntOr({key, "rope.scaling.original_context_length"}, 1, kMaxPositions, fallback));
  }

 private:
  ConfigReader* reader_;
  std::string where_;
};

// Grattafiori et al. 2024; _compute_llama3_parameters in modeling_rope_utils.py of transformers:
// long waves are slowed by `factor`, short ones kept, those between interpolated.
std::vector<double> Llama3Divisors(const RopeConfig& config, double factor, double low,
                                   double high) {
  std::vector<double> divisors;
  const double original = config.original_max_position_embeddings;
  for (int64_t i = 0; i < config.dim / 2; ++i) {
    const double frequency =
        std::pow(config.theta, -2.0 * static_cast<double>(i) / static_cast<double>(config.dim));
    const double wavelength = 2.0 * M_PI / frequency;
    double divisor = 1.0;
    if (wavelength > original / low) {
      divisor = factor;
    } else if (wavelength >= original / high) {
      const double smooth = (original / wavelength - low) / (high - low);
      divisor = 1.0 / ((1.0 - smooth) / factor + smooth);
    }
    divisors.push_back(divisor);
  }
  return divisors;
}

void ReadYarn(const ScalingReader& scaling, ConfigReader* reader, int64_t max_positions,
              RopeConfig* config) {
  config->scaling = RopeConfig::Scaling::kYarn;
  config->original_max_position_embeddings = scaling.OriginalContext(max_positions);
  config->factor =
      scaling.Float("factor", "rope.scaling.factor",
                    static_cast<double>(max_positions) / config->original_max_position_embeddings);
  config->beta_fast = scaling.Float("beta_fast", "rope.scaling.yarn_beta_fast", 32.0);
  config->beta_slow = scaling.Float("beta_slow", "rope.scaling.yarn_beta_slow", 1.0);
  const std::string truncate = scaling.Key("truncate");
  config->truncate =
      reader->BoolOr({truncate, "rope.scaling.yarn_truncate"}, reader->architecture() != "gpt-oss");
  const double mscale = scaling.Float("mscale", "", 0.0);
  double mscale_all = scaling.Float("mscale_all_dim", "", 0.0);
  double fallback = Mscale(config->factor, 1.0);
  if (reader->is_gguf()) {
    // Files name the one number; they hold models whose two are equal.
    mscale_all = 10.0 * reader->FloatOr({"", "rope.scaling.yarn_log_multiplier"}, 0.0);
    if (mscale_all != 0.0) fallback = 1.0;
  } else if (mscale_all != 0.0) {
    reader->Record("rope.scaling.yarn_log_multiplier", 0.1 * mscale_all);
    if (mscale != 0.0) {
      fallback = Mscale(config->factor, mscale) / Mscale(config->factor, mscale_all);
      if (mscale != mscale_all) reader->Record("rope.scaling.yarn_attn_factor", fallback);
    }
  }
  config->attention_factor =
      scaling.Float("attention_factor", "rope.scaling.yarn_attn_factor", fallback);
  if (mscale_all != 0.0) config->softmax_mscale = Mscale(config->factor, mscale_all);
}

// Two sets of divisors, of which the context decides one for all positions: an answer must not
// depend on how far others got. Ding et al. 2024 (LongRoPE).
void ReadLongRope(const ScalingReader& scaling, ConfigReader* reader, int64_t max_positions,
                  int64_t max_context, RopeConfig* config) {
  config->original_max_position_embeddings = scaling.OriginalContext(max_positions);
  const double original = config->original_max_position_embeddings;
  const bool is_long = static_cast<double>(max_context) > original;
  const std::string long_key = scaling.Key("long_factor"), short_key = scaling.Key("short_factor");
  const std::vector<double> long_factor =
      reader->TensorOr({long_key, "rope_factors_long.weight"}, config->dim / 2);
  const std::vector<double> short_factor =
      reader->TensorOr({short_key, "rope_factors_short.weight"}, config->dim / 2);
  config->scaling = RopeConfig::Scaling::kFactors;
  config->divisors = is_long ? long_factor : short_factor;
  if (config->divisors.empty()) {
    reader->Fail("rope scaling of type longrope needs long_factor and short_factor");
    config->divisors.assign(static_cast<size_t>(config->dim / 2), 1.0);
  }
  const double stretch = static_cast<double>(max_positions) / original;
  const double factor =
      stretch <= 1.0 ? 1.0 : std::sqrt(1.0 + std::log(stretch) / std::log(original));
  config->attention_factor =
      scaling.Float(is_long ? "long_mscale" : "short_mscale", "rope.scaling.attn_factor",
                    scaling.Float("attention_factor", "rope.scaling.attn_factor", factor));
  reader->Record("rope.scaling.attn_factor", config->attention_factor);
}

}  // namespace

RopeConfig ReadRope(ConfigReader* reader, int64_t head_dim, int64_t dim,
                    int64_t max_position_embeddings, int64_t max_context) {
  RopeConfig config;
  const ScalingReader scaling(reader);
  config.theta = reader->FloatOr(
      {"rope_scaling.rope_theta|rope_parameters.rope_theta|rope_theta", "rope.freq_base"}, 10000.0);
  config.dim = reader->IntOr({"", "rope.dimension_count"}, 2, head_dim, dim);
  if (config.dim < 2 || config.dim % 2 != 0 || config.dim > head_dim) {
    reader->Fail(
        absl::StrCat("rotary dimension ", config.dim, " does not fit head_dim = ", head_dim));
    config.dim = 2;
  }
  reader->Record("rope.dimension_count", config.dim);
  const std::string type = scaling.Type();
  const bool factors_in_gguf =
      reader->is_gguf() && reader->checkpoint().Find("rope_factors_long.weight") != nullptr;
  if (type == "longrope" || type == "su" || factors_in_gguf) {
    reader->Record("rope.scaling.type", std::string("longrope"));
    ReadLongRope(scaling, reader, max_position_embeddings,
                 max_context > 0 ? max_context : max_position_embeddings, &config);
  } else if (type == "default" || type == "none") {
    // Llama 3.1's scaling comes as divisors in GGUF.
    config.divisors = reader->TensorOr({"", "rope_freqs.weight"}, config.dim / 2);
    if (!config.divisors.empty()) config.scaling = RopeConfig::Scaling::kFactors;
  } else if (type == "linear") {
    reader->Record("rope.scaling.type", type);
    config.scaling = RopeConfig::Scaling::kLinear;
    config.factor = scaling.Float("factor", "rope.scaling.factor", 1.0);
  } else if (type == "llama3") {
    config.scaling = RopeConfig::Scaling::kFactors;
    config.original_max_position_embeddings = scaling.OriginalContext(8192);
    config.divisors = Llama3Divisors(config, scaling.Float("factor", "", 8.0),
                                     scaling.Float("low_freq_factor", "", 1.0),
                                     scaling.Float("high_freq_factor", "", 4.0));
    reader->RecordTensor("rope_freqs.weight", config.divisors);
  } else if (type == "yarn") {
    reader->Record("rope.scaling.type", type);
    ReadYarn(scaling, reader, max_position_embeddings, &config);
  } else if (type == "dynamic") {
    // With alpha (HunYuan) the base is stretched once for all; without, nothing changes up to
    // max_position_embeddings, which we do not go beyond.
    const double alpha = scaling.Float("alpha", "", 0.0);
    if (alpha > 0.0 && config.dim > 2) {
      const double d = static_cast<double>(config.dim);
      config.theta *= std::pow(alpha, d / (d - 2.0));
      reader->Record("rope.freq_base", config.theta);
    }
  } else {
    reader->Fail(absl::StrCat(
        "rope scaling of type \"", type,
        "\" is not supported; supported are default, linear, llama3, yarn, longrope, dynamic"));
  }
  return config;
}

std::vector<float> InvFreq(const RopeConfig& config) {
  const double dim = static_cast<double>(config.dim);
  // YaRN's ramp from the dimension that turns beta_fast times within the original context to the
  // one that turns beta_slow times. Peng et al. 2023, section 3.2; _compute_yarn_parameters of
  // transformers.
  double low = 0.0, high = 1.0;
  if (config.scaling == RopeConfig::Scaling::kYarn) {
    const auto dimension = [&](double turns) {
      return dim * std::log(config.original_max_position_embeddings / (turns * 2.0 * M_PI)) /
             (2.0 * std::log(config.theta));
    };
    low = dimension(config.beta_fast);
    high = dimension(config.beta_slow);
    if (config.truncate) {
      low = std::floor(low);
      high = std::ceil(high);
    }
    low = std::max(low, 0.0);
    high = std::min(high, dim - 1.0);
    if (low == high) high += 0.001;
  }
  std::vector<float> inv_freq;
  for (int64_t i = 0; i < config.dim / 2; ++i) {
    double frequency = std::pow(config.theta, -2.0 * static_cast<double>(i) / dim);
    switch (config.scaling) {
      case RopeConfig::Scaling::kNone:
        break;
      case RopeConfig::Scaling::kLinear:
        frequency /= config.factor;
        break;
      case RopeConfig::Scaling::kFactors:
        frequency /= config.divisors[static_cast<size_t>(i)];
        break;
      case RopeConfig::Scaling::kYarn: {
        const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
        frequency = frequency / config.factor * ramp + frequency * (1.0 - ramp);
        break;
      }
    }
    inv_freq.push_back(static_cast<float>(frequency));
  }
  return inv_freq;
}

}  // namespace thermocline
