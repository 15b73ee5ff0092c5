// The CPU kernels, written once over the vector types of vec_<isa>.h and compiled once per
// instruction set.
//
// Include after a vec_<isa>.h, inside one translation unit per instruction set; everything lands in
// an anonymous namespace.
#ifndef THERMOCLINE_KERNELS_CPU_KERNELS_IMPL_H_
#define THERMOCLINE_KERNELS_CPU_KERNELS_IMPL_H_

#include "kernels/cpu/attend_impl.h"
#include "kernels/cpu/attend_tile_impl.h"
#include "kernels/cpu/exp_impl.h"
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/panel_decode_impl.h"
#include "kernels/cpu/panel_driver_impl.h"

namespace thermocline {
namespace {

// ---- rows of a cache ----

void EncodeF32(const float* x, int64_t n, void* out) { memcpy(out, x, (size_t)n * sizeof(float)); }

void EncodeF16(const float* x, int64_t n, void* out) {
  uint8_t* row = (uint8_t*)out;
  int64_t i = 0;
  for (; i + F32::kLanes <= n; i += F32::kLanes) F32::Load(x + i).StoreHalf(row + 2 * i);
  for (; i < n; ++i) {
    const uint16_t bits = FloatToHalf(x[i]);
    memcpy(row + 2 * i, &bits, sizeof(bits));
  }
}

void EncodeBf16(const float* x, int64_t n, void* out) {
  uint16_t* row = (uint16_t*)out;
  for (int64_t i = 0; i < n; ++i) row[i] = FloatToBfloat16(x[i]);
}

void EncodeQ8(const float* x, int64_t n, void* out) { EncodeQ8_0(x, n, (uint8_t*)out); }

// ---- elementwise ----

inline F32 SiluOf(F32 x) {
  // -x is capped so that exp stays finite; beyond it silu is 0 to f32 precision anyway.
  const F32 e = Exp(F32::Min(F32::Set(87.0f), F32::Mul(x, F32::Set(-1.0f))));
  return F32::Div(x, F32::Add(F32::Set(1.0f), e));
}

// min(g, 7) * sigmoid(1.702 min(g, 7)) * (clamp(u, -7, 7) + 1); Backend's Activation::kSwigluOai.
inline F32 SwigluOaiOf(F32 gate, F32 up) {
  const F32 limit = F32::Set(7.0f), alpha = F32::Set(1.702f);
  const F32 g = F32::Min(gate, limit), u = F32::Max(F32::Min(up, limit), F32::Set(-7.0f));
  const F32 e = Exp(F32::Min(F32::Mul(F32::Mul(alpha, g), F32::Set(-1.0f)), F32::Set(87.0f)));
  const F32 one = F32::Set(1.0f);
  // The limits hide infinity and NaN; times zero they are NaN, everything else is nothing.
  const F32 lost = F32::Mul(F32::Add(gate, up), F32::Zero());
  return F32::Add(F32::Mul(F32::Div(g, F32::Add(one, e)), F32::Add(u, one)), lost);
}

inline F32 SiluMulOf(F32 gate, F32 up) { return F32::Mul(SiluOf(gate), up); }

template <F32 (*kOf)(F32, F32)>
void GatedRow(const float* gate, const float* up, int64_t n, float* out) {
  int64_t i = 0;
  for (; i + F32::kLanes <= n; i += F32::kLanes) {
    kOf(F32::Load(gate + i), F32::Load(up + i)).Store(out + i);
  }
  if (i == n) return;
  // The tail goes through the same vector code, padded with zeros.
  float g[F32::kLanes] = {}, u[F32::kLanes] = {};
  memcpy(g, gate + i, static_cast<size_t>(n - i) * sizeof(float));
  memcpy(u, up + i, static_cast<size_t>(n - i) * sizeof(float));
  kOf(F32::Load(g), F32::Load(u)).Store(g);
  memcpy(out + i, g, static_cast<size_t>(n - i) * sizeof(float));
}

void RmsNormRow(const float* x, const float* weight, float eps, int64_t n, float* out) {
  F32 acc = F32::Zero();
  int64_t i = 0;
  for (; i + F32::kLanes <= n; i += F32::kLanes) {
    const F32 v = F32::Load(x + i);
    acc = F32::Fma(v, v, acc);
  }
  float sum = acc.Sum();
  for (; i < n; ++i) sum += x[i] * x[i];
  // A sum that overflows would make zeros of finite elements; with sum * 0 it makes NaN.
  const float scale = 1.0f / SquareRoot(sum / static_cast<float>(n) + eps) + sum * 0.0f;
  for (i = 0; i < n; ++i) out[i] = x[i] * scale * weight[i];
}

void Axpy(const float* x, float scale, int64_t n, float* acc) {
  const F32 s = F32::Set(scale);
  int64_t i = 0;
  for (; i + F32::kLanes <= n; i += F32::kLanes) {
    F32::Fma(s, F32::Load(x + i), F32::Load(acc + i)).Store(acc + i);
  }
  for (; i < n; ++i) acc[i] = acc[i] + scale * x[i];
}

float LargestMagnitude(const float* x, int64_t n) {
  constexpr int64_t kPiece = 1 << 20;
  float max = 0.0f;
  for (int64_t i = 0; i < n; i += kPiece) {
    const float piece = MaxAbs(x + i, (int)(n - i < kPiece ? n - i : kPiece));
    if (!(piece <= max)) max = piece;
    if (max != max) break;
  }
  return max;
}

// ---- probes ----

int64_t Int8Probe(int64_t rounds, int32_t* sink) {
  constexpr int kChains = 12;
  I32 sums[kChains];
  const I32 w = I32::Broadcast(sink), x = I32::Broadcast(sink + 1);
#pragma GCC unroll 12
  for (int i = 0; i < kChains; ++i) sums[i] = I32::Set(i);  // different, or they would be one
  for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) sums[i] = I32::template DotBytes<false>(sums[i], w, x);
  }
  for (int i = 1; i < kChains; ++i) sums[0] = I32::Add(sums[0], sums[i]);
  int32_t lanes[I32::kLanes];
  sums[0].Store(lanes);
  sink[0] = lanes[0];
  return rounds * kChains * I32::kLanes * 8;
}

