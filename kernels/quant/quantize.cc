#include "kernels/quant/quantize.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/check.h"
#include "kernels/quant/blocks.h"
#include "kernels/quant/float_bits.h"
#include "kernels/quant/iq4_nl.h"
#include "kernels/quant/mxfp4.h"
#include "kernels/quant/registry.h"

namespace thermocline {
namespace {

// The inner loops, also for wider vectors where the machine has them. No contraction, so the same
// results everywhere.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define THERMOCLINE_WIDE __attribute__((target_clones("default", "avx2", "avx512f")))
#else
#define THERMOCLINE_WIDE
#endif

constexpr int kLanes = 16;  // partial sums, so that the order of addition is fixed

// Nearest whole number, ties to even, for |x| < 2^22.
inline float Round(float x) { return (x + 12582912.0f) - 12582912.0f; }
inline float Clamp(float x, float low, float high) {
  const float raised = x > low ? x : low;
  return raised < high ? raised : high;
}
inline float Sum(const float (&lanes)[kLanes]) {
  float sum = 0.0f;
  for (float lane : lanes) sum += lane;
  return sum;
}

// x = f16 value nearest to it.
float ToHalf(float x) { return HalfToFloat(FloatToHalf(x)); }
void StoreHalf(float x, uint8_t* out) {
  const uint16_t half = FloatToHalf(x);
  std::memcpy(out, &half, 2);
}

// ---- x ~ scale * code, codes whole numbers in [low, high] ----

// sum w x q and sum w q^2 for the codes that x / scale rounds to.
struct Products {
  float xq = 0.0f;
  float qq = 0.0f;
};

THERMOCLINE_WIDE
Products UniformProducts(const float* x, const float* w, int n, float inverse, float low,
                         float high) {
  float xq[kLanes] = {}, qq[kLanes] = {};
  for (int i = 0; i < n; i += kLanes) {
    for (int l = 0; l < kLanes; ++l) {
      const float q = Clamp(Round(x[i + l] * inverse), low, high);
      xq[l] += w[i + l] * x[i + l] * q;
      qq[l] += w[i + l] * q * q;
    }
  }
  return {Sum(xq), Sum(qq)};
}

THERMOCLINE_WIDE
float UniformError(const float* x, const float* w, int n, float scale, float low, float high) {
  const float inverse = scale != 0.0f ? 1.0f / scale : 0.0f;
  float error[kLanes] = {};
  for (int i = 0; i < n; i += kLanes) {
    for (int l = 0; l < kLanes; ++l) {
      const float q = Clamp(Round(x[i + l] * inverse), low, high);
      const float difference = x[i + l] - scale * q;
      error[l] += w[i + l] * difference * difference;
    }
  }
  return Sum(error);
}

float LargestBySize(const float* x, int n) {
  float largest = 0.0f;
  for (int i = 0; i < n; ++i) {
    if (std::fabs(x[i]) > std::fabs(largest)) largest = x[i];
  }
  return largest;
}

// The scale of least error; the codes reach from low < 0 to high >= 0.
float UniformScale(const float* x, const float* w, int n, float low, float high) {
  const float largest = LargestBySize(x, n);
  if (std::fabs(largest) < 1e-30f) return 0.0f;
  float best_gain = -1.0f, best = 0.0f;
  // The largest weight at either end of the codes, or a little beyond.
  for (const float end : {low, high}) {
    const float step = std::fabs(end) / 40.0f;
    for (int k = -8; k <= 8; ++k) {
      const float inverse = (end + step * static_cast<float>(k)) / largest;
      Products p = UniformProducts(x, w, n, inverse, low, high);
      if (p.qq <= 0.0f || p.xq * p.xq <= best_gain * p.qq) continue;
      best_gain = p.xq * p.xq / p.qq;
      best = p.xq / p.qq;
    }
  }
  for (int round = 0; round < 4 && best != 0.0f; ++round) {
    const Products p = UniformProducts(x, w, n, 1.0f / best, low, high);
    if (p.qq <= 0.0f || p.xq * p.xq <= best_gain * p.qq) break;
    best_gain = p.xq * p.xq / p.qq;
    best = p.xq / p.qq;
  }
  return best;
}

int CodeOf(float x, float scale, float low, float high) {
  return scale != 0.0f ? static_cast<int>(Clamp(Round(x / scale), low, high)) : 0;
}

void QuantizeQ8_0(const float* x, const float* w, uint8_t* out) {
  const float largest = std::fabs(LargestBySize(x, kSmallBlockElems));
  // The largest weight at code 127, or a little beyond where that serves the others.
  float best = ToHalf(largest / 127.0f);
  float best_error = UniformError(x, w, kSmallBlockElems, best, -127.0f, 127.0f);
  for (int k = -4; k <= 4; ++k) {
    const float scale = ToHalf(largest / (127.0f + 0.25f * static_cast<float>(k)));
    const float error = UniformError(x, w, kSmallBlockElems, scale, -127.0f, 127.0f);
    if (error < best_error) {
      best_error = error;
      best = scale;
    }
  }
  StoreHalf(best, out);
  for (int i = 0; i < kSmallBlockElems; ++i) {
    out[2 + i] = static_cast<uint8_t>(static_cast<int8_t>(CodeOf(x[i], best, -127.0f, 127.0f)));
  }
}

void QuantizeQ4_0(const float* x, const float* w, uint8_t* out) {
  const float scale = ToHalf(UniformScale(x, w, kSmallBlockElems, -8.0f, 7.0f));
  StoreHalf(scale, out);
  const auto code = [&](int i) {
    return static_cast<uint8_t>(CodeOf(x[i], scale, -8.0f, 7.0f) + 8);
  };
  for (int i = 0; i < 16; ++i) out[2 + i] = static_cast<uint8_t>(code(i) | code(i + 16) << 4);
}

// ---- x ~ scale * table[code] ----

// Codes of the values nearest to x / 2, for whole x in [-256, 255]: the middles between values are
// multiples of one half, so nothing is lost by rounding 2 x down.
struct NearestIq4Nl {
  uint8_t code[512];
  NearestIq4Nl() {
    for (int i = 0; i < 512; ++i) {
      const float x = (static_cast<float>(i - 256) + 0.5f) / 2.0f;
      int best = 0;
      for (int c = 1; c < 16; ++c) {
        if (std::fabs(x - static_cast<float>(kIq4NlValues[c])) <
            std::fabs(x - static_cast<float>(kIq4NlValues[best]))) {
          best = c;
        }
      }
      code[i] = static_cast<uint8_t>(best);
    }
  }
  int operator()(float x) const {
    const float half = Clamp(2.0f * x, -256.0f, 255.0f);
    const int floor = static_cast<int>(half + 256.0f);  // not negative: truncates downwards
    return code[floor];
  }
};

void QuantizeIq4Nl(const float* x, const float* w, uint8_t* out) {
  static const NearestIq4Nl* const nearest = new NearestIq4Nl();
  const auto products = [&](float inverse) {
    Products p;
    for (int i = 0; i < kSmallBlockElems; ++i) {
      const float q = static_cast<float>(kIq4NlValues[(*nearest)(x[i] * inverse)]);
      p.xq += w[i] * x[i] * q;
      p.qq += w[i] * q * q;
    }
    return p;
  };
  const float largest = LargestBySize(x, kSmallBlockElems);
  float best_gain = -1.0f, best = 0.0f;
  for (int k = -8; k <= 8 && largest != 0.0f; ++k) {
    for (const float end : {-127.0f, 113.0f}) {
      const Products p = products(end * (1.0f + 0.025f * static_cast<float>(k)) / largest);
      if (p.qq <= 0.0f || p.xq * p.xq <= best_gain * p.qq) continue;
      best_gain = p.xq * p.xq / p.qq;
      best = p.xq / p.qq;
    }
  }
  for (int round = 0; round < 4 && best != 0.0f; ++round) {
    const Products p = products(1.0f / best);
    if (p.qq <= 0.0f || p.xq * p.xq <= best_gain * p.qq) break;
    best_gain = p.xq * p.xq / p.qq;
    best = p.xq / p.qq;
  }
  const float scale = ToHalf(best), inverse = scale != 0.0f ? 1.0f / scale : 0.0f;
  StoreHalf(scale, out);
  for (int i = 0; i < 16; ++i) {
    out[2 + i] =
        static_cast<uint8_t>((*nearest)(x[i] * inverse) | (*nearest)(x[i + 16] * inverse) << 4);
  }
}

// The code of the nearest FP4 value; x is in units of half the block's scale.
int Fp4Code(float x) {
  constexpr float kMiddles[] = {0.5f, 1.5f, 2.5f, 3.5f, 5.0f, 7.0f, 10.0f};
  int code = 0;
  for (float middle : kMiddles) code += std::fabs(x) > middle;
  return x < 0.0f ? code | 8 : code;
}

void QuantizeMxfp4(const float* x, const float* w, uint8_t* out) {
  const float largest = std::fabs(LargestBySize(x, kSmallBlockElems));
  // With exponent e codes reach 12 * 2^(e - 128). The largest weight just inside, or a little
  // beyond: one or the other serves the rest better.
  const int middle = largest > 0.0f ? std::clamp(std::ilogb(largest) - 2 + 127, 0, 254) : 0;
  int best = middle;
  float best_error = -1.0f;
  for (int e = std::max(0, middle - 1); e <= std::min(254, middle + 1); ++e) {
    const float unit = E8m0ToHalfFloat(static_cast<uint8_t>(e));
    float error = 0.0f;
    for (int i = 0; i < kSmallBlockElems; ++i) {
      const float value = unit * static_cast<float>(kMxfp4Values[Fp4Code(x[i] / unit)]);
      error += w[i] * (x[i] - value) * (x[i] - value);
    }
    if (best_error >= 0.0f && error >= best_error) continue;
    best_error = error;
    best = e;
  }
  const float unit = E8m0ToHalfFloat(static_cast<uint8_t>(best));
  out[0] = static_cast<uint8_t>(best);
  for (int i = 0; i < 16; ++i) {
    out[1 + i] = static_cast<uint8_t>(Fp4Code(x[i] / unit) | Fp4Code(x[i + 16] / unit) << 4);
  }
}

// ---- Q6_K: x ~ d * scale[g] * code, 16 groups of 16 ----

constexpr int kGroup6 = 16, kGroups6 = 16;

struct Q6State {
  float d = 0.0f;
  int scales[kGroups6] = {};
  float error = 0.0f;
};

// The best stored scale of each group for a given d, searched around `wanted`.
void ChooseScales6(const float* x, const float* w, const float* wanted, float d, Q6State* state) {
  state->d = d;
  state->error = 0.0f;
  for (int g = 0; g < kGroups6; ++g) {
    const int middle =
        d != 0.0f ? static_cast<int>(Clamp(Round(wanted[g] / d), -128.0f, 127.0f)) : 0;
    float best_error = -1.0f;
    for (int s = std::max(-128, middle - 1); s <= std::min(127, middle + 1); ++s) {
      const float error = UniformError(x + g * kGroup6, w + g * kGroup6, kGroup6,
                                       d * static_cast<float>(s), -32.0f, 31.0f);
      if (best_error >= 0.0f && error >= best_error) continue;
      best_error = error;
      state->scales[g] = s;
    }
    state->error += best_error;
  }
}

void QuantizeQ6K(const float* x, const float* w, uint8_t* out) {
  float wanted[kGroups6];
  for (int g = 0; g < kGroups6; ++g) {
    wanted[g] = UniformScale(x + g * kGroup6, w + g * kGroup6, kGroup6, -32.0f, 31.0f);
  }
  const float largest = LargestBySize(wanted, kGroups6);
  Q6State best;
  ChooseScales6(x, w, wanted, ToHalf(largest / -128.0f), &best);
  // The d that suits the codes best, as long as it helps.
  for (int round = 0; round < 3; ++round) {
    float xq = 0.0f, qq = 0.0f;
    for (int g = 0; g < kGroups6; ++g) {
      const float s = static_cast<float>(best.scales[g]), scale = best.d * s;
      for (int i = g * kGroup6; i < (g + 1) * kGroup6; ++i) {
        const float q = s * static_cast<float>(CodeOf(x[i], scale, -32.0f, 31.0f));
        xq += w[i] * x[i] * q;
        qq += w[i] * q * q;
      }
    }
    if (qq <= 0.0f) break;
    Q6State next;
    ChooseScales6(x, w, wanted, ToHalf(xq / qq), &next);
    if (next.error >= best.error) break;
    best = next;
  }
  StoreHalf(best.d, out + 208);
  std::memset(out, 0, 192);
  for (int g = 0; g < kGroups6; ++g)
    out[192 + g] = static_cast<uint8_t>(static_cast<int8_t>(best.scales[g]));
  for (int i = 0; i < kSuperBlockElems; ++i) {
    const float scale = best.d * static_cast<float>(best.scales[i / kGroup6]);
    const int code = CodeOf(x[i], scale, -32.0f, 31.0f) + 32;
    const int h = i / 128, p = i % 128 / 32, l = i % 32;
    out[64 * h + 32 * (p & 1) + l] |= static_cast<uint8_t>((code & 0xF) << (p < 2 ? 0 : 4));
    out[128 + 32 * h + l] |= static_cast<uint8_t>((code >> 4) << (2 * p));
  }
}

// ---- Q4_K and Q5_K: x ~ d * scale[g] * code - dmin * min[g], 8 groups of 32 ----

constexpr int kGroupK = 32, kGroupsK = 8;

// Sums for the least squares of x ~ a q - b.
struct LineSums {
  float q = 0.0f, qq = 0.0f, xq = 0.0f;
};

THERMOCLINE_WIDE
LineSums SumsOfLine(const float* x, const float* w, float a, float b, float high) {
  const float inverse = a > 0.0f ? 1.0f / a : 0.0f;
  float sum_q[kLanes] = {}, sum_qq[kLanes] = {}, sum_xq[kLanes] = {};
  for (int i = 0; i < kGroupK; i += kLanes) {
    for (int l = 0; l < kLanes; ++l) {
      const float q = Clamp(Round((x[i + l] + b) * inverse), 0.0f, high);
      sum_q[l] += w[i + l] * q;
      sum_qq[l] += w[i + l] * q * q;
      sum_xq[l] += w[i + l] * x[i + l] * q;
    }
  }
  return {Sum(sum_q), Sum(sum_qq), Sum(sum_xq)};
}

THERMOCLINE_WIDE
float LineError(const float* x, const float* w, float a, float b, float high) {
  const float inverse = a > 0.0f ? 1.0f / a : 0.0f;
  float error[kLanes] = {};
  for (int i = 0; i < kGroupK; i += kLanes) {
    for (int l = 0; l < kLanes; ++l) {
      const float q = Clamp(Round((x[i + l] + b) * inverse), 0.0f, high);
      const float difference = x[i + l] - (a * q - b);
      error[l] += w[i + l] * difference * difference;
    }
  }
  return Sum(error);
}

struct Line {
  float a = 0.0f;  // > 0, or 0 for a group of equal weights
  float b = 0.0f;  // >= 0
};

// The line of least error through a group.
Line FitLine(const float* x, const float* w, float high) {
  float low = x[0], top = x[0], sum_w = 0.0f, sum_x = 0.0f;
  for (int i = 0; i < kGroupK; ++i) {
    low = std::min(low, x[i]);
    top = std::max(top, x[i]);
    sum_w += w[i];
    sum_x += w[i] * x[i];
  }
  low = std::min(low, 0.0f);
  if (top - low < 1e-30f) return {0.0f, -low};
  Line best = {(top - low) / high, -low};
  float best_error = LineError(x, w, best.a, best.b, high);
  constexpr int kSteps = 16;
  for (int k = 0; k <= kSteps; ++k) {
    // From codes that overshoot the range to codes that do not reach its ends.
    const float levels = high - 1.2f + 2.0f * static_cast<float>(k) / kSteps;
    Line line = {(top - low) / levels, -low};
    for (int round = 0; round < 2; ++round) {
      const LineSums s = SumsOfLine(x, w, line.a, line.b, high);
      const float determinant = sum_w * s.qq - s.q * s.q;
      if (determinant <= 0.0f) break;
      Line next = {(sum_w * s.xq - sum_x * s.q) / determinant,
                   (s.q * s.xq - s.qq * sum_x) / determinant};
      if (next.b < 0.0f) next = {s.qq > 0.0f ? s.xq / s.qq : 0.0f, 0.0f};
      if (!(next.a > 0.0f)) break;
      line = next;
      const float error = LineError(x, w, line.a, line.b, high);
      if (error < best_error) {
        best_error = error;
        best = line;
      }
    }
  }
  return best;
}

struct KState {
  float d = 0.0f, dmin = 0.0f;
  int scales[kGroupsK] = {}, mins[kGroupsK] = {};
  float error = 0.0f;