int32_t ReadProbe(const uint8_t* p, int64_t bytes) {
  constexpr int kVectors = 8, kBytes = 4 * I32::kLanes;
  I32 sums[kVectors];
  for (int i = 0; i < kVectors; ++i) sums[i] = I32::Zero();
  for (int64_t at = 0; at < bytes; at += kVectors * kBytes) {
    for (int i = 0; i < kVectors * kBytes; i += 64) __builtin_prefetch(p + at + kPrefetchBytes + i);
    for (int i = 0; i < kVectors; ++i) {
      sums[i] = I32::Add(sums[i], I32::Load(p + at + i * kBytes));
    }
  }
  for (int i = 1; i < kVectors; ++i) sums[0] = I32::Add(sums[0], sums[i]);
  int32_t lanes[I32::kLanes], sum = 0;
  sums[0].Store(lanes);
  for (int32_t lane : lanes) sum = (int32_t)((uint32_t)sum + (uint32_t)lane);
  return sum;
}

// ---- the table ----

template <class Format>
void AddFormat(CpuKernels* table) {
  table->dot_panels[(int)Format::kDType] = &DotPanels<Format>;
  table->decode_panel[(int)Format::kDType] = &DecodePanel<Format>;
}

CpuKernels MakeKernels(const char* name) {
  CpuKernels table = {};
  table.name = name;
  table.quantize_small = &QuantizeSmall;
  table.quantize_super = &QuantizeSuper;
  AddFormat<FormatQ4_0>(&table);
  AddFormat<FormatQ4_1>(&table);
  AddFormat<FormatQ5_0>(&table);
  AddFormat<FormatQ5_1>(&table);
  AddFormat<FormatQ8_0>(&table);
  AddFormat<FormatQ2K>(&table);
  AddFormat<FormatQ3K>(&table);
  AddFormat<FormatQ4K>(&table);
  AddFormat<FormatQ5K>(&table);
  AddFormat<FormatQ6K>(&table);
  AddFormat<FormatIq4Nl>(&table);
  AddFormat<FormatIq4Xs>(&table);
  AddFormat<FormatMxfp4>(&table);
  table.dot_panels[(int)DType::kF32] = &DotPanels<FormatF32>;
  table.dot_panels[(int)DType::kF16] = &DotPanels<FormatF16>;
  table.dot_panels[(int)DType::kBF16] = &DotPanels<FormatBf16>;
  table.encode_row[(int)DType::kF32] = &EncodeF32;
  table.encode_row[(int)DType::kF16] = &EncodeF16;
  table.encode_row[(int)DType::kBF16] = &EncodeBf16;
  table.encode_row[(int)DType::kQ8_0] = &EncodeQ8;
  table.decode_row[(int)DType::kF32] = &DecodeRow<F32Storage>;
  table.decode_row[(int)DType::kF16] = &DecodeRow<F16Storage>;
  table.decode_row[(int)DType::kBF16] = &DecodeRow<Bf16Storage>;
  table.decode_row[(int)DType::kQ8_0] = &DecodeRow<Q8Storage>;
  table.attend = &Attend;
  table.attend_tile = &AttendTile;
  table.attend_tile_scratch = &AttendTileScratch;
  table.softmax_block = &SoftmaxBlock;
  table.rms_norm = &RmsNormRow;
  table.silu_mul = &GatedRow<&SiluMulOf>;
  table.swiglu_oai = &GatedRow<&SwigluOaiOf>;
  table.axpy = &Axpy;
  table.largest_magnitude = &LargestMagnitude;
  table.int8_probe = &Int8Probe;
  table.read_probe = &ReadProbe;
  return table;
}

}  // namespace
}  // namespace thermocline

#endif  // THERMOCLINE_KERNELS_CPU_KERNELS_IMPL_H_