  float a(int g) const { return d * static_cast<float>(scales[g]); }
  float b(int g) const { return dmin * static_cast<float>(mins[g]); }
};

int SixBits(float x) { return static_cast<int>(Clamp(Round(x), 0.0f, 63.0f)); }

// The best stored scale and min of each group for given d and dmin, searched around the lines.
void ChooseScalesK(const float* x, const float* w, const Line* lines, float high, float d,
                   float dmin, KState* state) {
  state->d = d;
  state->dmin = dmin;
  state->error = 0.0f;
  for (int g = 0; g < kGroupsK; ++g) {
    const float *gx = x + g * kGroupK, *gw = w + g * kGroupK;
    const int scale = d > 0.0f ? SixBits(lines[g].a / d) : 0;
    const int min = dmin > 0.0f ? SixBits(lines[g].b / dmin) : 0;
    float best_error = -1.0f;
    for (int s = std::max(0, scale - 1); s <= std::min(63, scale + 1); ++s) {
      for (int m = std::max(0, min - 1); m <= std::min(63, min + 1); ++m) {
        const float error =
            LineError(gx, gw, d * static_cast<float>(s), dmin * static_cast<float>(m), high);
        if (best_error >= 0.0f && error >= best_error) continue;
        best_error = error;
        state->scales[g] = s;
        state->mins[g] = m;
      }
    }
    state->error += best_error;
  }
}

// d and dmin of least squares for the codes that the state gives.
bool RefitK(const float* x, const float* w, float high, const KState& state, float* d,
            float* dmin) {
  // x ~ d * (s q) - dmin * m
  double ss = 0.0, sm = 0.0, mm = 0.0, xs = 0.0, xm = 0.0;
  for (int g = 0; g < kGroupsK; ++g) {
    const float *gx = x + g * kGroupK, *gw = w + g * kGroupK;
    double sum_w = 0.0, sum_x = 0.0;
    for (int i = 0; i < kGroupK; ++i) {
      sum_w += static_cast<double>(gw[i]);
      sum_x += static_cast<double>(gw[i]) * static_cast<double>(gx[i]);
    }
    const LineSums sums = SumsOfLine(gx, gw, state.a(g), state.b(g), high);
    const double s = state.scales[g], m = state.mins[g];
    ss += s * s * static_cast<double>(sums.qq);
    sm += s * m * static_cast<double>(sums.q);
    mm += m * m * sum_w;
    xs += s * static_cast<double>(sums.xq);
    xm += m * sum_x;
  }
  const double determinant = ss * mm - sm * sm;
  if (mm <= 0.0 && ss > 0.0) {
    *d = static_cast<float>(xs / ss);
    *dmin = state.dmin;
    return *d > 0.0f;
  }
  if (determinant <= 1e-12 * ss * mm) return false;
  *d = static_cast<float>((xs * mm - xm * sm) / determinant);
  *dmin = static_cast<float>((xs * sm - xm * ss) / determinant);
  return *d > 0.0f && *dmin >= 0.0f;
}

KState FitSuperBlock(const float* x, const float* w, float high) {
  Line lines[kGroupsK];
  float largest_a = 0.0f, largest_b = 0.0f;
  for (int g = 0; g < kGroupsK; ++g) {
    lines[g] = FitLine(x + g * kGroupK, w + g * kGroupK, high);
    largest_a = std::max(largest_a, lines[g].a);
    largest_b = std::max(largest_b, lines[g].b);
  }
  KState best;
  ChooseScalesK(x, w, lines, high, ToHalf(largest_a / 63.0f), ToHalf(largest_b / 63.0f), &best);
  for (int round = 0; round < 3; ++round) {
    float d = 0.0f, dmin = 0.0f;
    if (!RefitK(x, w, high, best, &d, &dmin)) break;
    KState next;
    ChooseScalesK(x, w, lines, high, ToHalf(d), ToHalf(dmin), &next);
    if (next.error >= best.error) break;
    best = next;
  }
  return best;
}

// The layout of kernels/quant/k_scales.h.
void PackKScales(const KState& state, uint8_t* out) {
  for (int j = 0; j < 4; ++j) {
    const int s4 = state.scales[j + 4], m4 = state.mins[j + 4];
    out[j] = static_cast<uint8_t>(state.scales[j] | (s4 >> 4) << 6);
    out[j + 4] = static_cast<uint8_t>(state.mins[j] | (m4 >> 4) << 6);
    out[j + 8] = static_cast<uint8_t>((s4 & 0xF) | (m4 & 0xF) << 4);
  }
}

int LineCode(float x, float a, float b, float high) {
  return a > 0.0f ? static_cast<int>(Clamp(Round((x + b) * (1.0f / a)), 0.0f, high)) : 0;
}

void QuantizeQ4K(const float* x, const float* w, uint8_t* out) {
  const KState state = FitSuperBlock(x, w, 15.0f);
  StoreHalf(state.d, out);
  StoreHalf(state.dmin, out + 2);
  PackKScales(state, out + 4);
  for (int i = 0; i < 128; ++i) {
    const int low = 64 * (i / 32) + i % 32, top = low + 32;
    const auto code = [&](int k) {
      return LineCode(x[k], state.a(k / kGroupK), state.b(k / kGroupK), 15.0f);
    };
    out[16 + i] = static_cast<uint8_t>(code(low) | code(top) << 4);
  }
}

void QuantizeQ5K(const float* x, const float* w, uint8_t* out) {
  const KState state = FitSuperBlock(x, w, 31.0f);
  StoreHalf(state.d, out);
  StoreHalf(state.dmin, out + 2);
  PackKScales(state, out + 4);
  std::memset(out + 16, 0, 160);
  for (int i = 0; i < kSuperBlockElems; ++i) {
    const int g = i / kGroupK;
    const int code = LineCode(x[i], state.a(g), state.b(g), 31.0f);
    out[48 + 32 * (g / 2) + i % 32] |= static_cast<uint8_t>((code & 0xF) << (g % 2 * 4));
    out[16 + i % 32] |= static_cast<uint8_t>((code >> 4) << g);
  }
}

// An importance matrix is an estimate from some text, so each weight also counts by this share of
// the row's mean: else outliers in columns that the text did not use would be cut off. MXFP4 has
// only powers of two to choose from, and the wrong one halves every code.
constexpr float kPrior = 0.4f, kPriorMxfp4 = 3.0f;

struct Quantizer {
  DType dtype;
  void (*quantize)(const float* x, const float* w, uint8_t* out);  // one block
};

constexpr Quantizer kQuantizers[] = {
    {DType::kQ8_0, &QuantizeQ8_0},  {DType::kQ4_0, &QuantizeQ4_0}, {DType::kQ4_K, &QuantizeQ4K},
    {DType::kQ5_K, &QuantizeQ5K},   {DType::kQ6_K, &QuantizeQ6K},  {DType::kIQ4_NL, &QuantizeIq4Nl},
    {DType::kMXFP4, &QuantizeMxfp4}};

const Quantizer* FindQuantizer(DType dtype) {
  for (const Quantizer& quantizer : kQuantizers) {
    if (quantizer.dtype == dtype) return &quantizer;
  }
  return nullptr;
}

}  // namespace

bool CanQuantize(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16 ||
         FindQuantizer(dtype) != nullptr;
}

std::vector<DType> QuantizableTypes() {
  std::vector<DType> types = {DType::kF32, DType::kF16, DType::kBF16};
  for (const Quantizer& quantizer : kQuantizers) types.push_back(quantizer.dtype);
  return types;
}

void QuantizeRow(DType dtype, const float* weights, int64_t n, const float* importance,
                 uint8_t* out) {
  const WeightFormat& format = GetFormat(dtype);
  TC_CHECK(CanQuantize(dtype) && n % format.block_elems == 0) << format.name << ", " << n;
  if (dtype == DType::kF32) {
    std::memcpy(out, weights, static_cast<size_t>(n) * sizeof(float));
    return;
  }
  const Quantizer* quantizer = FindQuantizer(dtype);
  if (quantizer == nullptr) {
    for (int64_t i = 0; i < n; ++i) {
      const uint16_t half =
          dtype == DType::kF16 ? FloatToHalf(weights[i]) : FloatToBfloat16(weights[i]);
      std::memcpy(out + 2 * i, &half, 2);
    }
    return;
  }
  double total = 0.0;
  for (int64_t i = 0; importance != nullptr && i < n; ++i) {
    total += static_cast<double>(importance[i]);
  }
  const float mean = static_cast<float>(total / static_cast<double>(n));
  const float prior = (dtype == DType::kMXFP4 ? kPriorMxfp4 : kPrior) * mean;
  float w[kSuperBlockElems];
  for (int64_t i = 0; i < n; i += format.block_elems, out += format.block_bytes) {
    for (int j = 0; j < format.block_elems; ++j) {
      // In units of the mean, so that sums stay in range. A row that nothing uses counts evenly.
      w[j] = mean > 0.0f ? (importance[i + j] + prior) / mean : 1.0f;
    }
    quantizer->quantize(weights + i, w, out);
  }
}

}  // namespace thermocline
